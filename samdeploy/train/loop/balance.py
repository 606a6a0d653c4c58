"""Uneven classes: what the loss weighs each, and how much of an epoch each is."""

from __future__ import annotations

import torch

from samdeploy.arrays import Int64Array
from samdeploy.train.recipe.recipe import DataSection

# Of Cui et al. 2019 (arXiv:1901.05555): beyond some 1,000 images of a class more of them say little that is new.
BETA = 0.999


def class_weights(data: DataSection, counts: Int64Array) -> torch.Tensor | None:
    """What the loss of each class's images is multiplied by.

    Args:
        counts: training images of each class, int64 [K], all above 0.

    Returns:
        float32 [K], whose mean over the training images is 1; None: 1 for all.
    """
    if data.class_weights == "none":
        return None
    images = torch.from_numpy(counts).double()
    wanted = 1 / images if data.class_weights == "balanced" else (1 - BETA) / (1 - BETA**images)
    return (wanted * images.sum() / (wanted * images).sum()).float()


def class_shares(data: DataSection, counts: Int64Array) -> torch.Tensor | None:
    """The share of an epoch that each class is.

    Args:
        counts: training images of each class, int64 [K].

    Returns:
        float64 [K] with a sum of 1; None: as the images are.
    """
    if data.sampling == "natural":
        return None
    images = torch.from_numpy(counts).double()
    wanted = (images > 0).double() if data.sampling == "balanced" else images.sqrt()
    return wanted / wanted.sum()
