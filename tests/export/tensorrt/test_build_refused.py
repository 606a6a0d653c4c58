"""Graphs that no engine can be built of: each is an error that says why, never a crash."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from samdeploy.errors import ExportError
from tests.export.tensorrt.graphs import rtx_engine, tiny_graph

pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")


def test_no_graph_at_all() -> None:
    for content in (b"", b"hello world"):
        with pytest.raises(ExportError, match="none \\(empty or not an ONNX file\\); image UINT8"):
            rtx_engine(content)


def test_truncated_bytes_are_an_error(resnet18: Callable[[str], bytes]) -> None:
    graph = resnet18("fp16")
    for length in (100, 5000, len(graph) // 2, len(graph) - 1000, len(graph) - 1):
        with pytest.raises(ExportError):
            rtx_engine(graph[:length])


def test_a_broken_node_is_named() -> None:
    unknown = tiny_graph()
    unknown.graph.node[2].op_type = "Convolute"
    with pytest.raises(ExportError, match=r"cannot read the ONNX graph: node 'stem' \(Convolute\): .*Plugin not found"):
        rtx_engine(unknown)
    misshapen = tiny_graph()
    wide = onnx.numpy_helper.from_array(np.zeros((4, 7, 3, 3), np.float16), "kernel")
    misshapen.graph.initializer[0].CopyFrom(wide)
    with pytest.raises(ExportError, match=r"node 'stem' \(Conv\): .*Kernel weight dimension"):
        rtx_engine(misshapen)
    mixed = tiny_graph()
    single = onnx.numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "kernel")
    mixed.graph.initializer[0].CopyFrom(single)
    with pytest.raises(
        ExportError, match=r"node 'stem' \(Conv\): .*`input` type is Half but `kernel` is of type Float"
    ):
        rtx_engine(mixed)


def test_cut_weights_are_an_error() -> None:
    model = tiny_graph()
    model.graph.initializer[1].raw_data = model.graph.initializer[1].raw_data[:4]
    with pytest.raises(ExportError, match="Failed to import initializer: head"):
        rtx_engine(model)


def test_another_interface_is_an_error() -> None:
    with pytest.raises(ExportError, match=r"pixels_in UINT8 \[-1, 8, 8, 3\]; logits FLOAT \[-1, 3\]; image UINT8"):
        rtx_engine(tiny_graph(image="pixels_in"))
    with pytest.raises(ExportError, match=r"image UINT8 \[4, 8, 8, 3\].*image UINT8 \[-1, H, W, 3\]"):
        rtx_engine(tiny_graph(batch=4))
