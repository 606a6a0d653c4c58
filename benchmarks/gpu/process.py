"""A step in a process of its own: its rows arrive as they are printed, and its end cannot take the others along."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO


class Child:
    """A running step.

    Attributes:
        rows: results so far.
        status: "ok", "not run: ..." or "failed: ...", once it has ended.
        seconds: from start to end.
    """

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name, self.rows, self.status, self.seconds = name, [], "", 0.0
        self._ready = threading.Event()
        self._begun = time.monotonic()
        self._log = log
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, *command], stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
            )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    rows: list[dict[str, Any]]

    def _read(self, stream: TextIO) -> None:
        for line in stream:
            if line.startswith("RESULT "):
                row = json.loads(line.removeprefix("RESULT "))
                if row["kind"] == "ready":
                    self._ready.set()
                elif row["kind"] == "step":
                    self.status = row["status"]
                else:
                    self.rows.append(row)
        self._ready.set()

    def wait_ready(self, seconds: float) -> bool:
        """Wait until the step waits for its turn, or ends; False if it does neither in time."""
        return self._ready.wait(max(0.0, seconds))

    def finish(self, seconds: float) -> None:
        """Wait for the end; kill the step, and what it started, where that takes longer."""
        try:
            code = self._process.wait(max(0.1, seconds))
            self._reader.join(5)
            if not self.status:
                self.status = "ok" if code == 0 else f"failed: {self._ending(code)}"
        except subprocess.TimeoutExpired:
            self.kill()
            self.status = f"failed: stopped after {time.monotonic() - self._begun:.0f} s, its time being spent"
        self.seconds = round(time.monotonic() - self._begun, 1)

    def kill(self) -> None:
        """End the process group that this object started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _ending(self, code: int) -> str:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f"{how}; {lines[-1][:300]}" if lines else how
