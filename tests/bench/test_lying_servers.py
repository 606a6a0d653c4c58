"""`bench --url` before servers that are slow, hang, close connections or answer nonsense."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samdeploy.bench import open_inference
from samdeploy.bench import server as server_bench
from samdeploy.bench.server import ServerOptions, bench_server
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable
from samdeploy.report.text.server import server_tables
from tests.conftest import Inside

MODEL = "/v2/models/digits"


class Handler(BaseHTTPRequestHandler):
    """Answers as the bundle does."""

    protocol_version = "HTTP/1.1"
    bundle: Bundle
    count: Iterator[int]

    def do_GET(self) -> None:
        spec = self.bundle.spec
        size = [-1, spec.preprocessing.height, spec.preprocessing.width, 3]
        model = {
            "name": "digits",
            "inputs": [{"name": spec.input.name, "datatype": "UINT8", "shape": size}],
            "outputs": [{"name": spec.output.name, "datatype": "FP32", "shape": [-1, len(spec.classes)]}],
        }
        self.tell(self.path, model | {"version": "1"} if self.path == MODEL else {"name": "liar", "version": "1"})

    def tell(self, path: str, found: dict[str, Any]) -> None:
        self.send(json.dumps(found).encode())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        front = int(self.headers[open_inference.HEADER_LENGTH])
        images, logits = self.bundle.golden()
        place = next(index for index, image in enumerate(images) if image.tobytes() == body[front:])
        self.infer(next(self.count) < len(images), logits[place])

    def infer(self, is_first: bool, logits: np.ndarray) -> None:
        """`is_first`: one of those that are compared with the golden answers."""
        self.send(b"{}" + logits.tobytes(), front="2")

    def send(self, content: bytes, status: int = 200, front: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if front:
            self.send_header(open_inference.HEADER_LENGTH, front)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None: ...


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are asked for here; their tracebacks would stand in the next test's output."""


@contextmanager
def lying(handler: type[Handler], bundle: Bundle) -> Iterator[str]:
    """The address of the model of a server that answers as `handler` does."""
    own = type("Own", (handler,), {"bundle": bundle, "count": itertools.count()})
    with Server(("127.0.0.1", 0), own) as server:
        server.daemon_threads, server.block_on_close = True, False
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}{MODEL}"
        finally:
            server.shutdown()
            thread.join()


class Slow(Handler):
    def infer(self, is_first: bool, logits: np.ndarray) -> None:
        time.sleep(0 if is_first else 0.4)
        super().infer(is_first, logits)


def test_a_slow_server_is_not_said_to_be_faster(digits_bundle: Bundle) -> None:
    with lying(Slow, digits_bundle) as url:
        found = bench_server(digits_bundle, ServerOptions(url, (1, 3), seconds=0.1))
    for point in found.points:
        assert 0.8 * point.clients / 0.4 < point.rate < 1.01 * point.clients / 0.4
        assert 400 <= point.p50_ms < 600
    assert found.sound


