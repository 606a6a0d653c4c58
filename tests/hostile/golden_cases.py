"""Golden files that lie, in bundles whose manifest states their hashes."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from tests.hostile.conftest import npy
from tests.hostile.damage import Damage, content


def header(descr: str, shape: str, *, order: str = "False", extra: str = "") -> bytes:
    """The head of a .npy file."""
    literal = f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, {extra}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(literal)) + literal


IMAGES, LOGITS = "golden/images.npy", "golden/logits.npy"
PIXELS, ANSWERS = bytes(120), struct.pack("<4f", 1.5, -2.0, 0.25, 1e-3)


def golden(path: str, new: bytes) -> Damage:
    return content(path, lambda _: new)


def swapped_golden(root: Path) -> None:
    images, logits = (root / IMAGES).read_bytes(), (root / LOGITS).read_bytes()
    (root / IMAGES).write_bytes(logits), (root / LOGITS).write_bytes(images)


def no_images(root: Path) -> None:
    (root / IMAGES).write_bytes(header("|u1", "(0, 4, 5, 3)"))
    (root / LOGITS).write_bytes(header("<f4", "(0, 2)"))


# The manifest states the hashes of what is there: only the content itself can show that it is wrong.
SEALED: dict[str, tuple[Damage, str]] = {
    "10 GB in a header": (golden(IMAGES, header("|u1", "(166666666, 4, 5, 3)") + PIXELS), "bytes of numbers"),
    "2**62 images": (golden(IMAGES, header("|u1", f"({2**62}, 4, 5, 3)") + PIXELS), "npy"),
    "product wraps around": (golden(LOGITS, header("<f4", f"({2**61}, 2)")), "npy"),
    "count beyond 64 bits": (golden(LOGITS, header("<f4", "(1" + "0" * 30 + ", 2)") + ANSWERS), "npy"),
    "count below zero": (golden(LOGITS, header("<f4", "(-2, 2)") + ANSWERS), "npy"),
    "Fortran order": (golden(LOGITS, header("<f4", "(2, 2)", order="True") + ANSWERS), "in Fortran order"),
    "objects": (golden(LOGITS, header("|O", "(2, 2)") + b"cos\nsystem\n"), "npy"),
    "another type": (golden(LOGITS, npy(np.zeros((2, 2)))), "expected"),
    "another byte order": (golden(LOGITS, header(">f4", "(2, 2)") + ANSWERS), "expected"),
    "another size": (golden(IMAGES, npy(np.zeros((2, 5, 4, 3), np.uint8))), "expected"),
    "too few axes": (golden(IMAGES, header("|u1", "(120,)") + PIXELS), "expected"),
    "version 2": (golden(LOGITS, npy(np.zeros((2, 2), np.float32)).replace(b"Y\x01\x00", b"Y\x02\x00")), "npy"),
    "code for a header": (golden(LOGITS, header("<f4", "(2, __import__('os').getpid())") + ANSWERS), "no .npy array"),
    "another key": (golden(LOGITS, header("<f4", "(2, 2)", extra="'x': 1") + ANSWERS), "no .npy array"),
    "header longer than the file": (golden(LOGITS, b"\x93NUMPY\x01\x00\xff\xff{'descr'"), "no .npy array"),
    "no array": (golden(LOGITS, b"PK\x03\x04"), "no .npy array"),
    "empty array file": (golden(LOGITS, b""), "no .npy array"),
    "bytes behind the numbers": (golden(LOGITS, header("<f4", "(2, 2)") + ANSWERS + b"x"), "bytes of numbers"),
    "one answer too few": (golden(LOGITS, npy(np.zeros((1, 2), np.float32))), "golden answers found"),
    "no images": (no_images, "golden answers found"),
    "answer that is no number": (golden(LOGITS, npy(np.full((2, 2), np.nan, np.float32))), "not finite"),
    "swapped golden files": (swapped_golden, "expected"),
}
