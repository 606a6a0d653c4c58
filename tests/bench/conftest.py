"""A bundle of no files, to choose engines from; and sessions that keep time with a sleep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import Bundle
from samdeploy.bundle.manifest import BundleFile, DataRecord
from samdeploy.bundle.spec import Preprocessing, model_spec

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)


class Sleeper:
    """A session that takes `seconds` for a batch, and dies at its `dies_at`-th run."""

    backend, device, precision = "onnxruntime", "cpu", "fp32"

    def __init__(self, seconds: float, dies_at: int | None = None) -> None:
        self.seconds, self.dies_at = seconds, dies_at
        self.fed: list[np.ndarray] = []
        self.threads: set[int] = set()

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.fed.append(batch)
        self.threads.add(threading.get_ident())
        if self.dies_at is not None and len(self.fed) >= self.dies_at:
            raise RuntimeError("the GPU fell off the bus\nwith a second line")
        time.sleep(self.seconds)
        return np.zeros((len(batch), 3), np.float32)

    def close(self) -> None: ...


@pytest.fixture
def images() -> np.ndarray:
    """uint8 [10, 8, 8, 3]"""
    return IMAGES


@pytest.fixture
def sleeper() -> Callable[..., Sleeper]:
    """`sleeper(seconds, dies_at=None)`"""
    return Sleeper


@pytest.fixture
def bundle_of(tmp_path: Path) -> Callable[..., Bundle]:
    """`bundle_of((backend, precision, batch), ...)`: engines where a batch is given, graphs otherwise."""

    def make(*files: tuple[str | None, str, str]) -> Bundle:
        spec = model_spec("sam-resnet18", {"gate": "identity"}, ("a", "b", "c"), Preprocessing(8, 8))
        made = tuple(
            BundleFile("engine" if batch else "graph", f"{number}", "0" * 64, 1, backend, precision,
                       {"batch": batch} if batch else {})
            for number, (backend, precision, batch) in enumerate(files)
        )  # fmt: skip
        return Bundle(tmp_path, spec, made, DataRecord("digits", {}, 0.1, 0, {}, {}), {})

    return make
