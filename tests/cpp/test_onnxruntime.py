"""ONNX Runtime in C++ answers as in Python, bit for bit."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from samdeploy.backends import open_session
from samdeploy.backends.golden import GOLDEN_TOLERANCE
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.export.int8.qdq import calibrate, quantize
from tests.cpp.build import Build, run
from tests.cpp.conftest import Probe

UNAVAILABLE = 10

ort = pytest.importorskip("onnxruntime", reason="pip install 'samdeploy[onnxruntime]'")


@pytest.fixture(autouse=True)
def needs_headers(built: Build) -> None:
    if "onnxruntime" not in built.backends:
        pytest.skip(
            "built without ONNX Runtime: onnxruntime_c_api.h was not found; apt-get install libonnxruntime-dev "
            "(Debian 13), or name its folder in SAMDEPLOY_ONNXRUNTIME_INCLUDE"
        )


@pytest.fixture(scope="module")
def int8_bundle(digits_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A copy with an INT8 graph, which the golden images calibrated."""
    root = tmp_path_factory.mktemp("int8") / "bundle"
    shutil.copytree(digits_bundle.root, root)
    fp32 = digits_bundle.find("graph", precision="fp32")
    assert fp32 is not None
    graph = quantize(calibrate(digits_bundle.read(fp32), digits_bundle.golden()[0]), "cpu")
    (root / "model.int8.onnx").write_bytes(graph)
    values = json.loads((root / MANIFEST).read_bytes())
    entry = next(file for file in values["files"] if file["path"] == fp32.path)
    digest = hashlib.sha256(graph).hexdigest()
    values["files"].append(
        {**entry, "path": "model.int8.onnx", "precision": "int8", "sha256": digest, "bytes": len(graph)}
    )
    (root / MANIFEST).write_text(json.dumps(values))
    return open_bundle(root)


@pytest.mark.parametrize("batch", [1, 7, 1000])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_logits_are_equal_bit_for_bit(
    precision: str, batch: int, probe: Probe, int8_bundle: Bundle, tmp_path: Path
) -> None:
    golden, _ = int8_bundle.golden()
    noise = np.random.default_rng(2).integers(0, 256, golden.shape, dtype=np.uint8)
    pixels = np.concatenate([golden, noise])
    with open_session(int8_bundle, "onnxruntime", device="cpu", precision=precision) as session:
        expected = np.concatenate([session.run(pixels[at : at + batch]) for at in range(0, len(pixels), batch)])
    (tmp_path / "pixels.bin").write_bytes(pixels.tobytes())
    size = min(batch, len(pixels))
    probe("run", int8_bundle.root, f"onnxruntime:{precision}", 0, tmp_path / "pixels.bin", size, tmp_path / "out")
    found = np.frombuffer((tmp_path / "out").read_bytes(), np.float32).reshape(expected.shape)
    assert found.tobytes() == expected.tobytes()
    assert len(np.unique(found.argmax(axis=1))) > 2


def test_int8_is_not_fp32_under_another_name(probe: Probe, int8_bundle: Bundle, tmp_path: Path) -> None:
    """Its logits differ from FP32's; and an FP32 graph that calls itself INT8 is refused by what the profile counts."""
    golden, logits = int8_bundle.golden()
    (tmp_path / "pixels.bin").write_bytes(golden.tobytes())
    probe("run", int8_bundle.root, "onnxruntime:int8", 0, tmp_path / "pixels.bin", len(golden), tmp_path / "out")
    found = np.frombuffer((tmp_path / "out").read_bytes(), np.float32).reshape(logits.shape)
    assert 1e-3 < np.abs(found - logits).max() / np.ptp(logits) < GOLDEN_TOLERANCE["int8"]
    root = tmp_path / "bundle"
    shutil.copytree(int8_bundle.root, root)
    values = json.loads((root / MANIFEST).read_bytes())
    values["files"] = [file for file in values["files"] if file["precision"] != "int8"]
    next(file for file in values["files"] if file["path"] == "model.fp32.onnx")["precision"] = "int8"
    (root / MANIFEST).write_text(json.dumps(values))
    status, _, text = probe("open", root, "onnxruntime:int8").stdout.split("\n", 2)
    assert int(status) == UNAVAILABLE
    assert "computes only 0 % of the convolutions in int8, 50 % expected" in text


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
