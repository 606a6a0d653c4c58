"""The forward pass that is exported: uint8 pixels in, float32 logits out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from samdeploy.bundle.spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Preprocessing, model_spec
from samdeploy.models import Exported, build_model
from samdeploy.models.graph import Normalize
from samdeploy.models.layout import channels_last
from samdeploy.models.sam_resnet.fold import fold


def spec() -> ModelSpec:
    return model_spec("sam-resnet18", {"gate": "original"}, ("a", "b", "c"), Preprocessing(32, 40))


def every_pixel_value() -> torch.Tensor:
    """uint8 [1, 16, 16, 3]: each channel holds 0..255, in another order each."""
    values = torch.arange(256, dtype=torch.uint8)
    return torch.stack([values, values.flip(0), values.roll(100)], dim=-1).reshape(1, 16, 16, 3)


@pytest.mark.parametrize(
    ("mean", "std"),
    [(IMAGENET_MEAN, IMAGENET_STD), ((0.0, 0.5, 1.0), (1.0, 0.25, 0.01)), ((0.1307,) * 3, (0.3081,) * 3)],
)
def test_normalize_is_the_textbook_formula(mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
    image = every_pixel_value()
    found = Normalize(Preprocessing(16, 16, mean=mean, std=std))(image)
    wanted = (
        image.double().permute(0, 3, 1, 2) / 255 - torch.tensor(mean).double().reshape(1, 3, 1, 1)
    ) / torch.tensor(std).double().reshape(1, 3, 1, 1)
    assert found.dtype == torch.float32
    assert found.shape == (1, 3, 16, 16)
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-6


def test_normalize_keeps_rows_columns_and_channels_in_their_places() -> None:
    image = torch.zeros(2, 4, 5, 3, dtype=torch.uint8)
    image[1, 2, 3, 0] = 255  # red, row 2, column 3
    found = Normalize(Preprocessing(4, 5, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))(image)
    assert torch.nonzero(found).tolist() == [[1, 0, 2, 3]]


def test_exported_takes_pixels_and_gives_float32_logits() -> None:
    torch.manual_seed(0)
    model = build_model("sam-resnet18", 3, {"gate": "original"}).eval()
    image = torch.randint(0, 256, (5, 32, 40, 3), dtype=torch.uint8)
    with torch.inference_mode():
        logits = Exported(model, spec())(image)
        assert logits.dtype == torch.float32
        assert logits.shape == (5, 3)
        assert torch.equal(logits, model(Normalize(Preprocessing(32, 40))(image)))
        assert Exported(model.double(), spec()).double()(image).dtype == torch.float32
        folded = Exported(fold(model.float()), spec())(image)
        assert torch.allclose(folded, logits, rtol=0, atol=1e-4 * float(logits.abs().max()))


def test_convolutions_of_all_ranks_are_laid_out() -> None:
    network = channels_last(nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv3d(1, 4, (7, 7, 1)), nn.Linear(3, 4)]))
    flat, solid, _ = network
    assert flat.weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[operator, union-attr]
    assert solid.weight.is_contiguous()  # type: ignore[operator, union-attr]
