"""What C++ makes of images, through cpp/tests/probe.cpp."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.spec import RESIZES, Preprocessing

MOST_PIXELS = 178_956_970

# (decoded, resized), or the status and the text of an error.
Answer = tuple[UInt8Array, UInt8Array] | tuple[int, str]


class Probe(Protocol):
    """Runs the program with a command and its arguments."""

    def __call__(self, *arguments: str | Path | int, stdin: str = "") -> object: ...


def job(size: Preprocessing, path: Path | str) -> str:
    """A line of what the command `images` reads; "=" for the path of the line before."""
    filter = next(name for name, resize in RESIZES.items() if resize == size.resize)
    return f"{size.height} {size.width} {size.resize_short or 0} {filter} {size.crop} {path}"


def ask(
    probe: Probe, folder: Path, jobs: Sequence[tuple[bytes, Preprocessing]], most: int = MOST_PIXELS
) -> list[Answer]:
    """What C++ makes of each image.  Where one has the bytes of the job before, it is not decoded again: [0, 0, 3]."""
    lines, out = [], folder / "out.bin"
    for index, (encoded, size) in enumerate(jobs):
        if index and encoded is jobs[index - 1][0]:
            lines.append(job(size, "="))
            continue
        (folder / f"{index}.img").write_bytes(encoded)
        lines.append(job(size, folder / f"{index}.img"))
    probe("images", out, most, stdin="\n".join(lines))
    data = io.BytesIO(out.read_bytes())
    answers: list[Answer] = []
    for _, size in jobs:
        status, first = struct.unpack("<ii", data.read(8))
        if status:
            answers.append((status, data.read(first).decode()))
            continue
        (width,) = struct.unpack("<i", data.read(4))
        whole = np.frombuffer(data.read(first * width * 3), np.uint8).reshape(first, width, 3)
        small = np.frombuffer(data.read(size.height * size.width * 3), np.uint8).reshape(size.height, size.width, 3)
        answers.append((whole, small))
    assert not data.read()
    return answers
