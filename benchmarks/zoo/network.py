"""Random networks whose activations neither vanish nor explode, the images they see, and a run directory of both."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.names import WEIGHTS_FILE
from samdeploy.bundle.spec import OptionValue, Preprocessing
from samdeploy.data.probe_images import probe_images
from samdeploy.models import build_model, family_of, save_weights
from samdeploy.models.graph import Normalize
from samdeploy.runs.record import RunRecord, write_run

CLASSES = tuple(f"class {index}" for index in range(10))
# Images of a class in each split.
COUNTS = {"train": 1, "val": 1, "test": 2}
SEED = 0
_IMAGE_PX = (272, 320)
_BATCH = 8
_EVERY_PROBE = 6
# Of what convolutions and linear layers give, and the least that batch norms assume of their input.
_DEVIATION = 0.5
# Constants below this are a start that is meant to grow in training: zeros, and ConvNeXt's 1e-6 per channel.
_TINY = 1e-2


def write_images(root: Path) -> None:
    """Blots of colour with noise, as PNG files in a folder for each split and class."""
    draw = np.random.default_rng(SEED)
    for split, count in COUNTS.items():
        for label in CLASSES:
            folder = root / split / label
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(count):
                blots = Image.fromarray(draw.integers(0, 256, (6, 7, 3), dtype=np.uint8))
                smooth = np.asarray(blots.resize(_IMAGE_PX[::-1], Image.Resampling.BICUBIC), np.int16)
                noisy = smooth + draw.integers(-12, 13, smooth.shape, dtype=np.int16)
                Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{index}.png", compress_level=1)


def random_network(arch: str, options: dict[str, OptionValue], preprocessing: Preprocessing) -> nn.Module:
    """Weights from a seed; batch norms hold the statistics of random images, and nothing is zero or nearly so."""
    torch.manual_seed(SEED)
    model = build_model(arch, len(CLASSES), options).eval()
    for name, parameter in model.named_parameters():
        if isinstance(model.get_submodule(name.rpartition(".")[0]), _BatchNorm):
            nn.init.uniform_(parameter, *((0.3, 0.7) if name.endswith("weight") else (-0.2, 0.2)))
        elif float(parameter.detach().abs().max()) < _TINY:
            nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else nn.init.uniform_(parameter, 0.1, 0.3)
    settled: set[nn.Module] = set()
    handles = [
        module.register_forward_hook(partial(_settle, settled))
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d | _BatchNorm)
    ]
    with torch.inference_mode():
        model(Normalize(preprocessing)(torch.from_numpy(_calibration(preprocessing))))
    for handle in handles:
        handle.remove()
    return model


def _settle(
    settled: set[nn.Module], module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
) -> torch.Tensor | None:
    """Before a module's first output is used, make it one of plausible size.

    Outputs of convolutions and linear layers get a deviation of 0.5 (Mishkin and Matas 2016, "All you need is a good
    init"), and batch norms the statistics of their input.  Channels that are almost constant, such as the mean over
    random attention, are not blown up: that would magnify rounding errors, and no trained network does it.
    """
    if module in settled:
        return None
    settled.add(module)
    if isinstance(module, _BatchNorm):
        assert module.running_mean is not None and module.running_var is not None
        axes = [axis for axis in range(inputs[0].ndim) if axis != 1]
        var, mean = torch.var_mean(inputs[0], dim=axes, correction=0)
        module.running_mean.copy_(mean)
        module.running_var.copy_(var.clamp(min=_DEVIATION**2))
    else:
        for parameter in module.parameters(recurse=False):
            parameter.data *= _DEVIATION / output.std().clamp(min=1e-3)
    return cast("torch.Tensor", module.forward(*inputs))


def _calibration(size: Preprocessing) -> UInt8Array:
    """Blots, and some of the flat colours and patterns that `eval` probes with: no trained network explodes at them."""
    images = blots(np.random.default_rng(SEED), size, _BATCH)
    return np.concatenate([images, probe_images(images).images[::_EVERY_PROBE]])


def blots(draw: np.random.Generator, size: Preprocessing, count: int) -> UInt8Array:
    """uint8 [count, H, W, 3]."""
    coarse = torch.from_numpy(draw.random((count, 3, 7, 7), np.float32) * 255)
    smooth = nn.functional.interpolate(coarse, (size.height, size.width), mode="bicubic").numpy()
    noisy = smooth.transpose(0, 2, 3, 1) + draw.integers(-12, 13, (count, size.height, size.width, 3))
    return np.ascontiguousarray(noisy.clip(0, 255).astype(np.uint8))


def write_random_run(run_dir: Path, arch: str, options: dict[str, OptionValue], images: Path) -> nn.Module:
    """A run directory of a random network; gives the network.

    Raises:
        InputError: the images that the architecture expects cannot be expressed in a bundle.
    """
    preprocessing = family_of(arch).preprocessing(arch, options) or Preprocessing(224, 224)
    model = random_network(arch, options, preprocessing)
    run_dir.mkdir(parents=True, exist_ok=True)
    save_weights(model, run_dir / WEIGHTS_FILE)
    write_run(run_dir, RunRecord(
        arch=arch, options=options, classes=CLASSES, preprocessing=preprocessing, dataset="folder", data_options={},
        data_root=str(images), val_fraction=0.1, split_seed=0, counts={}, fingerprints={}, status="complete",
        best_epoch=1, best_val_top1=0.0, best_val_loss=0.0, test_top1=None, test_correct=None, test_images=None,
        provenance={"made_by": "benchmarks/zoo, random weights"},
        weights_sha256=hashlib.sha256((run_dir / WEIGHTS_FILE).read_bytes()).hexdigest(),
    ))  # fmt: skip
    return model
