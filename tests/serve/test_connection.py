"""What clients send that is no sound HTTP, too long, or never comes."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import struct
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from samdeploy.bundle import Bundle
from tests.serve.server import Served, serving
from tests.serve.test_http import DIGITS


def by_urllib(url: str, content: bytes) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, content, timeout=60) as answer:  # asks for the connection to be closed
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def by_requests(url: str, content: bytes) -> tuple[int, bytes]:
    requests = pytest.importorskip("requests", reason="pip install requests")
    answer = requests.post(url, content, timeout=60)
    return answer.status_code, answer.content


def by_requests_in_chunks(url: str, content: bytes) -> tuple[int, bytes]:
    requests = pytest.importorskip("requests", reason="pip install requests")
    pieces = (content[start : start + 100_000] for start in range(0, len(content), 100_000))
    answer = requests.post(url, pieces, headers={"Connection": "close"}, timeout=60)
    return answer.status_code, answer.content


def by_httpx(url: str, content: bytes) -> tuple[int, bytes]:
    httpx = pytest.importorskip("httpx", reason="pip install httpx")
    answer = httpx.post(url, content=content, timeout=60)
    return answer.status_code, answer.content


def by_curl(url: str, content: bytes, *options: str) -> tuple[int, bytes]:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    command = ["curl", "-s", "--data-binary", "@-", "-w", "%{http_code}", *options, url]
    done = subprocess.run(command, input=content, capture_output=True, timeout=60, check=True)
    return int(done.stdout[-3:]), done.stdout[:-3]


def by_curl_that_asks_for_nothing_first(url: str, content: bytes) -> tuple[int, bytes]:
    return by_curl(url, content, "-H", "Expect:", "-H", "Connection: close")


@pytest.mark.parametrize(
    "client",
    [by_urllib, by_requests, by_requests_in_chunks, by_httpx, by_curl, by_curl_that_asks_for_nothing_first],
)
def test_clients_can_read_that_a_body_is_too_long(
    served: Served, client: Callable[[str, bytes], tuple[int, bytes]]
) -> None:
    status, content = client(f"http://127.0.0.1:{served.port}{DIGITS}/predict", bytes(20_000_000))
    assert status == 413
    assert b"2000000 bytes" in content


HEAD = b"POST %s HTTP/1.1\r\nHost: x\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
RAW = {
    "no HTTP": (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
    "a good request, then no HTTP": (b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\nno HTTP\r\n\r\n", 200, 400),
    "two lengths": (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    "a length and chunks": (HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "no chunk": (CHUNKS + b"zz\r\n", 400),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n", 400),
    "a length without end": (HEAD + b"Content-Length: " + b"9" * 18 + b"\r\n\r\n", 413),
    "chunks too many": (CHUNKS + (b"fffff\r\n" + bytes(0xFFFFF) + b"\r\n") * 3, 413),
    "a head without end": (HEAD + b"X: " + b"x" * 200_000, 431),
}


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_sound_http(served: Served, name: str) -> None:
    content, *expected = RAW[name]
    found = b""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        client.sendall(content.replace(b"%s", (DIGITS + "/predict").encode()))
        while found.count(b"HTTP/1.1 ") < len(expected) and (piece := client.recv(4096)):
            found += piece
    assert re.findall(rb"HTTP/1.1 (\d+) ", found) == [b"%d" % status for status in expected]
    assert served.json("GET", "/v2/health/ready")[0] == 200


def test_trailers_without_end(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as client, suppress(ConnectionError):
        client.sendall(CHUNKS.replace(b"%s", (DIGITS + "/predict").encode()) + b"1\r\nx\r\n0\r\nX: " + b"x" * 400_000)
        assert client.recv(1) == b""  # closed


@pytest.mark.parametrize("count", [1, 3])
def test_clients_that_ask_for_http_2(served: Served, digit_files: Sequence[Path], count: int) -> None:
    """Java's client and `curl --http2` begin so: the server answers in HTTP/1.1."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEA\r\n"
    head = HEAD.replace(b"%s", (DIGITS + "/predict").encode()) + upgrade
    files = [path.read_bytes() for path in digit_files[:count]]
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        client.sendall(b"".join(head + b"Content-Length: %d\r\n\r\n%s" % (len(one), one) for one in files))
        found = b""
        while found.count(b"]}") < count:
            found += client.recv(4096)
    assert re.findall(rb'{"label": "(\d)", "index"', found) == [b"%d" % digit for digit in range(count)]


def test_a_client_that_goes_away_is_no_error(served: Served) -> None:
    """`serving` looks for a traceback at the end."""
    path = DIGITS + "/predict"
    before = served.metric("samdeploy_requests_total", 'code="499"')
    for body in (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nhalf", "POST"):
        client = socket.create_connection(("127.0.0.1", served.port), timeout=30)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets
        client.sendall(body.encode())
        client.close()
    deadline = time.monotonic() + 20
    while served.metric("samdeploy_requests_total", 'code="499"') == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert served.metric("samdeploy_requests_total", 'code="499"') == before + 1


def test_a_client_that_begins_no_handshake(digits_bundle: Bundle, environment: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    files = ("-keyout", key, "-out", certificate)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *files]
    subprocess.run([*command, "-subj", "/CN=localhost"], check=True, capture_output=True)
    options = ("--tls-cert", certificate, "--tls-key", key, "--header-seconds", "0.5")
    with serving(environment, digits_bundle.root, *options) as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as client:
            assert client.recv(1) == b""  # closed
        url = f"https://localhost:{served.port}/v2/health/live"
        with urllib.request.urlopen(url, context=ssl.create_default_context(cafile=str(certificate))) as answer:
            assert answer.status == 200
