"""Freed memory stays with a training, and with nobody else; each in a process of its own, since it is its memory."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc here")

BYTES = 96 << 20  # glibc would ask the kernel for each block of this size
PROGRAM = f"""
import json, resource
from contextlib import suppress
from pathlib import Path
import torch
from samdeploy.train.loop.host_memory import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones({BYTES}, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

found = {{"usual": faults()}}
with suppress(ZeroDivisionError), freed_memory_kept():
    faults()
    found |= {{"kept": faults(), "resident_inside": resident()}}
    1 / 0
found["resident_after"] = resident()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, int]:
    """Page faults of ten blocks that are used and freed one after the other, and bytes in memory."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=120)
    values: dict[str, int] = json.loads(done.stdout)
    return values


def test_a_block_that_was_freed_is_not_asked_for_again(found: dict[str, int]) -> None:
    assert found["kept"] < found["usual"] / 5


def test_afterwards_it_is_given_back_whatever_happened(found: dict[str, int]) -> None:
    assert found["resident_inside"] - found["resident_after"] > BYTES / 2
