"""SAM-ResNet against logits of the original code, and its shape."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from samdeploy.errors import InputError
from samdeploy.models import build_model
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.resnet import ARCHS

REFERENCE = Path(__file__).parent / "reference"
# The references were written in float64: what is left is the order of summation.
FLOAT64_RELATIVE = 1e-6


def reference_weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value that the original code's entry `key` had when the reference was made, seeded by the key."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    if key.endswith("running_mean"):
        return rng.normal(0.0, 0.2, shape).astype(np.float32)
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) == 1:
        low, high = (0.5, 1.2) if key.endswith("weight") else (-0.2, 0.2)
        return rng.uniform(low, high, shape).astype(np.float32)
    std = np.sqrt(1.0 / np.prod(shape[1:])) * (0.3 if ".sl.fc." in key else 1.0)
    return rng.normal(0.0, std, shape).astype(np.float32)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "arch", "classes", "batch", "size"),
    [
        ("resnet18_c10_b4_s64", "sam-resnet18", 10, 4, 64),
        ("resnet50_c100_b2_s64", "sam-resnet50", 100, 2, 64),
        ("resnet50_c100_b2_s192", "sam-resnet50", 100, 2, 192),
    ],
)
def test_equals_the_original_code(name: str, arch: str, classes: int, batch: int, size: int) -> None:
    with np.load(REFERENCE / f"{name}.npz") as file:
        logits, layer4_mean, keys = file["logits"], file["layer4_mean"], [str(key) for key in file["keys"]]
    model = build_model(arch, classes, {"gate": "original"})
    state = model.state_dict()
    assert sorted(state) == sorted(keys)
    filled = {key: torch.from_numpy(reference_weight(key, tuple(value.shape))) for key, value in state.items()}
    model.load_state_dict(filled)
    model.double().eval()
    images = np.random.default_rng(batch * 10_000 + size).standard_normal((batch, 3, size, size)).astype(np.float32)
    with torch.inference_mode():
        x = torch.from_numpy(images).double()
        features = model.features(x).mean(dim=(2, 3)).numpy()
        found = model(x).numpy()
        folded = fold(model)(x).numpy()
    assert relative(features, layer4_mean) < FLOAT64_RELATIVE
    assert relative(found, logits) < FLOAT64_RELATIVE
    assert relative(folded, logits) < FLOAT64_RELATIVE


@pytest.mark.parametrize(("arch", "parameters"), [("sam-resnet50", 46_301_860), ("sam-resnet101", 83_119_780)])
def test_parameter_count_as_published(arch: str, parameters: int) -> None:
    assert sum(p.numel() for p in build_model(arch, 100, {"gate": "original"}).parameters()) == parameters


def test_identity_gate_starts_as_the_plain_network() -> None:
    torch.manual_seed(0)
    model = build_model("sam-resnet18", 10, {"gate": "identity"}).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        gated = model(x)
        for module in model.modules():
            if hasattr(module, "sl"):
                module.sl = torch.nn.Identity()
        assert torch.equal(gated, model(x))


def test_every_architecture_gives_one_logit_per_class() -> None:
    for arch in ARCHS:
        with torch.inference_mode():
            assert build_model(arch, 7, {"gate": "identity"}).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_unknown_names() -> None:
    with pytest.raises(InputError, match=r"unknown architecture 'sam-resnet5'; did you mean 'sam-resnet50'"):
        build_model("sam-resnet5", 10)
    with pytest.raises(InputError, match=r"unknown gate 'identiti'; did you mean 'identity'"):
        build_model("sam-resnet18", 10, {"gate": "identiti"})
    with pytest.raises(InputError, match="num_classes: 0 found"):
        build_model("sam-resnet18", 0)
