"""The images of one split as tensors, and the batches that are cut from them."""

from __future__ import annotations

import numpy as np
import torch

from samdeploy.arrays import Int64Array, UInt8Array

# Part of the GPU's free memory that one split may take; the rest is the network's.
_SHARE = 0.5


class StoredImages:
    """All images and labels of one split.

    They live on the device as uint8 where they fit: a batch is then one gather, without any copy from the
    host.  Where they do not fit, each batch is gathered into page-locked memory and copied from there.

    On the CPU numpy gathers: 400,000 to 500,000 images of 32x32 per second on two busy cores, where PyTorch's
    index_select, which wakes its threads for every batch, made 140,000 to 410,000.
    """

    def __init__(self, images: UInt8Array, labels: Int64Array, device: torch.device) -> None:
        """
        Args:
            images: uint8 [N, H, W, 3] RGB, kept and not copied where they do not go to the GPU; may be mapped from a
                file.
            labels: int64 [N].
            device: where the batches are wanted.
        """
        self.device = device
        fits = device.type != "cuda" or images.nbytes <= _SHARE * torch.cuda.mem_get_info(device)[0]
        is_on_gpu = device.type == "cuda" and fits
        self._on_gpu = torch.from_numpy(images).to(device) if is_on_gpu else None
        self._on_host = images
        self._labels = torch.from_numpy(labels).to(device if is_on_gpu else "cpu")

    @property
    def labels(self) -> torch.Tensor:
        """int64 [N], on the CPU."""
        return self._labels.cpu()

    def __len__(self) -> int:
        return len(self._labels)

    def batches(self, batch_size: int, order: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Row numbers int64 [n] of each batch, for `take`.

        Every row of `order` is in exactly one batch.  A last batch of a single image joins the batch before it:
        batch norm over one image at 1x1 positions has no variance, and PyTorch refuses it.

        Args:
            batch_size: images per batch, at least 2.
            order: int64 [N], rows, usually a permutation; None keeps the order of the split.
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
        labels = self._labels.index_select(0, rows)
        if self._on_gpu is not None:
            return self._on_gpu.index_select(0, rows), labels
        if self.device.type != "cuda":
            return torch.from_numpy(np.take(self._on_host, rows.numpy(), axis=0)), labels
        images = torch.empty((len(rows), *self._on_host.shape[1:]), dtype=torch.uint8, pin_memory=True)
        np.take(self._on_host, rows.numpy(), axis=0, out=images.numpy(), mode="clip")  # "raise" would copy once more
        return images.to(self.device, non_blocking=True), labels.pin_memory().to(self.device, non_blocking=True)
