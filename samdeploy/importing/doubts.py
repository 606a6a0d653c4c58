"""Whether class names are in the wrong order, or images would fit the network better if they were prepared otherwise.

Nothing in a file of weights says how its images were normalised, and a wrong answer costs a few points of accuracy that
nobody misses.  With labelled images the usual other ways are tried, and one that is clearly better is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from scipy.stats import binomtest
from torch import nn

from samdeploy.arrays import BoolArray, Int64Array, UInt8Array
from samdeploy.bundle.spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec
from samdeploy.metrics import halfway_from_chance, is_chance
from samdeploy.models import build_model, family_of
from samdeploy.models.graph import Exported

# That are measured; 10 s of two cores for a ResNet-50 at 224 px.
IMAGES = 128
_BATCH = 32
# A way is tried on so many wrong images first, and goes on where it gains this share of them.
_FIRST = 32
_LEAST_GAIN = 0.08
# Of McNemar's exact test; several ways are tried.
_SIGNIFICANT = 0.005
_NORMALISATIONS = {
    "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": (IMAGENET_MEAN, IMAGENET_STD),
    "--mean 0.5,0.5,0.5 --std 0.5,0.5,0.5": ((0.5,) * 3, (0.5,) * 3),
    "--mean 0,0,0 --std 1,1,1": ((0.0,) * 3, (1.0,) * 3),
    "--mean 0,0,0 --std 0.00392,0.00392,0.00392": ((0.0,) * 3, (1 / 255,) * 3),
}


def doubt(
    model: nn.Module, spec: ModelSpec, images: UInt8Array, labels: Int64Array, right: BoolArray, *, look: bool
) -> str | None:
    """What is likely wrong with names or preparation; None where nothing is.

    Where answers are as good as chance, another preparation is only named when it is clearly better than chance: a few
    more are right with any other one.

    Args:
        model, spec, images, labels, right: as in `better_preparation`.
        look: try other preparations.
    """
    found = better_preparation(model, spec, images, labels, right) if look else None
    classes = len(spec.classes)
    if is_chance(int(right.sum()), len(labels), classes) and (
        found is None or found[0] < halfway_from_chance(classes) * len(labels)
    ):
        return "no better than chance: are the class names in the network's order?"
    return None if found is None else found[1]


def better_preparation(
    model: nn.Module, spec: ModelSpec, images: UInt8Array, labels: Int64Array, right: BoolArray
) -> tuple[int, str] | None:
    """What would fit clearly better than `spec` says: images that are right then, and words; None where nothing does.

    Args:
        model: the network, in eval mode.
        images: uint8 [n, H, W, 3], RGB.
        labels: int64 [n].
        right: bool [n], which images get their label as `spec` says.
    """
    wrong = np.flatnonzero(~right)
    if not _is_better(len(wrong), 0):
        return None
    some = wrong[:: -(-len(wrong) // _FIRST)]
    found = []
    ways = [(name, model, other, pixels) for name, other, pixels in _ways(spec, images)]
    ways += [(f"--arch {twin.arch}", other, twin, images) for twin, other in _twins(model, spec)]
    for name, network, other, pixels in ways:
        if _right(network, other, pixels[some], labels[some]).mean() < _LEAST_GAIN:
            continue
        answers = _right(network, other, pixels, labels)
        if _is_better(int((answers & ~right).sum()), int((right & ~answers).sum())):
            found.append((int(answers.sum()), name))
    if not found:
        return None
    best, name = max(found)
    return best, f"the images fit better with {name}: {best} instead of {right.sum()} of {len(labels)} are right"


def _is_better(gained: int, lost: int) -> bool:
    return gained > lost and bool(binomtest(lost, gained + lost).pvalue < _SIGNIFICANT)


def _ways(spec: ModelSpec, images: UInt8Array) -> Iterator[tuple[str, ModelSpec, UInt8Array]]:
    for name, (mean, std) in _NORMALISATIONS.items():
        near = np.allclose((*mean, *std), (*spec.preprocessing.mean, *spec.preprocessing.std), atol=5e-3)
        if not near:
            yield name, replace(spec, preprocessing=replace(spec.preprocessing, mean=mean, std=std)), images
    yield "the channels as BGR, which samdeploy does not feed: swap the first layer's", spec, images[..., ::-1].copy()


def _twins(model: nn.Module, spec: ModelSpec) -> Iterator[tuple[ModelSpec, nn.Module]]:
    """The same weights in architectures that hold the same tensors, with their own normalisation."""
    family = family_of(spec.arch)
    for arch in family.twins(spec.arch) if family.twins else ():
        record = family.preprocessing(arch, spec.options) or spec.preprocessing
        own = replace(spec.preprocessing, mean=record.mean, std=record.std)
        other = build_model(arch, len(spec.classes), spec.options).eval()
        with suppress(RuntimeError):  # other tensors after all
            other.load_state_dict(model.state_dict())
            yield replace(spec, arch=arch, preprocessing=own), other


def _right(model: nn.Module, spec: ModelSpec, images: UInt8Array, labels: Int64Array) -> BoolArray:
    """bool [n], which images get their label."""
    return right_ones(logits_of(model, spec, images), labels)


def right_ones(logits: torch.Tensor, labels: Int64Array) -> BoolArray:
    """Logits float32 [n, K] and labels int64 [n] -> bool [n], whose largest logit is the label's."""
    found: BoolArray = (logits.argmax(1) == torch.from_numpy(labels)).numpy()
    return found


@torch.inference_mode()
def logits_of(model: nn.Module, spec: ModelSpec, images: UInt8Array) -> torch.Tensor:
    """uint8 [n, H, W, 3], RGB -> logits float32 [n, K], batch by batch."""
    network = Exported(model, spec)
    parts = [network(torch.from_numpy(images[start : start + _BATCH])) for start in range(0, len(images), _BATCH)]
    return torch.cat(parts) if parts else torch.empty(0, len(spec.classes))
