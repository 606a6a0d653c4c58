"""ONNX Runtime in C++ answers as in Python, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from samdeploy.backends import open_session
from samdeploy.bundle import Bundle
from tests.cpp.build import Build, missing
from tests.cpp.conftest import Probe
from tests.cpp.test_misuse import run

UNAVAILABLE = 10

ort = pytest.importorskip("onnxruntime", reason="pip install 'samdeploy[onnxruntime]'")


@pytest.fixture(autouse=True)
def needs_headers(built: Build) -> None:
    if "onnxruntime" not in built.backends:
        pytest.skip(
            "built without ONNX Runtime: onnxruntime_c_api.h was not found; apt-get install libonnxruntime-dev "
            f"(Debian 13), or name its folder in SAMDEPLOY_ONNXRUNTIME_INCLUDE {missing() or ''}"
        )


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_logits_are_equal_bit_for_bit(batch: int, probe: Probe, digits_bundle: Bundle, tmp_path: Path) -> None:
    golden, _ = digits_bundle.golden()
    noise = np.random.default_rng(2).integers(0, 256, golden.shape, dtype=np.uint8)
    pixels = np.concatenate([golden, noise])
    with open_session(digits_bundle, "onnxruntime") as session:
        expected = np.concatenate([session.run(pixels[at : at + batch]) for at in range(0, len(pixels), batch)])
    (tmp_path / "pixels.bin").write_bytes(pixels.tobytes())
    size = min(batch, len(pixels))
    probe("run", digits_bundle.root, "onnxruntime:fp32", 0, tmp_path / "pixels.bin", size, tmp_path / "out")
    found = np.frombuffer((tmp_path / "out").read_bytes(), np.float32).reshape(expected.shape)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_what_it_cannot_compute_is_refused(precision: str, probe: Probe, digits_bundle: Bundle) -> None:
    status, _, text = probe("open", digits_bundle.root, f"onnxruntime:{precision}").stdout.split("\n", 2)
    assert int(status) == UNAVAILABLE
    assert f"has no {precision} kernels on the CPU" in text


def test_a_graph_that_is_none(probe: Probe, copy_of_bundle: Path, seal: Callable[[Path], Bundle]) -> None:
    (copy_of_bundle / "model.fp32.onnx").write_bytes(b"no graph at all")
    seal(copy_of_bundle)
    status, _, text = probe("open", copy_of_bundle, "onnxruntime:fp32").stdout.split("\n", 2)
    assert int(status) == UNAVAILABLE
    assert "ONNX Runtime cannot open the graph" in text


def test_the_worker_runs_it(built: Build, digits_bundle: Bundle, digit_files: Sequence[Path]) -> None:
    done = run(built.worker, digits_bundle.root, digit_files[0].parent, "--backend", "onnxruntime")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(digit_files)