class Failing(Handler):
    def infer(self, is_first: bool, logits: np.ndarray) -> None:
        if is_first:
            super().infer(is_first, logits)
        else:
            self.send(b"out of memory", status=500)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_no_answer_at_all_is_written_as_null(digits_bundle: Bundle, inside: Inside, tmp_path: Path) -> None:
    with lying(Failing, digits_bundle) as url:
        options = ("--url", url, "--clients", "2", "--seconds", "0.05", "--json", tmp_path / "found.json")
        code, output, errors = inside("bench", digits_bundle.root, *options, cwd=tmp_path)
    assert (code, errors) == (1, "")
    assert "x 500" in output
    assert "nan" not in output
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["points"][0]["p50_ms"], found["points"][0]["rate"], found["sound"]) == (None, 0, False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_logits_beyond_all_numbers_are_wrong(value: float, digits_bundle: Bundle) -> None:
    class Wild(Handler):
        def infer(self, is_first: bool, logits: np.ndarray) -> None:
            sign = np.where(np.arange(len(logits)) % 2, -1, 1).astype(np.float32)
            super().infer(is_first, logits if is_first else sign * np.float32(value))

    with lying(Wild, digits_bundle) as url:
        found = bench_server(digits_bundle, ServerOptions(url, (1,), seconds=0.05))
    assert set(found.statuses) == {"wrong"}


DEEP = "[" * 100_000 + "]" * 100_000
TENSOR: dict[str, Any] = {"name": "image", "datatype": "UINT8", "shape": [-1, 8, 8, 3]}


@pytest.mark.parametrize(
    "model",
    [
        {"inputs": None},
        {"inputs": ["a"], "outputs": 5},
        {"inputs": [TENSOR], "outputs": {}},
        {"inputs": [TENSOR | {"name": ["image"]}], "outputs": [TENSOR]},
        {"inputs": [TENSOR | {"datatype": None}], "outputs": [TENSOR]},
        {"inputs": [TENSOR | {"shape": None}], "outputs": [TENSOR]},
        {"inputs": [TENSOR | {"shape": [-1, [8], 8, 3]}], "outputs": [TENSOR]},
        {"inputs": [TENSOR | {"shape": "four"}], "outputs": [TENSOR]},
    ],
)
def test_tensors_that_are_none_are_refused(model: dict[str, Any], digits_bundle: Bundle) -> None:
    class Odd(Handler):
        def tell(self, path: str, found: dict[str, Any]) -> None:
            super().tell(path, found | model if path == MODEL else found)

    expected = f"GET {MODEL}: .* found in (in|out)puts, a tensor's name, datatype and shape expected"
    with lying(Odd, digits_bundle) as url, pytest.raises(BackendUnavailable, match=expected):
        bench_server(digits_bundle, ServerOptions(url, (1,)))


@pytest.mark.parametrize("text", [DEEP, "[]", "nought", '{"name": "\\ud800"}', '{"name": 1e999}', '{"a": 1, "a": 2}'])
def test_json_that_is_no_object_is_refused(text: str, digits_bundle: Bundle) -> None:
    class Odd(Handler):
        def tell(self, path: str, found: dict[str, Any]) -> None:
            self.send(text.encode())

    with (
        lying(Odd, digits_bundle) as url,
        pytest.raises(BackendUnavailable, match="no model of the Open Inference Protocol"),
    ):
        bench_server(digits_bundle, ServerOptions(url, (1,)))


@pytest.mark.parametrize("front", ["9" * 5000, "-1", "3", "²"])
def test_logits_elsewhere_than_the_header_has_them_are_none(front: str, digits_bundle: Bundle) -> None:
    class Odd(Handler):
        def infer(self, is_first: bool, logits: np.ndarray) -> None:
            self.send(b"{}" + logits.tobytes(), front=front)

    with lying(Odd, digits_bundle) as url, pytest.raises(BackendUnavailable, match="finite logits expected"):
        bench_server(digits_bundle, ServerOptions(url, (1,)))


@pytest.mark.parametrize("said", [{"parameters": {"precision": {"string_value": {}}}}, {"parameters": []}, {}])
def test_a_precision_that_nobody_names_is_the_coarsest(said: dict[str, Any], digits_bundle: Bundle) -> None:
    class Odd(Handler):
        def tell(self, path: str, found: dict[str, Any]) -> None:
            super().tell(path, said if path.endswith("/config") else found)

    with lying(Odd, digits_bundle) as url:
        found = bench_server(digits_bundle, ServerOptions(url, (1,), seconds=0.05))
        assert (found.precision, found.precision_known) == ("fp16", False)
        text = " ".join(server_tables(found).split())
        assert "fp16, the bundle's coarsest, as the server names none; --precision fp32 is stricter" in text
        found = bench_server(digits_bundle, ServerOptions(url, (1,), seconds=0.05, precision="fp32"))
        assert "coarsest" not in server_tables(found)


def test_a_trickle_has_a_deadline(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    class Trickle(Handler):
        def tell(self, path: str, found: dict[str, Any]) -> None:
            self.send_response(200)
            for byte in b"X-Header: " + 100 * b"x":
                self.wfile.write(bytes([byte]))
                time.sleep(0.1)

    monkeypatch.setattr(open_inference, "_TIMEOUT", 0.5)
    start = time.monotonic()
    with lying(Trickle, digits_bundle) as url, pytest.raises(BackendUnavailable, match=r"failed \(timed out\)"):
        bench_server(digits_bundle, ServerOptions(url, (1,)))
    assert time.monotonic() - start < 3


def test_a_server_that_hangs_under_load_is_not_waited_for(
    digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging(Handler):
        def infer(self, is_first: bool, logits: np.ndarray) -> None:
            time.sleep(0 if is_first else 20)
            super().infer(is_first, logits)

    monkeypatch.setattr(server_bench, "_DRAIN", 0.5)
    start = time.monotonic()
    with lying(Hanging, digits_bundle) as url:
        found = bench_server(digits_bundle, ServerOptions(url, (1, 3), seconds=0.05))
    assert time.monotonic() - start < 5
    assert found.statuses == {"no answer": 4}
    assert [(point.answers, point.failed) for point in found.points] == [(0, 1), (0, 3)]
    assert not found.sound


def test_a_server_that_closes_every_connection_is_measured(digits_bundle: Bundle) -> None:
    class Closing(Handler):
        def send(self, content: bytes, status: int = 200, front: str = "") -> None:
            super().send(content, status, front)
            self.close_connection = True  # without a word of it

    with lying(Closing, digits_bundle) as url:
        found = bench_server(digits_bundle, ServerOptions(url, (1, 2), seconds=0.1))
    assert found.sound
    assert all(point.answers for point in found.points)


def test_the_body_of_a_last_answer_may_follow_later(digits_bundle: Bundle) -> None:
    """http.client closes its handle of the socket as soon as the head says that no other answer follows."""

    class Old(Handler):
        protocol_version = "HTTP/1.0"

        def end_headers(self) -> None:
            super().end_headers()
            time.sleep(0.01)

    with lying(Old, digits_bundle) as url:
        found = bench_server(digits_bundle, ServerOptions(url, (1,), seconds=0.1))
    assert found.sound


@pytest.mark.parametrize("size", ["-5", "-1"])
def test_a_chunk_of_negative_size_is_no_answer(size: str, digits_bundle: Bundle) -> None:
    class Negative(Handler):
        def send_chunk(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(f"{size}\r\n{{}}".encode())
            self.close_connection = True

    class InMetadata(Negative):
        def tell(self, path: str, found: dict[str, Any]) -> None:
            self.send_chunk()

    class UnderLoad(Negative):
        def infer(self, is_first: bool, logits: np.ndarray) -> None:
            super().infer(is_first, logits) if is_first else self.send_chunk()

    failed = rf"failed \(a chunk of {size} bytes\)"
    with lying(InMetadata, digits_bundle) as url, pytest.raises(BackendUnavailable, match=failed):
        bench_server(digits_bundle, ServerOptions(url, (1,)))
    with lying(UnderLoad, digits_bundle) as url:
        found = bench_server(digits_bundle, ServerOptions(url, (1,), seconds=0.05))
    assert set(found.statuses) == {"no answer"}


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_a_host_that_can_be_none_is_one_error(host: str, digits_bundle: Bundle) -> None:
    with pytest.raises(BackendUnavailable, match=rf"^{host}:80: GET /v2 failed \("):
        bench_server(digits_bundle, ServerOptions(f"http://{host}{MODEL}", (1,)))


@pytest.mark.parametrize("length", ["1000", "1" + 30 * "0"])
def test_half_an_answer_is_none(length: str, digits_bundle: Bundle) -> None:
    class Half(Handler):
        def tell(self, path: str, found: dict[str, Any]) -> None:
            self.send_response(200)
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(b"{}")
            self.close_connection = True

    with lying(Half, digits_bundle) as url, pytest.raises(BackendUnavailable, match=r"failed \(half a body\)"):
        bench_server(digits_bundle, ServerOptions(url, (1,)))
