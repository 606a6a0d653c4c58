"""Engines are built for real, without a GPU, by TensorRT-RTX; a bad graph is an error and never a crash."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from samdeploy.backends.device import cuda
from samdeploy.backends.device.cuda import Device, cuda_devices
from samdeploy.errors import BackendUnavailable, ExportError, InputError
from samdeploy.export.fp16.convert import fp16_graph
from samdeploy.export.tensorrt import build as export_tensorrt
from samdeploy.export.tensorrt.build import BuiltEngine, build_engine
from samdeploy.export.tensorrt.build_target import build_targets
from samdeploy.graphs.edit import serialize
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model
from tests.marks import without_gpu

trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")

H100 = Device("NVIDIA H100 80GB HBM3", "SM90", "13.0")
A4000 = Device("NVIDIA RTX A4000", "SM86", "13.0")


def _graph(kind: type[np.generic] = np.float16, *, image: str = "image", batch: int | str = "N") -> onnx.ModelProto:
    """Cast, Conv, GlobalAveragePool, Gemm: 8x8 pixels to 3 logits, all layers in `kind`."""
    random = np.random.default_rng(0)
    kernel = onnx.numpy_helper.from_array(random.standard_normal((4, 3, 3, 3)).astype(kind), "kernel")
    head = onnx.numpy_helper.from_array(random.standard_normal((3, 4)).astype(kind), "head")
    node = onnx.helper.make_node
    nodes = [
        node("Cast", [image], ["pixels"], "cast", to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))),
        node("Transpose", ["pixels"], ["nchw"], "nchw", perm=[0, 3, 1, 2]),
        node("Conv", ["nchw", "kernel"], ["features"], "stem", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["features"], ["mean"], "pool"),
        node("Flatten", ["mean"], ["flat"], "flatten"),
        node("Gemm", ["flat", "head"], ["scores"], "fc", transB=1),
        node("Cast", ["scores"], ["logits"], "out", to=onnx.TensorProto.FLOAT),
    ]
    inputs = [onnx.helper.make_tensor_value_info(image, onnx.TensorProto.UINT8, [batch, 8, 8, 3])]
    outputs = [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [batch, 3])]
    graph = onnx.helper.make_graph(nodes, "tiny", inputs, outputs, [kernel, head])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def resnet18(network, spec_of) -> Callable[[str], bytes]:  # type: ignore[no-untyped-def]
    """precision -> the graph of a folded SAM-ResNet-18."""
    fp32 = graph_from_model(fold(network("sam-resnet18", "identity")), spec_of("sam-resnet18", "identity"))
    return functools.cache(lambda precision: serialize(fp16_graph(fp32) if precision == "fp16" else fp32))


def _build(model: onnx.ModelProto | bytes, **arguments: object) -> BuiltEngine:
    graph = model if isinstance(model, bytes) else model.SerializeToString()
    return build_engine(graph, **{"engine": "trt-rtx", "target": "SM86", **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_network_is_built_for_a_gpu_that_is_not_here(resnet18, precision: str) -> None:  # type: ignore[no-untyped-def]
    steps: list[str] = []
    built = _build(
        resnet18(precision), precision=precision, target="SM86", progress=lambda count, phase: steps.append(phase)
    )
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


@without_gpu
def test_without_a_gpu_a_named_target_is_the_default() -> None:
    built = _build(_graph(), target=None)
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


@without_gpu
def test_the_gpu_here_cannot_be_the_target_without_one() -> None:
    with pytest.raises(BackendUnavailable, match=r"target 'current' needs a GPU here: .*name one: SM75, SM80, SM86"):
        _build(_graph(), target="current")


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
        ({"batch": (1, 8, 4)}, "batch: 1,8,4 found, 1 <= smallest <= usual <= largest expected"),
        ({"batch": (0, 1, 1)}, "batch: 0,1,1 found"),
        ({"optimization_level": 6}, "optimization level: 6 found, 0 to 5 expected"),
        ({"workspace": 0}, "workspace: 0 MiB found"),
    ],
)
def test_impossible_arguments(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(InputError) as caught:
        _build(_graph(), **arguments)
    assert text in str(caught.value)


def test_all_options_at_once() -> None:
    built = _build(_graph(), target="SM120", batch=(2, 2, 3), optimization_level=0, workspace=64)
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
        _build(_graph(graph), precision=precision)
    assert text in str(caught.value)


def _with_layer_in_fp32(node: str) -> onnx.ModelProto:
    """The graph with one of its two layers in FP32 between casts."""
    model = _graph()
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
    assert "1 of 2 layers in fp16" in _build(_with_layer_in_fp32("fc")).note  # 12 of 6,924 multiply-adds
    with pytest.raises(ExportError, match=r"stem \(FLOAT\).*0% of the multiply-adds are in fp16, 95% expected"):
        _build(_with_layer_in_fp32("stem"))


def test_no_graph_at_all() -> None:
    for content in (b"", b"hello world"):
        with pytest.raises(ExportError, match="none \\(empty or not an ONNX file\\); image UINT8"):
            _build(content)


def test_truncated_bytes_are_an_error(resnet18) -> None:  # type: ignore[no-untyped-def]
    graph = resnet18("fp16")
    for length in (100, 5000, len(graph) // 2, len(graph) - 1000, len(graph) - 1):
        with pytest.raises(ExportError):
            _build(graph[:length])


def test_a_broken_node_is_named() -> None:
    unknown = _graph()
    unknown.graph.node[2].op_type = "Convolute"
    with pytest.raises(ExportError, match=r"cannot read the ONNX graph: node 'stem' \(Convolute\): .*Plugin not found"):
        _build(unknown)
    misshapen = _graph()
    wide = onnx.numpy_helper.from_array(np.zeros((4, 7, 3, 3), np.float16), "kernel")
    misshapen.graph.initializer[0].CopyFrom(wide)
    with pytest.raises(ExportError, match=r"node 'stem' \(Conv\): .*Kernel weight dimension"):
        _build(misshapen)
    mixed = _graph()
    single = onnx.numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "kernel")
    mixed.graph.initializer[0].CopyFrom(single)
    with pytest.raises(
        ExportError, match=r"node 'stem' \(Conv\): .*`input` type is Half but `kernel` is of type Float"
    ):
        _build(mixed)


def test_cut_weights_are_an_error() -> None:
    model = _graph()
    model.graph.initializer[1].raw_data = model.graph.initializer[1].raw_data[:4]
    with pytest.raises(ExportError, match="Failed to import initializer: head"):
        _build(model)


def test_another_interface_is_an_error() -> None:
    with pytest.raises(ExportError, match=r"pixels_in UINT8 \[-1, 8, 8, 3\]; logits FLOAT \[-1, 3\]; image UINT8"):
        _build(_graph(image="pixels_in"))
    with pytest.raises(ExportError, match=r"image UINT8 \[4, 8, 8, 3\].*image UINT8 \[-1, H, W, 3\]"):
        _build(_graph(batch=4))


def test_neither_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendUnavailable) as caught:
        _build(_graph(), engine="trt")
    assert "samdeploy[tensorrt]" in str(caught.value) and "samdeploy[tensorrt-rtx]" in str(caught.value)


def test_trt_falls_to_rtx_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    built = _build(_graph(), engine="trt")
    assert built.note.startswith(f"built by tensorrt-rtx {trt.__version__} for SM86")


def test_a_precision_that_a_gpu_does_not_have_names_the_one_it_has(resnet18) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ExportError, match=r"for SM75: .*FP32 GEMM is not supported.*; build --precision fp16 for that"):
        _build(resnet18("fp32"), precision="fp32", target="SM75")


def test_one_plan_for_several_gpus(resnet18) -> None:  # type: ignore[no-untyped-def]
    one = _build(resnet18("fp16"), target="SM86")
    for target in ("SM86+SM89+SM120", "SM86,SM89,SM120", ("SM86", "SM89", "SM120")):
        several = _build(resnet18("fp16"), target=target)
        assert several.built_for["target"] == "SM86+SM89+SM120"
        assert " for SM86, SM89, SM120, 29 of 29 layers" in several.note
    assert len(several.plan) < 1.05 * len(one.plan)  # the weights are there once


@pytest.mark.parametrize("target", [None, "current"])
def test_a_gpu_that_rtx_does_not_run_on_is_refused_before_the_build(
    monkeypatch: pytest.MonkeyPatch, target: str | None
) -> None:
    monkeypatch.setattr(export_tensorrt, "cuda_devices", lambda: (1, None))
    monkeypatch.setattr(export_tensorrt, "describe_device", lambda: H100)
    with pytest.raises(BackendUnavailable) as caught:
        _build(b"not even read", target=target)
    assert str(caught.value) == (
        f"TensorRT-RTX {trt.__version__} does not run on this GPU: NVIDIA H100 80GB HBM3 is SM90, one of SM75, SM80, "
        "SM86, SM89, SM120, SM121 expected; pip install 'samdeploy[tensorrt]', or name a --target to build for another "
        "machine"
    )
    assert build_targets(trt, "SM86", H100) == ("SM86",)
    assert build_targets(trt, None, A4000) == ("current",)


def test_tensorrt_itself_builds_for_the_gpu_here_alone() -> None:
    proper: Any = SimpleNamespace(__name__="tensorrt", __version__="11.4.0")
    assert build_targets(proper, None, H100) == build_targets(proper, "current", H100) == ("current",)
    with pytest.raises(InputError, match=r"target 'SM86' found, but TensorRT builds for the GPU here alone \(SM90\)"):
        build_targets(proper, "SM86", H100)
    if not cuda_devices()[0]:
        with pytest.raises(BackendUnavailable, match=r"there is none here: .*use --engine trt-rtx"):
            build_targets(proper, None, None)


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
        _build(_graph(), target="SM86", progress=lambda count, phase: seen.update(second_device))
    assert seen == {0}
    assert second_device == [1]  # the caller's choice is left as it was


class Unwanted(Exception):
    """What a caller's progress may raise."""


