"""Reading ahead gives what sealing gives, errors too, and only once."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from samdeploy.backends import open_session
from samdeploy.backends.read_ahead import reading_ahead
from samdeploy.bundle import Bundle
from samdeploy.bundle.manifest import BundleFile
from samdeploy.errors import BundleError
from samdeploy.files import SealedFile
from tests.test_files import sealed_files


def _sealed(bundle: Bundle, file: BundleFile) -> bytes:
    with bundle.seal(file) as sealed:
        return Path(sealed.path).read_bytes()


def test_it_gives_the_same_bytes(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = digits_bundle.find("graph", backend="openvino", precision="fp32")
    weights = digits_bundle.find("weights")
    assert graph is not None and weights is not None
    readers = []
    seal = Bundle.seal

    def seen(self: Bundle, file: BundleFile) -> SealedFile:
        readers.append((file, threading.current_thread().name))
        return seal(self, file)

    monkeypatch.setattr(Bundle, "seal", seen)
    with reading_ahead(digits_bundle, "openvino", "fp32") as ahead:
        assert ahead == digits_bundle or ahead.files == digits_bundle.files
        assert _sealed(ahead, graph) == (digits_bundle.root / graph.path).read_bytes()
        assert readers == [(graph, "samdeploy-read")]
        assert _sealed(ahead, weights) == (digits_bundle.root / weights.path).read_bytes()
        assert (
            _sealed(ahead, graph) == (digits_bundle.root / graph.path).read_bytes()
        )  # given out once, then read again
    assert [name for _, name in readers[1:]] == ["MainThread"] * 2
    assert [thread.name for thread in threading.enumerate() if thread.name == "samdeploy-read"] == []


@pytest.mark.parametrize("precision", ["bf16", "int8", "fp32"])
def test_a_precision_without_a_graph_of_its_own_is_the_fp32_graphs(digits_bundle: Bundle, precision: str) -> None:
    with reading_ahead(digits_bundle, "openvino", precision) as ahead:
        graph = ahead.find("graph", backend="openvino", precision="fp32")
        assert graph is not None
        assert len(_sealed(ahead, graph)) == graph.bytes


def test_a_changed_file_is_refused_where_it_is_asked_for(digits_bundle: Bundle, copy_of_bundle: Path) -> None:
    path = copy_of_bundle / "model.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    bundle = replace(digits_bundle, root=copy_of_bundle)
    graph = bundle.find("graph", backend="openvino", precision="fp32")
    assert graph is not None
    with reading_ahead(bundle, "openvino", "fp32") as ahead, pytest.raises(BundleError, match="has SHA-256"):
        ahead.seal(graph)
    with reading_ahead(bundle, "openvino", "fp32"):
        pass  # nobody asked for it
    with pytest.raises(BundleError, match="has SHA-256"):
        open_session(bundle, "openvino")


def test_what_nobody_asked_for_is_given_back(digits_bundle: Bundle) -> None:
    before = sealed_files()
    with reading_ahead(digits_bundle, "openvino", "fp32"):
        pass
    assert sealed_files() == before


def test_what_is_done_meanwhile_is_done_once_and_may_fail(digits_bundle: Bundle) -> None:
    calls = []
    open_session(digits_bundle, "openvino", meanwhile=lambda: calls.append(1)).close()
    assert calls == [1]
    with pytest.raises(ZeroDivisionError):
        open_session(digits_bundle, "openvino", meanwhile=lambda: 1 / 0)


def test_a_bundle_without_graphs_is_left_as_it_is(digits_bundle: Bundle) -> None:
    bundle = Bundle(digits_bundle.root, digits_bundle.spec, (), digits_bundle.data, {})
    with reading_ahead(bundle, "openvino", "fp32") as ahead:
        assert ahead is bundle
