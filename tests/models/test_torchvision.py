"""torchvision's classifiers: which there are, what their weights expect, and where they average their features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from samdeploy.errors import InputError
from samdeploy.images.decode import prepare
from samdeploy.models.registry import build_model
from samdeploy.models.torchvision import FAMILY

# Pillow resizes horizontally first, and rounds in between; bicubic's negative weights can double that.
LEVELS = 2


def test_networks_with_several_outputs_are_left_out() -> None:
    names = FAMILY.architectures()
    assert {"torchvision:resnet18", "torchvision:vit_b_16", "torchvision:efficientnet_v2_s"} <= set(names)
    assert not any("inception" in name or "googlenet" in name or "quantized" in name for name in names)
    with pytest.raises(InputError, match="torchvision:googlenet: has several outputs"):
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
