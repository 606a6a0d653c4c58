"""Reading ahead gives what sealing gives, errors too, and only once."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from samdeploy.backends import open_session
from samdeploy.backends.names import BACKENDS
from samdeploy.backends.read_ahead import ReadAhead
from samdeploy.backends.session import Wanted
from samdeploy.bundle import Bundle
from samdeploy.bundle.manifest import BundleFile
from samdeploy.errors import BackendUnavailable, BundleError
from samdeploy.files import SealedFile
from tests.files.test_sealed_file import sealed_files


def _graph(bundle: Bundle) -> BundleFile:
    file = bundle.find("graph", backend="openvino", precision="fp32")
    assert file is not None
    return file


def _sealed(wanted: Wanted, file: BundleFile) -> bytes:
    with wanted.seal(file) as sealed:
        return Path(sealed.path).read_bytes()


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[BundleFile, str]]:
    """Which thread sealed which file."""
    found: list[tuple[BundleFile, str]] = []
    seal = Bundle.seal

    def seen(self: Bundle, file: BundleFile) -> SealedFile:
        found.append((file, threading.current_thread().name))
        return seal(self, file)

    monkeypatch.setattr(Bundle, "seal", seen)
    return found


def test_it_gives_the_same_bytes(digits_bundle: Bundle, readers: list[tuple[BundleFile, str]]) -> None:
    graph, weights = _graph(digits_bundle), digits_bundle.find("weights")
    assert weights is not None
    content = (digits_bundle.root / graph.path).read_bytes()
    with ReadAhead(digits_bundle, graph) as ahead:
        wanted = Wanted(digits_bundle, "cpu", "fp32", ahead=ahead)
        assert _sealed(wanted, weights) == (digits_bundle.root / weights.path).read_bytes()
        assert _sealed(wanted, graph) == content
        assert _sealed(wanted, graph) == content  # given out once, then read again
    assert sorted(name for _, name in readers) == ["MainThread", "MainThread", "samdeploy-read"]
    assert (graph, "samdeploy-read") in readers
    assert [thread.name for thread in threading.enumerate() if thread.name == "samdeploy-read"] == []


@pytest.mark.parametrize(("precision", "graph"), [("bf16", "fp32"), ("fp16", "fp16"), ("fp32", "fp32")])
def test_the_first_opening_reads_its_graph_ahead(
    digits_bundle: Bundle,
    readers: list[tuple[BundleFile, str]],
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    graph: str,
) -> None:
    """BF16 has no graph of its own and takes the FP32 one; a second opening has nothing to wait for."""
    file = digits_bundle.find("graph", precision=graph)
    monkeypatch.delitem(sys.modules, BACKENDS["openvino"].module, raising=False)
    for thread in ("samdeploy-read", "MainThread"):
        readers.clear()
        with suppress(BackendUnavailable):  # not every processor has this arithmetic
            open_session(digits_bundle, "openvino", precision=precision).close()
        assert readers == [(file, thread)]


def test_a_changed_file_is_refused_where_it_is_asked_for(digits_bundle: Bundle, copy_of_bundle: Path) -> None:
    path = copy_of_bundle / "model.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    bundle = replace(digits_bundle, root=copy_of_bundle)
    with ReadAhead(bundle, _graph(bundle)) as ahead, pytest.raises(BundleError, match="has SHA-256"):
        ahead.take(_graph(bundle))
    with ReadAhead(bundle, _graph(bundle)):
        pass  # nobody asked for it
    with pytest.raises(BundleError, match="has SHA-256"):
        open_session(bundle, "openvino")


def test_what_nobody_asked_for_is_given_back(digits_bundle: Bundle) -> None:
    before = sealed_files()
    with ReadAhead(digits_bundle, _graph(digits_bundle)) as ahead:
        pass
    assert sealed_files() == before
    del ahead


def test_what_is_done_meanwhile_is_done_once_and_may_fail(digits_bundle: Bundle) -> None:
    calls = []
    open_session(digits_bundle, "openvino", meanwhile=lambda: calls.append(1)).close()
    assert calls == [1]
    with pytest.raises(ZeroDivisionError):
        open_session(digits_bundle, "openvino", meanwhile=lambda: 1 / 0)


def test_a_bundle_without_graphs_says_so(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, BACKENDS["openvino"].module, raising=False)
    with pytest.raises(BackendUnavailable, match="holds no graph in fp32"):
        open_session(replace(digits_bundle, files=()), "openvino", check=False)
