"""Engines are built for real, without a GPU, by TensorRT-RTX."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from samdeploy.backends.device import cuda
from samdeploy.backends.device.cuda import Device
from samdeploy.errors import BackendUnavailable, ExportError, InputError
from samdeploy.export.tensorrt import build as export_tensorrt
from samdeploy.export.tensorrt.build import BuiltEngine
from tests.export.tensorrt.graphs import rtx_engine, tiny_graph
from tests.marks import without_gpu

trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")

A4000 = Device("NVIDIA RTX A4000", "SM86", "13.0")


@pytest.fixture(scope="module")
def steps() -> list[str]:
    """Phases of the builds of `engine_of`."""
    return []


@pytest.fixture(scope="module")
def engine_of(resnet18: Callable[[str], bytes], steps: list[str]) -> Callable[[str], BuiltEngine]:
    """precision -> an engine of SAM-ResNet-18 for a GPU that is not here."""
    return functools.cache(
        lambda precision: rtx_engine(
            resnet18(precision), precision=precision, progress=lambda count, phase: steps.append(phase)
        )
    )


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_network_is_built_for_a_gpu_that_is_not_here(
    engine_of: Callable[[str], BuiltEngine], steps: list[str], precision: str
) -> None:
    built = engine_of(precision)
    weights = 4 if precision == "fp32" else 2
    assert len(built.plan) > weights * 11_000_000  # the folded SAM-ResNet-18 has 12 million parameters
    assert {key: built.built_for[key] for key in ("runtime", "version", "target", "batch")} == {
        "runtime": "tensorrt_rtx",
        "version": trt.__version__,
        "target": "SM86",
        "batch": "1,8,64",
    }
    assert f"29 of 29 layers in {precision}" in built.note
    assert len(set(steps)) > 1


def test_one_plan_for_several_gpus(resnet18: Callable[[str], bytes], engine_of: Callable[[str], BuiltEngine]) -> None:
    several = rtx_engine(resnet18("fp16"), target="SM86+SM89+SM120")
    assert several.built_for["target"] == "SM86+SM89+SM120"
    assert " for SM86, SM89, SM120, 29 of 29 layers" in several.note
    assert len(several.plan) < 1.05 * len(engine_of("fp16").plan)  # the weights are there once


@without_gpu
def test_without_a_gpu_a_named_target_is_the_default() -> None:
    built = rtx_engine(tiny_graph(), target=None)
    assert built.built_for == {
        "runtime": "tensorrt_rtx",
        "version": trt.__version__,
        "target": "SM86",
        "batch": "1,8,64",
        "gpu": "",
        "capability": "",
        "driver": "",
        "precision_proof": "graph",
    }
    assert built.note.endswith("for SM86, 2 of 2 layers in fp16, batch 1 to 64; built, not run here")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"engine": "rtx"}, "unknown engine 'rtx'; did you mean"),
        ({"precision": "half"}, "unknown engine precision 'half'"),
        ({"target": "SM87"}, "unknown target 'SM87'; did you mean 'SM89'"),
        ({"target": "NONE"}, "unknown target 'NONE'"),
        ({"target": "SM86+SM87"}, "unknown target 'SM87'"),
        ({"target": "SM86+SM86"}, "target 'SM86+SM86' found; each name once"),
        ({"target": "current+SM86"}, "each name once, or 'current' alone, expected"),
        ({"target": ""}, "unknown target ''"),
        ({"batch": (1, 8, 4)}, "batch: 1,8,4 found, 1 <= MIN <= OPT <= MAX expected"),
        ({"batch": (0, 1, 1)}, "batch: 0,1,1 found"),
        ({"optimization_level": 6}, "optimization level: 6 found, 0 to 5 expected"),
        ({"workspace": 0}, "workspace: 0 MiB found"),
    ],
)
def test_impossible_arguments(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InputError) as caught:
        rtx_engine(tiny_graph(), **arguments)
    assert text in str(caught.value)


def test_all_options_at_once() -> None:
    built = rtx_engine(tiny_graph(), target="SM120", batch=(2, 2, 3), optimization_level=0, workspace=64)
    assert (built.built_for["target"], built.built_for["batch"]) == ("SM120", "2,2,3")


@pytest.mark.parametrize(
    ("graph", "precision", "text"),
    [
        (
            np.float32,
            "fp16",
            "fp16 was asked for, but the graph's layers are of another type: stem (FLOAT), fc (FLOAT) (2 in FLOAT)",
        ),
        (np.float16, "fp32", "fp32 was asked for, but the graph's layers are of another type: stem (HALF), fc (HALF)"),
        (np.float16, "bf16", "bf16 was asked for"),
    ],
)
def test_another_precision_than_the_graphs_is_an_error(graph: type[np.generic], precision: str, text: str) -> None:
    with pytest.raises(ExportError) as caught:
        rtx_engine(tiny_graph(graph), precision=precision)
    assert text in str(caught.value)


def _with_layer_in_fp32(node: str) -> onnx.ModelProto:
    """The graph with one of its two layers in FP32 between casts."""
    model = tiny_graph()
    nodes = {n.name: n for n in model.graph.node}
    initializer = model.graph.initializer[0 if node == "stem" else 1]
    weights = onnx.numpy_helper.to_array(initializer).astype(np.float32)
    initializer.CopyFrom(onnx.numpy_helper.from_array(weights, initializer.name))
    cast = onnx.helper.make_node
    if node == "stem":
        nodes["cast"].attribute[0].i = onnx.TensorProto.FLOAT
        nodes["pool"].input[0] = "half"
        model.graph.node.insert(3, cast("Cast", ["features"], ["half"], "half", to=onnx.TensorProto.FLOAT16))
    else:
        nodes["fc"].input[0] = "single"
        model.graph.node.insert(5, cast("Cast", ["flat"], ["single"], "single", to=onnx.TensorProto.FLOAT))
    return model


def test_a_few_multiply_adds_may_stay_in_fp32_and_no_more() -> None:
    assert "1 of 2 layers in fp16" in rtx_engine(_with_layer_in_fp32("fc")).note  # 12 of 6,924 multiply-adds
    with pytest.raises(ExportError, match=r"stem \(FLOAT\).*0% of the multiply-adds are in fp16, 95% expected"):
        rtx_engine(_with_layer_in_fp32("stem"))


def test_neither_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendUnavailable) as caught:
        rtx_engine(tiny_graph(), engine="trt")
    assert "samdeploy[tensorrt]" in str(caught.value) and "samdeploy[tensorrt-rtx]" in str(caught.value)


def test_trt_falls_to_rtx_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    built = rtx_engine(tiny_graph(), engine="trt")
    assert built.note.startswith(f"built by tensorrt-rtx {trt.__version__} for SM86")


def test_a_precision_that_a_gpu_does_not_have_names_the_one_it_has(resnet18: Callable[[str], bytes]) -> None:
    with pytest.raises(ExportError, match=r"for SM75: .*FP32 GEMM is not supported.*; build --precision fp16 for that"):
        rtx_engine(resnet18("fp32"), precision="fp32", target="SM75")


@pytest.fixture
def second_device(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine with two GPUs whose caller works on the second; the device that each CUDA call sees."""
    current = [1]

    def call(name: str, *arguments: int) -> int | None:
        if name == "cudaGetDevice":
            return current[0]
        assert name == "cudaSetDevice"
        current[0] = arguments[0]
        return None

    monkeypatch.setattr(cuda, "call", call)
    return current


@without_gpu
def test_a_plan_that_cannot_be_opened_where_it_must_run_is_an_error(
    monkeypatch: pytest.MonkeyPatch, second_device: list[int]
) -> None:
    """As seen on an H100: the build succeeds, and the runtime refuses the plan."""

    def refuse(trt: Any, plan: bytes, name: str) -> None:
        assert len(plan) > 1000
        assert second_device == [0]  # what built_for describes
        raise BackendUnavailable(f"refuses {name}: UNSUPPORTED_CC")

    seen: set[int] = set()
    monkeypatch.setattr(export_tensorrt, "cuda_devices", lambda: (1, None))
    monkeypatch.setattr(export_tensorrt, "describe_device", lambda: A4000)
    monkeypatch.setattr(export_tensorrt, "open_plan", refuse)
    with pytest.raises(ExportError, match="refuses the engine that was just built: UNSUPPORTED_CC"):
        rtx_engine(tiny_graph(), target="SM86", progress=lambda count, phase: seen.update(second_device))
    assert seen == {0}
    assert second_device == [1]  # the caller's choice is left as it was
