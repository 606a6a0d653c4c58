"""examples/service.py, started as a user starts it and asked by many clients at once, over loopback."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from samdeploy import Classifier
from samdeploy.bundle import Bundle

SCRIPT = Path(__file__).parents[2] / "examples" / "service.py"
CLIENTS = 24


@pytest.fixture(scope="module")
def port(digits_bundle: Bundle, environment: dict[str, str]) -> Iterator[int]:
    pytest.importorskip("onnxruntime", reason="pip install 'samdeploy[onnxruntime]'")
    service = subprocess.Popen(
        [sys.executable, SCRIPT, digits_bundle.root, "0"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert service.stdout is not None
        line = service.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), service.communicate(timeout=10)
        yield int(line.rpartition(":")[2])
        service.send_signal(signal.SIGINT)
        out, errors = service.communicate(timeout=30)
        assert (out, service.returncode) == ("stopped\n", 0)
        assert "Traceback" not in errors  # whatever its clients did
    finally:
        service.kill()


def post(port: int, body: bytes) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/", body)
        answer = connection.getresponse()
        assert answer.getheader("Content-Type") == "application/json"
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_it_answers_as_the_classifier(port: int, digits_bundle: Bundle, digit_files: Sequence[Path]) -> None:
    with Classifier.open(digits_bundle.root) as classifier:
        for digit, path in enumerate(digit_files):
            status, found = post(port, path.read_bytes())
            expected = classifier.predict(path)
            assert status == 200
            assert found == expected.to_json()
            assert found["label"] == str(digit)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "image: the file is empty; expected an image"),
        (b"GET OUT", "image: not an image that samdeploy reads"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "image: damaged or truncated (PNG: "),
    ],
)
def test_what_is_no_image_is_400(port: int, body: bytes, text: str) -> None:
    status, answer = post(port, body)
    assert status == 400 and answer["error"].startswith(text)


def test_a_truncated_image_is_400(port: int, digit_files: Sequence[Path]) -> None:
    status, found = post(port, digit_files[0].read_bytes()[:-30])
    assert status == 400
    assert str(found["error"]).startswith("image: damaged or truncated")


@pytest.mark.parametrize(
    ("length", "status", "text"),
    [
        (str(1 << 40), 413, f"Content-Length {1 << 40} found, at most 33554432 bytes expected"),
        ("9" * 5000, 413, "Content-Length 99999999999999999999 found, at most"),
        ("-1", 411, "no Content-Length found"),
        ("many", 411, "no Content-Length found"),
    ],
)
def test_a_length_that_cannot_be(port: int, length: str, status: int, text: str) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(f"POST / HTTP/1.0\r\nContent-Length: {length}\r\n\r\n".encode())
        answer = client.makefile("rb").read()
    assert answer.startswith(f"HTTP/1.0 {status} ".encode())
    assert text.encode() in answer


def test_a_client_that_resets_is_no_error(port: int) -> None:
    """The fixture looks for a traceback at the end."""
    for body in (b"POST / HTTP/1.0\r\nContent-Length: 1000\r\n\r\nhalf", b"POST"):
        client = socket.create_connection(("127.0.0.1", port), timeout=30)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets
        client.sendall(body)
        client.close()


def test_many_clients_at_once_good_and_bad(port: int, digit_files: Sequence[Path]) -> None:
    examples = [path.read_bytes() for path in digit_files]

    def client(number: int) -> list[tuple[int, object]]:
        found = []
        for place in range(10):
            digit = (number + place) % 6
            status, answer = post(port, examples[digit] if digit < 5 else b"broken")
            found.append((digit, answer["label"] if status == 200 else status))
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        for found in pool.map(client, range(CLIENTS)):
            assert [answer for _, answer in found] == [str(digit) if digit < 5 else 400 for digit, _ in found]


def test_whoever_watches_it_gets_an_answer(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (200, {"classes": 10})
    finally:
        connection.close()


def test_it_does_not_start_in_one_line(
    port: int, digits_bundle: Bundle, environment: dict[str, str], tmp_path: Path
) -> None:
    for arguments, text in (
        ([tmp_path / "nope", "0"], "no such folder"),
        ([digits_bundle.root, str(port)], "Address already in use"),
        ([digits_bundle.root, "99999"], "port must be 0-65535"),
    ):
        done = subprocess.run(
            [sys.executable, SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith("service.py: ") and text in done.stderr
        assert done.stderr.count("\n") == 1
