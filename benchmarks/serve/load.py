"""A client for the benchmarks here: some threads that ask one address again and again, and look at every answer."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

HEADER_LENGTH = "Inference-Header-Content-Length"


@dataclass
class Question:
    """One kind of request, and whether an answer to it is right."""

    path: str
    body: bytes
    headers: dict[str, str]
    is_right: Callable[[bytes, str], bool]

    def request(self, host: str) -> bytes:
        """The whole request, as it is sent."""
        headers = {"Host": host, **self.headers, "Content-Length": str(len(self.body))}
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode() + self.body


class Connection:
    """One connection that is kept.  `http.client` takes a third of a millisecond for an answer, mostly for its headers:
    as much as the servers that are compared.
    """

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._socket: socket.socket | None = None

    def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by their names in lower case, and body."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=60)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(request)
        found = b""
        while (end := found.find(b"\r\n\r\n")) < 0:
            found += self._more()
        first, *lines = found[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "content-length" not in headers:
            raise http.client.HTTPException("an answer without Content-Length")
        body = bytearray(found[end + 4 :])
        while len(body) < int(headers["content-length"]):
            body += self._more()
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(first.split(" ", 2)[1]), headers, bytes(body)

    def _more(self) -> bytes:
        assert self._socket is not None
        if not (piece := self._socket.recv(1 << 16)):
            raise http.client.RemoteDisconnected("the connection was closed before the answer was whole")
        return piece

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@dataclass
class Answers:
    """What came back: seconds of each right answer, and how often anything else."""

    seconds: list[float] = field(default_factory=list)
    other: dict[str, int] = field(default_factory=dict)
    duration: float = 0.0

    @property
    def rate(self) -> float:
        return len(self.seconds) / self.duration

    def ms(self, percent: float) -> float:
        return float(1000 * np.percentile(self.seconds, percent)) if self.seconds else float("nan")


def infer(name: str, image: np.ndarray, logits: np.ndarray, tolerance: float, timeout: int | None = None) -> Question:
    """A tensor of the Open Inference Protocol, binary both ways: uint8 [1, H, W, 3]; `timeout` in microseconds."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, *image.shape]}
    tensor["parameters"] = {"binary_data_size": image.nbytes}
    outputs = [{"name": "logits", "parameters": {"binary_data": True}}]
    parameters = {} if timeout is None else {"parameters": {"timeout": timeout}}
    front = json.dumps({"inputs": [tensor], "outputs": outputs, **parameters}).encode()
    headers = {HEADER_LENGTH: str(len(front)), "Content-Type": "application/octet-stream"}
    return Question(
        f"/v2/models/{name}/infer", front + image.tobytes(), headers,
        lambda body, length: _near(body[int(length or 0) :], logits, tolerance),
    )  # fmt: skip


def raw(path: str, image: np.ndarray, logits: np.ndarray, tolerance: float) -> Question:
    """Bytes in, bytes out: what a plain service takes."""
    headers = {"Content-Type": "application/octet-stream"}
    return Question(path, image.tobytes(), headers, lambda body, _: _near(body, logits, tolerance))


def form(path: str, image: np.ndarray, logits: np.ndarray, tolerance: float) -> Question:
    """The same as a form, for a server that takes no plain bytes."""
    head = b'--part\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n'
    question = raw(path, image, logits, tolerance)
    question.body = head + question.body + b"\r\n--part--\r\n"
    question.headers = {"Content-Type": "multipart/form-data; boundary=part"}
    return question


def encoded(name: str, image: bytes, label: str) -> Question:
    """An encoded image to our own address."""
    headers = {"Content-Type": "application/octet-stream"}
    return Question(f"/v2/models/{name}/predict", image, headers, lambda body, _: json.loads(body)["label"] == label)


def _near(content: bytes, logits: np.ndarray, tolerance: float) -> bool:
    if len(content) != logits.nbytes:
        return False
    found = np.frombuffer(content, np.float32)
    return bool(np.abs(found - logits.ravel()).max() <= tolerance * np.ptp(logits))


def ask(address: str, questions: Sequence[Question], clients: int, seconds: float) -> Answers:
    """Let so many threads, each with a connection of its own, ask in a circle for some seconds."""
    parts = urlsplit(address)
    requests = [question.request(parts.netloc) for question in questions]
    answers, lock = Answers(), threading.Lock()
    end = time.perf_counter() + seconds

    def one(first: int) -> None:
        connection = Connection(str(parts.hostname), parts.port or 80)
        own, other, number = [], {}, first
        while (begin := time.perf_counter()) < end:
            question, request = questions[number % len(questions)], requests[number % len(questions)]
            number += 1
            try:
                status, headers, body = connection.ask(request)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                other[type(error).__name__] = other.get(type(error).__name__, 0) + 1
                time.sleep(0.05)
                continue
            took = time.perf_counter() - begin
            if status == 200 and question.is_right(body, headers.get(HEADER_LENGTH.lower(), "")):
                own.append(took)
            else:
                key = "wrong" if status == 200 else str(status)
                other[key] = other.get(key, 0) + 1
        connection.close()
        with lock:
            answers.seconds += own
            for key, count in other.items():
                answers.other[key] = answers.other.get(key, 0) + count

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers.duration = time.perf_counter() - begin
    return answers


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running(command: Sequence[str | Path], port: int, environment: dict[str, str] | None = None) -> Iterator[int]:
    """A server in a process group of its own, until the block ends; gives its id once the port answers."""
    env = {**os.environ, **(environment or {})}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True
    )
    threading.Thread(target=_drain, args=(process,), daemon=True).start()
    try:
        for _ in range(1200):
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} ended with {process.returncode}")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/v2/health/ready")
                if connection.getresponse().status != 503:
                    break
            except OSError:
                time.sleep(0.1)
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):  # LitServe's workers outlive it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _drain(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if "Traceback" in line:
            sys.stderr.write(f"{process.args}: {line}")
