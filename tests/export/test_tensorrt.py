"""Engines are built for real, without a GPU, by TensorRT-RTX; a bad graph is an error and never a crash."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from samdeploy.backends.cuda import cuda_devices
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, ExportError, InputError
from samdeploy.export.tensorrt import BuiltEngine, build_engine

trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")

without_gpu = pytest.mark.skipif(cuda_devices()[0] > 0, reason="this machine has a CUDA device")


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


def _build(model: onnx.ModelProto | bytes, **arguments: object) -> BuiltEngine:
    graph = model if isinstance(model, bytes) else model.SerializeToString()
    return build_engine(graph, **{"engine": "trt-rtx", "target": "SM86", **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_a_network_is_built_for_a_gpu_that_is_not_here(digits_bundle: Bundle, precision: str) -> None:
    file = digits_bundle.find("graph", precision=precision)
    assert file is not None
    steps: list[str] = []
    built = _build(
        digits_bundle.read(file), precision=precision, target="SM86", progress=lambda count, phase: steps.append(phase)
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
        ({"batch": (1, 8, 4)}, "batch: (1, 8, 4) found, 1 <= smallest <= usual <= largest expected"),
        ({"batch": (0, 1, 1)}, "batch: (0, 1, 1) found"),
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
        (np.float32, "fp16", "fp16 was asked for, but the graph's layers are of another type: all 2 in FLOAT"),
        (np.float16, "fp32", "fp32 was asked for, but the graph's layers are of another type: stem (HALF), fc (HALF)"),
        (np.float16, "bf16", "bf16 was asked for"),
    ],
)
def test_another_precision_than_the_graphs_is_an_error(graph: type[np.generic], precision: str, text: str) -> None:
    with pytest.raises(ExportError) as caught:
        _build(_graph(graph), precision=precision)
    assert text in str(caught.value)


def test_layers_kept_in_fp32_are_counted() -> None:
    model = _graph()
    kernel = onnx.numpy_helper.to_array(model.graph.initializer[0]).astype(np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(kernel, "kernel"))
    model.graph.node[0].attribute[0].i = onnx.TensorProto.FLOAT
    model.graph.node[3].input[0] = "half"
    half = onnx.helper.make_node("Cast", ["features"], ["half"], "half", to=onnx.TensorProto.FLOAT16)
    model.graph.node.insert(3, half)
    assert "1 of 2 layers in fp16" in _build(model).note


def test_no_graph_at_all() -> None:
    for content in (b"", b"hello world"):
        with pytest.raises(ExportError, match="none \\(empty or not an ONNX file\\); image UINT8"):
            _build(content)


def test_truncated_bytes_are_an_error(digits_bundle: Bundle) -> None:
    file = digits_bundle.find("graph", precision="fp16")
    assert file is not None
    graph = digits_bundle.read(file)
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
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendUnavailable) as caught:
        _build(_graph(), engine="trt")
    assert "samdeploy[tensorrt]" in str(caught.value) and "samdeploy[tensorrt-rtx]" in str(caught.value)


def test_trt_falls_to_rtx_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    built = _build(_graph(), engine="trt")
    assert built.note.startswith(f"built by tensorrt-rtx {trt.__version__} for SM86")
