"""What an imported network answers on some of the images that were set aside."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import nn

from samdeploy.bundle.spec import ModelSpec
from samdeploy.data.dataset import Dataset
from samdeploy.data.duplicates.image_hashes import ImageHashes, hash_images
from samdeploy.data.images import load_images
from samdeploy.importing.doubts import IMAGES, doubt, logits_of, right_ones


@dataclass(frozen=True, slots=True)
class Aside:
    """What was measured on some of the images that were set aside: all of those stay `val` of the run.

    Attributes:
        top1: in percent.
        loss: mean cross entropy, in nats.
        hashes: of the images that were measured.
    """

    top1: float
    loss: float
    hashes: ImageHashes


@torch.inference_mode()
def measure(model: nn.Module, spec: ModelSpec, dataset: Dataset, *, doubtful: bool) -> Aside:
    """The network's answers on at most `IMAGES` of those set aside, printed with what they make doubtful.

    Args:
        doubtful: nobody published the weights with their preparation.
    """
    aside = dataset.relabelled(spec.classes).val
    samples = aside.spread(IMAGES)
    images, labels = load_images(samples, spec.preprocessing, description="images set aside")
    logits = logits_of(model, spec, images)
    right = right_ones(logits, labels)
    correct = int(right.sum())
    top1, loss = 100 * correct / len(labels), float(nn.functional.cross_entropy(logits, torch.from_numpy(labels)))
    seen = "" if dataset.train is dataset.val else "; they may have been trained on"
    of = f" of {len(aside):,}" if len(aside) > len(labels) else ""
    print(f"top-1 {top1:.1f} % of {len(labels)}{of} images set aside ({correct} right){seen}", file=sys.stderr)
    if found := doubt(model, spec, images, labels, right, look=doubtful):
        print(f"warning: {found}", file=sys.stderr)
    return Aside(top1, loss, hash_images([images], samples.names, labels))
