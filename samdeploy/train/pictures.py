"""The pictures of one split as tensors, and the batches that are cut from them."""

from __future__ import annotations

import torch

from samdeploy.data.dataset import Int64Array
from samdeploy.preprocess import UInt8Array

# Part of the GPU's free memory that one split may take; the rest is the network's.
_SHARE = 0.5


class Pictures:
    """All pictures and labels of one split.

    They live on the device as uint8 where they fit: a batch is then one gather, without any copy from the
    host.  Where they do not fit, each batch is copied from page-locked memory.
    """

    def __init__(self, images: UInt8Array, labels: Int64Array, device: torch.device) -> None:
        """
        Args:
            images: uint8 [N, H, W, 3] RGB; on the CPU the tensor shares this memory.
            labels: int64 [N].
            device: where the batches are wanted.
        """
        self.device = device
        fits = device.type != "cuda" or images.nbytes <= _SHARE * torch.cuda.mem_get_info(device)[0]
        home = device if fits else torch.device("cpu")
        self._images = torch.from_numpy(images).to(home)
        self._labels = torch.from_numpy(labels).to(home)

    def __len__(self) -> int:
        return len(self._labels)

    def batches(self, batch_size: int, order: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Row numbers int64 [n] of each batch, for `take`.

        Every picture is in exactly one batch.  A last batch of a single picture joins the batch before it:
        batch norm over one picture at 1x1 positions has no variance, and PyTorch refuses it.

        Args:
            batch_size: pictures per batch, at least 2.
            order: int64 [N], a permutation; None keeps the order of the split.
        """
        count = len(self)
        rows = torch.arange(count) if order is None else order
        sizes = [batch_size] * (count // batch_size)
        if count % batch_size == 1 and sizes:
            sizes[-1] += 1
        elif count % batch_size:
            sizes.append(count % batch_size)
        return torch.split(rows.to(self._labels.device), sizes)

    def take(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """images uint8 [n, H, W, 3] and labels int64 [n], on the device."""
        images, labels = self._images.index_select(0, rows), self._labels.index_select(0, rows)
        if images.device != self.device:
            images = images.pin_memory().to(self.device, non_blocking=True)
            labels = labels.pin_memory().to(self.device, non_blocking=True)
        return images, labels
