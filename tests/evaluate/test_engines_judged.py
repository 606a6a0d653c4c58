"""Which engines are judged, and what becomes of those that cannot run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from samdeploy.backends import open_session
from samdeploy.bundle import Bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.errors import BackendUnavailable
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from samdeploy.evaluate.evaluate import engines_of
from tests.marks import without_gpu

pytestmark = pytest.mark.usefixtures("short_latency")

Seal = Callable[[Path], Bundle]


def test_nothing_that_ran_is_not_passed(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(bundle: Bundle, backend: str, **options: object) -> object:
        if backend == "pytorch":
            return open_session(bundle, backend, device="cpu")
        raise BackendUnavailable(f"{backend} is not installed")

    monkeypatch.setattr("samdeploy.evaluate.evaluate_engine.open_session", refuse)
    report = evaluate_bundle(digits_bundle, EvalOptions())
    assert {row.ran for row in report.results} == {False}
    assert not report.passed


@without_gpu
def test_int8_in_the_bundle_is_not_passed_over(copy_of_bundle: Path, seal: Seal) -> None:
    """An INT8 graph that computes in FP32 would pass any comparison of answers; no option asks for it here."""
    manifest = json.loads((copy_of_bundle / MANIFEST).read_text())
    graph = next(file for file in manifest["files"] if file["role"] == "graph" and file["precision"] == "fp32")
    manifest["files"].append({**graph, "path": "model.int8.onnx", "precision": "int8"})
    shutil.copy(copy_of_bundle / graph["path"], copy_of_bundle / "model.int8.onnx")
    (copy_of_bundle / MANIFEST).write_text(json.dumps(manifest))
    report = evaluate_bundle(seal(copy_of_bundle), EvalOptions(device="cpu"))
    rows = {(row.backend, row.precision): row for row in report.results}
    assert {("onnxruntime", "int8"), ("openvino", "int8")} < set(rows)
    # ONNX Runtime shows the types of its kernels alone, for which the CPU may be to blame; OpenVINO those of the graph.
    assert not rows["onnxruntime", "int8"].passed
    assert rows["onnxruntime", "int8"].reason.startswith("ONNX Runtime computes too few convolutions in int8: ")
    graph = rows["openvino", "int8"]
    assert (graph.ran, graph.passed, graph.comparison) == (True, False, None)
    assert graph.reason == "the int8 graph computes nothing in int8; make it again: samdeploy export"
    assert rows["onnxruntime", "fp32"].passed and rows["openvino", "fp32"].passed
    assert not report.passed


def test_a_plan_that_was_never_built_is_spoken_of_only_by_name(digits_bundle: Bundle) -> None:
    def asked(backend: str) -> list[tuple[str, str]]:
        return list(engines_of(digits_bundle, EvalOptions(backend=backend, precision="int8")))

    assert asked("all") == [("onnxruntime", "int8"), ("openvino", "int8")]
    assert asked("tensorrt") == [("tensorrt", "int8")]


def test_each_engine_that_was_named_must_run(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two TensorRT engines, of which one runs here and is right: asked for by name, that is not enough."""

    def one_of_two(bundle: Bundle, backend: str, *, precision: str | None = None, **options: object) -> object:
        if precision == "fp16":
            raise BackendUnavailable("built for another GPU")
        return open_session(bundle, "pytorch", device="cpu")

    monkeypatch.setattr("samdeploy.evaluate.evaluate_engine.open_session", one_of_two)
    monkeypatch.setattr(
        "samdeploy.evaluate.evaluate.engines_of", lambda *_: iter([("tensorrt", "fp32"), ("tensorrt", "fp16")])
    )
    report = evaluate_bundle(digits_bundle, EvalOptions(backend="tensorrt"))
    assert [row.passed for row in report.results] == [True, False]
    assert not report.passed
