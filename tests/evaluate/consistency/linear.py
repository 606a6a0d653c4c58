"""A session that needs no runtime, and images for it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


class Linear:
    """A session that needs no runtime: one matrix; `spoil(batch, logits)` may change its answers."""

    backend, device, precision = "onnxruntime", "cpu", "fp32"

    def __init__(self, spoil: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda batch, logits: logits) -> None:
        self._spoil = spoil
        self._weights = np.random.default_rng(0).normal(size=(8 * 8 * 3, 10)).astype(np.float32)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self._spoil(batch, batch.reshape(len(batch), -1).astype(np.float32) @ self._weights)

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """uint8 [40, 8, 8, 3]"""
    return np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
