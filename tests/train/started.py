"""`samdeploy` in a process of its own that need not import torch anew; see the fixture `start`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from pytest import MonkeyPatch

SMALL = "SAMDEPLOY_TESTS_SMALL_NETWORK"


def make_small(patch: MonkeyPatch) -> None:
    """SAM-ResNet-18 has 80,000 weights instead of 12 million; no curves are drawn, which takes longer still."""
    from samdeploy.models.sam_resnet import resnet
    from samdeploy.train.watch import curves

    patch.setattr(curves, "draw_curves", lambda *_: None)
    patch.setitem(resnet.ARCHITECTURES, "sam-resnet18", (resnet.BasicBlock, (1, 1, 1, 1)))
    patch.setattr(resnet, "WIDTHS", (8, 16, 32, 64))


class Started:
    """A process with signals, output and an exit code."""

    def __init__(
        self, context: ForkServerContext, arguments: tuple[str, ...], cwd: Path, variables: Mapping[str, str]
    ) -> None:
        self._out, self._said = (cwd / f"{name}-{time.monotonic_ns()}" for name in ("out", "said"))
        self.process: BaseProcess = context.Process(
            target=_samdeploy, args=(arguments, str(cwd), str(self._out), str(self._said), dict(variables))
        )
        self.process.start()

    @property
    def out(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    @property
    def said(self) -> str:
        """What it wrote on standard error so far."""
        return self._said.read_text() if self._said.exists() else ""

    def wait_until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Until `condition()` holds; it is an error if the process ends before."""
        until = time.monotonic() + seconds
        while not condition():
            assert self.process.is_alive() and time.monotonic() < until, self.said
            time.sleep(0.01)

    def send(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self, seconds: float = 120) -> int:
        """Its exit code; as in `subprocess`, minus the signal that killed it."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, self.said
        return self.process.exitcode


def _samdeploy(arguments: tuple[str, ...], cwd: str, out: str, said: str, variables: dict[str, str]) -> None:
    for path, number in ((out, 1), (said, 2)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(handle, number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.chdir(cwd)
    os.environ |= variables
    sys.argv = ["samdeploy", *arguments]
    from samdeploy.cli import main

    if variables.get(SMALL):
        make_small(MonkeyPatch())
    main()
