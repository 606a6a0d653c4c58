"""torchvision's classifiers: which there are, what their weights expect, and where they average their features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from samdeploy.errors import InputError
from samdeploy.images.decode import prepare
from samdeploy.models.family import build_model
from samdeploy.models.torchvision import FAMILY

# Pillow resizes horizontally first, and rounds in between; bicubic's negative weights can double that.
LEVELS = 2


def test_networks_with_several_outputs_are_left_out() -> None:
    names = FAMILY.architectures()
    assert {"torchvision:resnet18", "torchvision:vit_b_16", "torchvision:efficientnet_v2_s"} <= set(names)
    assert not any("inception" in name or "googlenet" in name or "quantized" in name for name in names)
    with pytest.raises(InputError, match="unknown architecture 'torchvision:googlenet'"):
        build_model("torchvision:googlenet", 3)


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0"])
def test_images_are_prepared_as_the_weights_expect(name: str) -> None:
    preprocessing = FAMILY.preprocessing(f"torchvision:{name}", {})
    assert preprocessing is not None
    draw = np.random.default_rng(0)
    image = Image.fromarray(draw.integers(0, 256, (31, 47, 3), dtype=np.uint8)).resize((443, 311))
    theirs = torchvision.models.get_model_weights(name).DEFAULT.transforms()(image)
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    expected = ((theirs * std + mean) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(prepare(image, preprocessing).astype(int) - expected).max() <= LEVELS


@pytest.mark.parametrize("name", ["resnext50_32x4d", "regnet_y_400mf", "efficientnet_b0"])
def test_networks_that_end_in_an_average_and_a_linear_head(name: str) -> None:
    model = build_model(f"torchvision:{name}", 3).eval()
    cut = FAMILY.features_and_head(model)
    assert cut is not None
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(cut.head(cut.features(x).mean(dim=(2, 3), keepdim=True).flatten(1)), model(x))


@pytest.mark.parametrize("name", ["alexnet", "mobilenet_v3_small", "squeezenet1_1", "convnext_tiny", "vit_b_32"])
def test_other_networks_have_no_maps(name: str) -> None:
    with torch.device("meta"):
        model = build_model(f"torchvision:{name}", 3)
    assert FAMILY.features_and_head(model) is None
