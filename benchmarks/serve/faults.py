"""The machine fails under a server: its clock jumps, its disk is full.  hostile.py runs both.

Each gives what was seen, with `failed` where anything was wrong, or `not_run` with the reason.
"""

from __future__ import annotations

import errno
import http.client
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from load import Answers, Question, ask, free_port, infer
from PIL import Image

# One after the other, as faketime writes offsets: a day, years, back behind the start, and the true time again.
JUMPS = ("+1d", "+10y", "-1d", "-5y", "+0", "+1h", "-1h", "+0")
MODEL = "/v2/models/model"
# Microseconds that a request may wait: enough always, though less than a jump, and never.
ENOUGH, NEVER = 60_000_000, 1


def clock(command: Sequence[str], image: np.ndarray, logits: np.ndarray) -> dict[str, object]:
    """The wall clock jumps while requests wait: right answers, and deadlines that stay what they were."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    if library is None:
        return {"not_run": "needs the package faketime"}
    with tempfile.TemporaryDirectory() as folder:
        offset = Path(folder) / "offset"
        offset.write_text("+0")
        faked = {
            **os.environ, "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(offset),
            # The kernel's monotonic clock never jumps.
            "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
        port = free_port()
        options = ("--port", str(port), "--body-seconds", "2", "--timeout", "60", "--selftest-every", "0.2")
        with _served([*command, *options], port, faked) as process:
            patient = infer("model", image, logits, 1e-3, timeout=ENOUGH)
            asking = _Asking(port, [infer("model", image, logits, 1e-3), patient])
            half = _half_a_body(port)
            began, seen, ready, hurried = time.monotonic(), {}, Counter[int](), Counter[str]()
            for jump in JUMPS:
                for _ in range(100):  # so often that requests are caught between queue and engine
                    _replace(offset, "+0")
                    time.sleep(0.003)
                    _replace(offset, jump)
                    time.sleep(0.003)
                say_time = [sys.executable, "-c", "import time; print(time.time())"]
                seen[jump] = round(float(subprocess.check_output(say_time, env=faked)) - time.time())
                ready[_status(port, "GET", "/v2/health/ready")] += 1
                late = ask(f"http://127.0.0.1:{port}", [infer("model", image, logits, 1e-3, timeout=NEVER)], 1, 0.3)
                hurried.update(late.other)
                hurried["right"] += len(late.seconds)
            status = half.recv(100).split(b" ")[1].decode()
            waited = round(time.monotonic() - began, 1)
            answers = asking.stop()
    failed = [
        f"the clock did not jump: {seen}" * (abs(seen["+1d"] - 86400) > 5),
        f"not right: {answers.other}" * bool(answers.other or not answers.seconds),
        f"not ready: {ready}" * (set(ready) != {200}),
        f"deadlines that do not pass: {hurried}" * (hurried["504"] < 2 * hurried["right"] or len(hurried) > 2),
        f"half a body: {status} after {waited} s" * (status != "408"),
        f"exit code {process.returncode}" * bool(process.returncode),
    ]
    return {
        "jumps_s": seen, "right": len(answers.seconds), "other": answers.other, "ready": dict(ready),
        "asked_with_1_us": dict(hurried), "half_a_body": status, "failed": [*filter(None, failed)],
    }  # fmt: skip


def disk(command: Sequence[str], image: np.ndarray, logits: np.ndarray) -> dict[str, object]:
    """Whatever two workers may write to is full: their folder, home, temporary files and log."""
    place, port = Path(tempfile.mkdtemp()), free_port()
    mounted = f"mount -t tmpfs -o size=256k none {place} && cd {place} && export TMPDIR={place} HOME={place}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mounted], capture_output=True).returncode:
        return {"not_run": "this user may not mount a tmpfs in a namespace"}
    shell = ["unshare", "-rm", "sh", "-c", f'{mounted} && exec "$@" 2>log', "sh"]
    with _served([*shell, *command, "--port", str(port), "--workers", "2"], port, dict(os.environ)) as process:
        inside = Path(f"/proc/{process.pid}/root{place}")
        while b"2 workers" not in (inside / "log").read_bytes():  # the first answers before the second is started
            time.sleep(0.1)
        _fill(inside / "rest")
        workers, log = _children(process.pid), (inside / "log").stat().st_size
        asking = _Asking(port, [infer("model", image, logits, 1e-3)])
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        # Larger than what forms are spooled from, elsewhere.
        part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + file.getvalue() + b"\r\n"
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        statuses = {
            "predict": _status(port, "POST", MODEL + "/predict", file.getvalue()),
            "form of 60 images": _status(port, "POST", MODEL + "/predict", 60 * part + b"--x--\r\n", form),
            "explain": _status(port, "POST", MODEL + "/explain", file.getvalue()),
            "metrics": _status(port, "GET", "/metrics"),
        }
        for _ in range(200):  # each is worth a line in the log
            with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                client.sendall(b"no HTTP\r\n\r\n")
                client.recv(100)
        answers = asking.stop()
        left, grown = os.statvfs(inside).f_bavail, (inside / "log").stat().st_size - log
        same = workers == _children(process.pid)
    failed = [
        f"the disk is not full: {left} blocks left" * bool(left),
        f"not right: {answers.other}" * bool(answers.other or not answers.seconds),
        f"not answered: {statuses}" * (set(statuses.values()) != {200}),
        "workers died" * (not same),
        f"exit code {process.returncode}" * bool(process.returncode),
    ]
    return {
        "right": len(answers.seconds), "other": answers.other, **statuses, "log_grew_by": grown,
        "workers_lived": same, "failed": [*filter(None, failed)],
    }  # fmt: skip


@contextmanager
def _served(command: Sequence[str], port: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A server that is ready; it has ended when the block has."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        while _status(port, "GET", "/v2/health/ready") != 200:
            if process.poll() is not None:
                raise SystemExit(f"{command} ended with {process.returncode}")
            time.sleep(0.2)
        yield process
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
        process.wait()


class _Asking:
    """Four clients, until they are stopped."""

    def __init__(self, port: int, questions: list[Question]) -> None:
        self._ending, self._answers = threading.Event(), Answers()
        self._thread = threading.Thread(target=self._run, args=(f"http://127.0.0.1:{port}", questions), daemon=True)
        self._thread.start()

    def _run(self, address: str, questions: list[Question]) -> None:
        while not self._ending.is_set():
            found = ask(address, questions, 4, 1)
            self._answers.seconds += found.seconds
            for key, count in found.other.items():
                self._answers.other[key] = self._answers.other.get(key, 0) + count

    def stop(self) -> Answers:
        self._ending.set()
        self._thread.join()
        return self._answers


def _status(port: int, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> int:
    """Of an answer; 0: nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def _half_a_body(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(f"POST {MODEL}/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf".encode())
    return connection


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def _children(pid: int) -> set[str]:
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
