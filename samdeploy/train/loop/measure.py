"""Loss and accuracy over a whole split: every image counts once, the last partial batch included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from samdeploy.arrays import Int64Array
from samdeploy.metrics import balanced_accuracy, macro_f1
from samdeploy.progress import progress_bar
from samdeploy.train.distributed import Ranks
from samdeploy.train.loop.batches import StoredImages


@dataclass(frozen=True, slots=True)
class Measured:
    """
    Attributes:
        loss: cross entropy in nats, mean over the images.
        correct: images whose largest logit is at their label.
        images: how many there were.
        last_correct, last_images: of the last batch alone, which is all that the original work's script reported.
        confusion: images by class (row) and answer (column), int64 [K, K]; None where they were not kept.
    """

    loss: float
    correct: int
    images: int
    last_correct: int = 0
    last_images: int = 0
    confusion: Int64Array | None = None

    @property
    def top1(self) -> float:
        """In percent."""
        return 100 * self.correct / self.images

    def score(self, monitor: str) -> float:
        """What `training.monitor` names; higher is better."""
        if monitor == "loss":
            return -self.loss
        if monitor == "top1" or self.confusion is None:
            return self.top1
        return balanced_accuracy(self.confusion) if monitor == "balanced_accuracy" else macro_f1(self.confusion)


@dataclass(frozen=True, slots=True)
class Split:
    """Images that a network is measured on.

    Attributes:
        name: for the progress bar.
        images: all of them.
        normalize: uint8 [N, H, W, 3] -> float32 [N, 3, H, W], normalised.
        classes: how many there are.
        batch_size: images that go through the network at once.
    """

    name: str
    stored: StoredImages
    normalize: nn.Module
    classes: int
    batch_size: int


def measure(model: nn.Module, split: Split, ranks: Ranks, check: Callable[[], None]) -> Measured:
    """Run `model` over all images, in eval mode (it is left there) and in float32, as it will be exported.

    Args:
        model: float32 [N, 3, H, W], normalised -> logits [N, K].
        ranks: take a share of every batch each; no image is counted twice, however they divide.
        check: called after each batch; may raise.
    """
    model.eval()
    stored, classes = split.stored, split.classes
    loss = torch.zeros((), dtype=torch.float64, device=stored.device)
    correct = torch.zeros((), dtype=torch.int64, device=stored.device)
    hits = torch.zeros_like(correct)
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=stored.device)
    rows = torch.empty(0)
    with progress_bar(split.name, len(stored)) as advance, torch.inference_mode():
        for rows in stored.batches(split.batch_size):
            mine = ranks.share(rows)
            hits = torch.zeros_like(correct)
            if len(mine):
                images, labels = stored.take(mine)
                logits = model(split.normalize(images))
                loss += F.cross_entropy(logits, labels, reduction="sum")
                answers = logits.argmax(1)
                hits = (answers == labels).sum()
                correct += hits
                confusion.index_add_(0, labels * classes + answers, torch.ones_like(labels))
            advance(len(rows), "")
            check()
    sums = ranks.sum(torch.cat([torch.stack([loss, correct.double(), hits.double()]), confusion.double()])).cpu()
    total, hit, last = sums[:3].tolist()
    table = sums[3:].to(torch.int64).view(classes, classes).numpy()
    return Measured(total / len(stored), int(hit), len(stored), int(last), len(rows), table)
