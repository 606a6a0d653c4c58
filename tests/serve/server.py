"""A server, started as a user starts it."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# What serving imports; where an extra is not installed, nothing of it is tried.
NEEDED = ("starlette", "uvicorn", "httptools", "prometheus_client", "python_multipart", "grpc", "onnxruntime")


@dataclass
class Served:
    """One running server."""

    process: subprocess.Popen[str]
    port: int
    grpc_port: int
    first_lines: list[str] = field(default_factory=list)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, Mapping[str, str]]:
        connection = self.connect()
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers  # type: ignore[return-value]
        finally:
            connection.close()

    def json(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, content, _ = self.ask(method, path, body, named)
        return status, json.loads(content)

    def metric(self, name: str, *labels: str) -> float:
        """The sum of the metric's lines that hold all of the labels."""
        text = self.ask("GET", "/metrics")[1].decode()
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in labels))


@contextmanager
def serving(environment: Mapping[str, str], *arguments: str | Path) -> Iterator[Served]:
    """A server at free ports of the loopback; it must end with exit code 0 and without a traceback."""
    for module in NEEDED:
        pytest.importorskip(module, reason="pip install 'samdeploy[serve,onnxruntime]'")
    grpc_port = () if "--grpc-port" in arguments else ("--grpc-port", "0")
    command = [sys.executable, "-m", "samdeploy", "serve", *map(str, arguments), "--port", "0", *grpc_port]
    process = subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        address = process.stdout.readline()
        assert address.startswith("http"), process.communicate(timeout=30)
        lines: list[str] = []
        while not (lines and (grpc := re.search(r"grpc \S+:(\d+)", lines[-1]))):
            lines.append(process.stderr.readline())
            assert lines[-1]
        yield Served(process, int(address.rpartition(":")[2]), int(grpc[1]), lines)
        was_killed = process.poll() == -signal.SIGKILL
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors  # whatever its clients did
        assert was_killed or (out, process.returncode) == ("", 0), errors
    finally:
        process.kill()
        process.wait()
