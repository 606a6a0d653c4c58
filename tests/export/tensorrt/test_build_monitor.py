"""A build that is ended: by an error of the caller's progress, and by Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.export.tensorrt.graphs import rtx_engine, tiny_graph

pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")


class Unwanted(Exception):
    """What a caller's progress may raise."""


def test_an_error_in_progress_ends_the_build() -> None:
    calls: list[int] = []

    def progress(count: int, phase: str) -> None:
        calls.append(count)
        if sum(calls) == 3:
            raise Unwanted(phase)

    with pytest.raises(Unwanted):
        rtx_engine(tiny_graph(), progress=progress)
    assert sum(calls) == 3


INTERRUPTED = """
import os, signal, sys, threading, time
from pathlib import Path
from samdeploy.export.tensorrt.build import build_engine

large, small = (Path(name).read_bytes() for name in sys.argv[1:])
steps, first = [], threading.Lock()

def progress(count, phase):
    if first.acquire(blocking=False):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)  # for the main thread to see it
    steps.append(count)

try:
    build_engine(large, engine="trt-rtx", target="SM86", progress=progress)
except KeyboardInterrupt:
    assert len(steps) < 20, steps  # of about 150
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tensorrt-build")]
    assert build_engine(small, engine="trt-rtx", target="SM86").plan  # the package can be used again
    print("ended and usable")
"""


def test_ctrl_c_ends_the_build_and_leaves_nothing(resnet18: Callable[[str], bytes], tmp_path: Path) -> None:
    """In a process of its own: where the signal comes late, it must not end the run of all tests."""
    large, small = tmp_path / "large.onnx", tmp_path / "small.onnx"
    large.write_bytes(resnet18("fp16"))
    small.write_bytes(tiny_graph().SerializeToString())
    command = [sys.executable, "-c", INTERRUPTED, str(large), str(small)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.stdout == "ended and usable\n", ended.stderr
