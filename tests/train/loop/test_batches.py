"""Batches: every image once, never one alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samdeploy.train.loop.batches import StoredImages


def examples(count: int) -> StoredImages:
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), dtype=np.uint8)
    return StoredImages(images, np.arange(count, dtype=np.int64), torch.device("cpu"))


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (8, 4, [4, 4]),
        (10, 4, [4, 4, 2]),
        (9, 4, [4, 5]),  # a last one alone joins the batch before it
        (5, 4, [5]),
        (3, 4, [3]),
        (1, 4, [1]),  # a validation set of one: nothing to join
        (3, 2, [3]),
    ],
)
def test_sizes(count: int, batch_size: int, sizes: list[int]) -> None:
    batches = examples(count).batches(batch_size)
    assert [len(rows) for rows in batches] == sizes
    assert torch.cat(batches).tolist() == list(range(count))


def test_order_and_take() -> None:
    split = examples(5)
    first, second = split.batches(3, torch.tensor([4, 0, 3, 1, 2]))
    images, labels = split.take(first)
    assert labels.tolist() == [4, 0, 3]
    assert images.dtype == torch.uint8
    assert images.shape == (3, 2, 2, 3)
    assert images[:, 1, 1, 2].tolist() == [4, 0, 3]
    assert second.tolist() == [1, 2]
