"""A graph may name further files that hold its weights: nobody has verified those, so no runtime may read them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from samdeploy.backends import open_session
from samdeploy.bundle import open_bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.errors import BackendUnavailable
from tests.cpp.build import Build
from tests.cpp.conftest import Probe
from tests.hostile.conftest import npy
from tests.hostile.statuses import UNAVAILABLE

onnx = pytest.importorskip("onnx", reason="pip install 'samdeploy[export]'")

WEIGHTS = np.arange(3 * 2, dtype=np.float32).reshape(3, 2)


def graph(location: str | None) -> bytes:
    """The mean colour times `WEIGHTS`, which lie in the graph, or in a file."""
    from onnx import TensorProto, helper, numpy_helper

    identity = numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), "identity")
    weights = numpy_helper.from_array(WEIGHTS, "weights")
    if location is not None:
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(WEIGHTS.nbytes))):
            weights.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "identity"], ["conv"]),  # what has none is no network to either reader
        helper.make_node("GlobalAveragePool", ["conv"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    tensors = (("image", TensorProto.UINT8, ["N", 4, 5, 3]), ("logits", TensorProto.FLOAT, ["N", 2]))
    ports = [helper.make_tensor_value_info(*tensor) for tensor in tensors]
    made = helper.make_graph(nodes, "network", ports[:1], ports[1:], [identity, weights])
    content: bytes = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return content


def put(root: Path, location: str | None) -> None:
    """Give the bundle this graph, with right answers and hashes; beside it, in the bundle, lie the weights."""
    images = np.load(root / "golden/images.npy")
    (root / "graphs/fp32.onnx").write_bytes(graph(location))
    (root / "graphs/weights.bin").write_bytes(WEIGHTS.tobytes())
    (root / "golden/logits.npy").write_bytes(npy(images.mean(axis=(1, 2), dtype=np.float32) @ WEIGHTS))
    values = json.loads((root / MANIFEST).read_bytes())
    for file in values["files"]:
        content = (root / file["path"]).read_bytes()
        file.update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    (root / MANIFEST).write_text(json.dumps(values))


def locations(root: Path) -> list[str]:
    """Beside the graph and from the working directory; by an absolute path; by the number of an open file."""
    return ["weights.bin", str(root / "graphs/weights.bin"), "../weights.bin", "0", "3"]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_python(backend: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(backend)
    put(root, None)
    open_session(open_bundle(root), backend, device="cpu").close()  # sound but for what follows
    monkeypatch.chdir(root / "graphs")
    handle = os.open(root / "graphs/weights.bin", os.O_RDONLY)
    try:
        for location in [*locations(root), str(handle), f"/proc/self/fd/{handle}"]:
            put(root, location)
            with pytest.raises(BackendUnavailable, match=r"cannot (open|compile) the graph"):
                open_session(open_bundle(root), backend, device="cpu")
    finally:
        os.close(handle)


def test_graphs_in_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that `eval`, `explain` and `export` read and change before they run them."""
    pytest.importorskip("onnxruntime")
    from samdeploy.graphs.inference import run_graph

    put(root, None)
    monkeypatch.chdir(root / "graphs")
    images = np.zeros((1, 4, 5, 3), np.uint8)
    run_graph(graph(None), images)
    for location in locations(root):
        with pytest.raises(BackendUnavailable, match="cannot open the graph"):
            run_graph(graph(location), images)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_cpp(backend: str, built: Build, probe: Probe, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend not in built.backends:
        pytest.skip(f"the C++ library was built without {backend}")
    put(root, None)
    assert probe("open", root, f"{backend}:fp32").stdout.startswith("0\n")
    monkeypatch.chdir(root / "graphs")
    for location in locations(root):
        put(root, location)
        status, _, text = probe("open", root, f"{backend}:fp32").stdout.split("\n", 2)
        assert (location, int(status)) == (location, UNAVAILABLE)
        assert "the graph" in text