def test_an_error_in_progress_ends_the_build() -> None:
    calls: list[int] = []

    def progress(count: int, phase: str) -> None:
        calls.append(count)
        if sum(calls) == 3:
            raise Unwanted(phase)

    with pytest.raises(Unwanted):
        _build(_graph(), progress=progress)
    assert sum(calls) == 3


INTERRUPTED = """
import os, signal, sys, threading, time
from pathlib import Path
from samdeploy.export.tensorrt.build import build_engine

large, small = (Path(name).read_bytes() for name in sys.argv[1:])
steps, first = [], threading.Lock()

def progress(count, phase):
    if first.acquire(blocking=False):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)  # for the main thread to see it
    steps.append(count)

try:
    build_engine(large, engine="trt-rtx", target="SM86", progress=progress)
except KeyboardInterrupt:
    assert len(steps) < 20, steps  # of about 150
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tensorrt-build")]
    assert build_engine(small, engine="trt-rtx", target="SM86").plan  # the package can be used again
    print("ended and usable")
"""


def test_ctrl_c_ends_the_build_and_leaves_nothing(resnet18, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """In a process of its own: where the signal comes late, it must not end the run of all tests."""
    large, small = tmp_path / "large.onnx", tmp_path / "small.onnx"
    large.write_bytes(resnet18("fp16"))
    small.write_bytes(_graph().SerializeToString())
    command = [sys.executable, "-c", INTERRUPTED, str(large), str(small)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.stdout == "ended and usable\n", ended.stderr
