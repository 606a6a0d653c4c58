"""Slow, broken and vanishing clients, while a good one asks on and must always get the right answer.

    python benchmarks/serve/hostile.py BUNDLE [--slow 1000] [--malformed 500] [--seed 0] [--out FILE]

The malformed requests are of 30 kinds: lengths, chunks, encodings, shapes, types, huge and deep JSON, smuggling.  Each
must end with a status from 400 to 505 or a closed connection, and never with 500 or 200.  At the end the server must be
ready, without a traceback in its log, and end with exit code 0.  Two more servers live through a clock that jumps and
a full disk (faults.py).
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import faults
import numpy as np
from load import HEADER_LENGTH, Answers, Question, ask, free_port, infer

from samdeploy.backends import open_session
from samdeploy.bundle import open_bundle
from samdeploy.evaluate.machine import machine, versions

MODEL = "/v2/models/model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--slow", type=int, default=1000)
    parser.add_argument("--malformed", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    image = bundle.golden()[0][0]
    with open_session(bundle, "onnxruntime", precision="fp32") as session:
        logits = session.run(image[None])
    question = infer("model", image, logits, 1e-3)
    port = free_port()
    serve = [sys.executable, "-m", "samdeploy", "serve", f"model={options.bundle.resolve()}"]
    serve += ["--backend", "onnxruntime", "--precision", "fp32"]
    command = [*serve, "--port", str(port), "--header-seconds", "5", "--body-seconds", "5"]
    # A limit on connections would turn the good client away, too.
    command += ["--connections", str(options.slow + 200)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        random.seed(options.seed)
        good = _Good(port, question)
        good.start()
        found = {
            "slow": _slow(port, options.slow),
            "malformed": _malformed(port, options.malformed, image),
            "vanished": _vanish(port, question, 200),
        }
        answers = good.stop()
        after = ask(f"http://127.0.0.1:{port}", [question], 1, 1)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    bad = {kind: statuses for kind, statuses in found["malformed"].items() if {"200", "500"} & set(statuses)}
    machine_faults = {"clock": faults.clock(serve, image, logits), "disk": faults.disk(serve, image, logits)}
    values = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(), "versions": versions(),
        "command": "benchmarks/serve/hostile.py BUNDLE",
        "good_client": {"right": len(answers.seconds), "other": answers.other, "p99_ms": round(answers.ms(99), 1)},
        **found,
        "right_afterwards": not after.other and bool(after.seconds),
        "tracebacks": log.count("Traceback"), "exit_code": process.returncode, "answered_wrongly": bad,
        **machine_faults,
    }  # fmt: skip
    print(json.dumps(values, indent=1))
    if options.out:
        options.out.write_text(json.dumps(values, indent=1) + "\n")
    is_sound = not (bad or answers.other or values["tracebacks"] or process.returncode) and values["right_afterwards"]
    is_sound = is_sound and not any(found.get("failed") for found in machine_faults.values())
    raise SystemExit(not is_sound)


class _Good(threading.Thread):
    """One client that behaves, all the while."""

    def __init__(self, port: int, question: Question) -> None:
        super().__init__(daemon=True)
        self._port, self._question, self._ending = port, question, threading.Event()
        self._answers = Answers()

    def run(self) -> None:
        while not self._ending.is_set():
            found = ask(f"http://127.0.0.1:{self._port}", [self._question], 1, 1)
            self._answers.seconds += found.seconds
            for key, count in found.other.items():
                self._answers.other[key] = self._answers.other.get(key, 0) + count

    def stop(self) -> Answers:
        self._ending.set()
        self.join()
        return self._answers


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.settimeout(30)
    return connection


def _slow(port: int, count: int) -> dict[str, object]:
    """So many connections at once that send a byte a second: head or body."""
    connections = []
    for number in range(count):
        connection = _connect(port)
        head = f"POST {MODEL}/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 4000\r\n"
        connection.sendall((head + ("" if number % 2 else "\r\n")).encode())
        connections.append(connection)
    begin, closed = time.perf_counter(), 0
    while connections and time.perf_counter() - begin < 60:
        left = []
        for connection in connections:
            try:
                connection.sendall(b"x")
                connection.setblocking(False)
                try:
                    if connection.recv(4096):
                        connection.close()
                        closed += 1
                        continue
                    closed += 1
                    continue
                except BlockingIOError:
                    connection.setblocking(True)
                left.append(connection)
            except OSError:
                closed += 1
        connections = left
        time.sleep(1)
    return {"connections": count, "ended_by_server": closed, "seconds": round(time.perf_counter() - begin, 1)}


def _vanish(port: int, question: Question, count: int) -> int:
    """Clients that send all or half of a request, and reset the connection."""
    body = question.body
    headers = "".join(f"{key}: {value}\r\n" for key, value in question.headers.items())
    head = f"POST {MODEL}/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode()
    for number in range(count):
        connection = _connect(port)
        connection.sendall(head + body[: len(body) // (1 + number % 2)])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
    return count


def _malformed(port: int, count: int, image: np.ndarray) -> dict[str, dict[str, int]]:
    """By kind: what came back, and how often."""
    kinds = _kinds(image)
    names = [list(kinds)[number % len(kinds)] for number in range(count)]
    found: dict[str, Counter[str]] = {}
    with ThreadPoolExecutor(20) as clients:
        for name, status in zip(names, clients.map(lambda name: _status(port, kinds[name]), names), strict=True):
            found.setdefault(name, Counter())[status] += 1
    return {name: dict(counts) for name, counts in found.items()}


def _status(port: int, request: bytes) -> str:
    answer = b""
    with _connect(port) as connection:
        try:
            connection.sendall(request)
            while part := connection.recv(65536):
                answer += part
        except OSError:  # reset while it was sent, or silence for 30 s
            pass
    statuses = [line.split(b" ")[1].decode() for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    return ",".join(statuses) or "closed"


def _kinds(image: np.ndarray) -> dict[str, bytes]:
    pixels = image.tobytes()

    def post(body: bytes, path: str = "/infer", more: str = "", length: str | None = None) -> bytes:
        head = f"POST {MODEL}{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{more}"
        return f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body

    def tensor(**changes: object) -> bytes:
        one = {"name": "image", "datatype": "UINT8", "shape": [1, *image.shape], "data": [0], **changes}
        return json.dumps({"inputs": [one]}).encode()

    start = f"POST {MODEL}/infer HTTP/1.1\r\nHost: a\r\n".encode()
    binary = tensor(data=None, parameters={"binary_data_size": len(pixels)}).replace(b', "data": null', b"")
    return {
        "no request": b"\0\1\2\3" * 200,
        "TLS on plain HTTP": bytes.fromhex("1603010200010001fc0303") + random.randbytes(500),
        "length too small": post(binary + pixels, more=f"{HEADER_LENGTH}: {len(binary)}\r\n", length="10"),
        "length too large": post(b"{}", length="100"),
        "length negative": post(b"{}", length="-2"),
        "length no number": post(b"{}", length="many"),
        "length of 40 digits": post(b"{}", length="9" * 40),
        "two lengths": start + b"Content-Length: 2\r\nContent-Length: 30\r\n\r\n{}",
        "length and chunks": start
        + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "chunk size no number": start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        "chunk size huge": start + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}\r\n",
        "chunks that stop": start + b"Transfer-Encoding: chunked\r\n\r\n10\r\n{",
        "unknown coding": start + b"Transfer-Encoding: gzip\r\n\r\n{}",
        "header without colon": start + b"Nonsense\r\n\r\n",
        "header of 100 kB": start + b"A: " + b"a" * 100_000 + b"\r\n\r\n",
        "folded header": start + b"A: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
        "null in a header": start + b"A: \0\r\nContent-Length: 2\r\n\r\n{}",
        "address of 100 kB": b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        "path upwards": post(b"{}", "/../../../etc/passwd"),
        "no JSON": post(b"{" * 50),
        "deep JSON": post(b"[" * 200_000 + b"]" * 200_000),
        "long number": post(b'{"inputs": ' + b"9" * 100_000 + b"}"),
        "NaN": post(tensor(data="@").replace(b'"@"', b"[NaN]")),
        "no UTF-8": post(b'{"inputs": "\xff\xfe"}'),
        "negative shape": post(tensor(shape=[-1, *image.shape])),
        "shape of 2^40": post(tensor(shape=[1 << 40, *image.shape])),
        "another type": post(tensor(datatype="FP64")),
        "ragged": post(tensor(data=[[1], [2, 3]])),
        "front longer than all": post(binary, more=f"{HEADER_LENGTH}: 99999\r\n"),
        "binary longer than it says": post(binary + pixels + b"x", more=f"{HEADER_LENGTH}: {len(binary)}\r\n"),
        "no image": post(random.randbytes(3000), "/predict"),
        "half a JPEG": post(b"\xff\xd8\xff\xe0" + random.randbytes(3000), "/predict"),
        "empty body": post(b"", "/predict"),
        "form without an end": post(b"--b\r\n\r\nx", "/predict", "Content-Type: multipart/form-data; boundary=b\r\n"),
        "no such model": b"POST /v2/models/%00%2e%2e/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
        "another method": f"DELETE {MODEL} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode(),
    }


if __name__ == "__main__":
    main()
