"""Reading ahead gives what reading gives, errors too, and only once."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from samdeploy.backends import open_session
from samdeploy.backends.read_ahead import reading_ahead
from samdeploy.bundle import Bundle
from samdeploy.errors import BundleError


def test_it_gives_the_same_bytes(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = digits_bundle.find("graph", backend="openvino", precision="fp32")
    weights = digits_bundle.find("weights")
    assert graph is not None and weights is not None
    readers = []
    read = Bundle.read

    def seen(self: Bundle, file: object) -> bytes:
        readers.append((file, threading.current_thread().name))
        return read(self, file)  # type: ignore[arg-type]

    monkeypatch.setattr(Bundle, "read", seen)
    with reading_ahead(digits_bundle, "openvino", "fp32") as ahead:
        assert ahead == digits_bundle or ahead.files == digits_bundle.files
        assert ahead.read(graph) == (digits_bundle.root / graph.path).read_bytes()
        assert readers == [(graph, "samdeploy-read")]
        assert ahead.read(weights) == (digits_bundle.root / weights.path).read_bytes()
        assert ahead.read(graph) == (digits_bundle.root / graph.path).read_bytes()  # given out once, then read again
    assert [name for _, name in readers[1:]] == ["MainThread"] * 2
    assert [thread.name for thread in threading.enumerate() if thread.name == "samdeploy-read"] == []


@pytest.mark.parametrize("precision", ["bf16", "int8", "fp32"])
def test_a_precision_without_a_graph_of_its_own_is_the_fp32_graphs(digits_bundle: Bundle, precision: str) -> None:
    with reading_ahead(digits_bundle, "openvino", precision) as ahead:
        graph = ahead.find("graph", backend="openvino", precision="fp32")
        assert graph is not None
        assert len(ahead.read(graph)) == graph.bytes


def test_a_changed_file_is_refused_where_it_is_read(digits_bundle: Bundle, copy_of_bundle: Path) -> None:
    path = copy_of_bundle / "model.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    bundle = replace(digits_bundle, root=copy_of_bundle)
    graph = bundle.find("graph", backend="openvino", precision="fp32")
    assert graph is not None
    with reading_ahead(bundle, "openvino", "fp32") as ahead, pytest.raises(BundleError, match="has SHA-256"):
        ahead.read(graph)
    with reading_ahead(bundle, "openvino", "fp32"):
        pass  # nobody asked for it
    with pytest.raises(BundleError, match="has SHA-256"):
        open_session(bundle, "openvino")


def test_a_bundle_without_graphs_is_left_as_it_is(digits_bundle: Bundle) -> None:
    bundle = Bundle(digits_bundle.root, digits_bundle.spec, (), digits_bundle.data, {})
    with reading_ahead(bundle, "openvino", "fp32") as ahead:
        assert ahead is bundle
