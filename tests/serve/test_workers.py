"""`samdeploy serve --workers`: processes that share a port, and die."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import Bundle
from samdeploy.serve.workers import Workers
from tests.conftest import Command
from tests.serve.server import Served, serving
from tests.serve.test_http import DIGITS, binary_request

COUNT = 2


@pytest.fixture
def served(digits_bundle: Bundle, environment: dict[str, str]) -> Iterator[Served]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--backend", "onnxruntime", "--workers", str(COUNT), "--grpc-port", str(port))
    with serving(environment, f"digits={digits_bundle.root}", *options) as server:
        yield server


def workers(parent: int) -> list[int]:
    return [
        int(child)
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def wait_until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def all_workers(served: Served) -> list[int]:
    """The second one starts when the first is ready."""
    wait_until(lambda: len(workers(served.process.pid)) == COUNT)
    return workers(served.process.pid)


def refuses(served: Served) -> bool:
    try:
        socket.create_connection(("127.0.0.1", served.port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_killed_worker_takes_nothing_but_its_own_requests(served: Served, digits_bundle: Bundle) -> None:
    images, logits = digits_bundle.golden()
    body, headers = binary_request(images[:4], {"name": "logits", "parameters": {"binary_data": True}})
    before = all_workers(served)

    def ask(number: int) -> str:
        if number == 100:
            os.kill(before[0], signal.SIGKILL)
        try:
            status, content, about = served.ask("POST", DIGITS + "/infer", body, headers)
        except (http.client.HTTPException, OSError):
            return "cut off"
        front = int(about["Inference-Header-Content-Length"])
        found = np.frombuffer(content[front:], np.float32).reshape(4, -1)
        return "right" if status == 200 and np.allclose(found, logits[:4], atol=1e-3) else "wrong"

    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(ask, range(400)))
    assert "wrong" not in answers
    assert answers.count("cut off") <= 16  # what it held when it was killed
    wait_until(lambda: len(workers(served.process.pid)) == COUNT)
    assert served.json("GET", "/v2/health/ready") == (200, {"ready": True})
    # Of all workers, whichever is asked; what the dead one had counted is not lost.
    answered = served.metric("samdeploy_requests_total", 'endpoint="infer"', 'code="200"')
    assert answered >= answers.count("right")
    # Answers are counted ten times a second: those of its last moment are missing.
    missing = 4 * answered - served.metric("samdeploy_answers_total", 'model="digits"')
    assert 0 <= missing < 4 * answered / 2
    # At the end connections are refused at once, while a worker waits for the rest of a request that it has begun.
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        head = f"POST {DIGITS}/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
        client.sendall(head.encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
        served.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(served), 5)
        client.sendall(b"x")
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")


def metrics_folder(worker: int) -> Path:
    environment = Path(f"/proc/{worker}/environ").read_bytes().split(b"\0")
    name = b"PROMETHEUS_MULTIPROC_DIR="
    [folder] = [Path(os.fsdecode(entry.removeprefix(name))) for entry in environment if entry.startswith(name)]
    assert folder.is_dir()
    return folder


def test_a_closed_terminal_leaves_nothing(served: Served) -> None:
    children = all_workers(served)
    folder = metrics_folder(children[0])
    for process in (*children, served.process.pid, served.process.pid):  # the shell and the kernel send one each
        os.kill(process, signal.SIGHUP)
    assert served.process.wait(30) == 0
    assert not folder.exists()


def test_a_second_signal_ends_a_worker_that_is_stopped(served: Served) -> None:
    children = all_workers(served)
    folder = metrics_folder(children[0])
    os.kill(children[0], signal.SIGSTOP)
    served.process.send_signal(signal.SIGTERM)
    other = Path(f"/proc/{children[1]}/stat")
    wait_until(lambda: other.read_text().rpartition(")")[2].split()[0] == "Z", 10)  # as it was asked by its parent
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(10) == 0
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert not folder.exists()


def hang(settings: object, listening: socket.socket, ready: Callable[[str], None]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready("ready")
    time.sleep(60)


def test_a_worker_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    made = Workers(hang, None, socket.create_server(("127.0.0.1", 0)), 1, longest_end=0.1)
    process, ready = made._start()
    assert ready.recv() == "ready"
    made._end()
    assert process.exitcode == -signal.SIGKILL


def test_workers_end_with_their_parent_and_leave_nothing(served: Served) -> None:
    children = workers(served.process.pid)
    folder = metrics_folder(children[0])
    served.process.kill()
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    with pytest.raises(OSError):
        served.ask("GET", "/v2/health/live")
    assert not folder.exists()


def test_a_bundle_that_cannot_be_served_is_named_once(command: Command, tmp_path: Path) -> None:
    done = command("serve", tmp_path / "none", "--port", "0", "--workers", "3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("samdeploy: bundle") == 1
