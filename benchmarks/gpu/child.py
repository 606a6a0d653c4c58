"""What every step has in common: its arguments, its result lines, and waiting for its turn on the GPU."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from networks import GPU, REHEARSAL, Plan


class NotRun(Exception):
    """This step cannot be done here; the text says why."""


def emit(**row: Any) -> None:
    """One result row; the parent has it as soon as it is printed, whatever becomes of this process later."""
    print("RESULT " + json.dumps(row), flush=True)


def reason(error: BaseException) -> str:
    """The first line of an error, with its type."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:300] if text else 'no text'}"


def wait_for_turn(work: Path, name: str) -> None:
    """Say that the preparations are done and wait until the parent gives the GPU to this step."""
    emit(kind="ready")
    while not (work / f"turn-{name}").exists():
        time.sleep(0.05)


def run(step: Callable[[Plan, Path, argparse.Namespace], None]) -> None:
    """Parse the arguments and do the step; a step that cannot be done says so and exits 0."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--name", default="")
    parser.add_argument("--px", type=int, default=0)
    parser.add_argument("--mode", default="")
    parser.add_argument("--prepare-seconds", type=float, default=1e9)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    plan = REHEARSAL if options.rehearse else GPU
    if plan.device == "cuda":
        # Stepping aside here keeps a machine without a GPU from failing in a different way in every step.
        if not torch.cuda.is_available():
            emit(kind="step", status="not run: PyTorch sees no CUDA device")
            return
        torch.backends.cudnn.benchmark = True
    try:
        step(plan, options.work, options)
    except NotRun as error:
        emit(kind="step", status=f"not run: {error}")
