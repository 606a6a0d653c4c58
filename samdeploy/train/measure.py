"""Loss and accuracy over a whole split: every picture counts once, the last partial batch included."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from samdeploy.progress import progress_bar
from samdeploy.train.pictures import Pictures


@dataclass(frozen=True, slots=True)
class Measured:
    """
    Attributes:
        loss: cross entropy in nats, mean over the images.
        correct: images whose largest logit is at their label.
        images: how many there were.
    """

    loss: float
    correct: int
    images: int

    @property
    def top1(self) -> float:
        """In percent."""
        return 100 * self.correct / self.images


@torch.inference_mode()
def measure(model: nn.Module, normalize: nn.Module, pictures: Pictures, batch_size: int, description: str) -> Measured:
    """Run `model` over all pictures, in eval mode (it is left there) and in float32, as it will be exported.

    Args:
        model: float32 [N, 3, H, W], normalised -> logits [N, K].
        normalize: uint8 [N, H, W, 3] -> float32 [N, 3, H, W], normalised.
        description: for the progress bar.
    """
    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=pictures.device)
    correct = torch.zeros((), dtype=torch.int64, device=pictures.device)
    with progress_bar(description, len(pictures)) as advance:
        for rows in pictures.batches(batch_size):
            images, labels = pictures.take(rows)
            logits = model(normalize(images))
            loss += F.cross_entropy(logits, labels, reduction="sum")
            correct += (logits.argmax(1) == labels).sum()
            advance(len(rows), "")
    return Measured(loss.item() / len(pictures), int(correct), len(pictures))
