"""Golden images and answers: hostile arrays, wrong shapes, no numbers."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.golden import proves_nothing
from samdeploy.errors import BundleError
from tests.bundle.written import CONTENTS, FILES, IMAGES, LOGITS, SOUND, entry, npy, write_bundle


class Explosive:
    """Its pickle would run code."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os._exit, (13,)


def npy_header(text: str) -> bytes:
    body = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


def zipped() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=IMAGES)
    return buffer.getvalue()


GOLDEN = {
    "dtype": ("golden_images", npy(IMAGES.astype(np.float32)), "is float32 [2, 4, 5, 3], expected uint8 [n, 4, 5, 3]"),
    "size": ("golden_images", npy(IMAGES[:, :3]), "is uint8 [2, 3, 5, 3], expected uint8 [n, 4, 5, 3]"),
    "one image": ("golden_images", npy(IMAGES[0]), "is uint8 [4, 5, 3], expected uint8 [n, 4, 5, 3]"),
    "too many axes": ("golden_logits", npy(LOGITS[:, :, None]), "is float32 [2, 2, 1], expected float32 [n, 2]"),
    "doubles": ("golden_logits", npy(LOGITS.astype(np.float64)), "is float64 [2, 2], expected float32 [n, 2]"),
    "big endian": ("golden_logits", npy(LOGITS.astype(">f4")), "is >f4 [2, 2], expected float32 [n, 2]"),
    "Fortran order": (
        "golden_logits",
        npy(np.asfortranarray(LOGITS)),
        "is float32 [2, 2] in Fortran order, expected float32 [n, 2]",
    ),
    "classes": ("golden_logits", npy(np.zeros((2, 3), np.float32)), "is float32 [2, 3], expected float32 [n, 2]"),
    "pickled": (
        "golden_logits",
        npy(np.array([[Explosive(), 1]], dtype=object), allow_pickle=True),
        "is object [1, 2], expected float32 [n, 2]",
    ),
    "pickle without a header": ("golden_logits", b"\x80\x04cos\n_exit\nK\rR.", "is no .npy array (the magic string"),
    "archive": ("golden_images", zipped(), "is no .npy array (the magic string"),
    "empty": ("golden_images", b"", "is no .npy array ("),
    "truncated": ("golden_images", npy(IMAGES)[:-1], "has 119 bytes of numbers, its shape asks for 120"),
    "appended": ("golden_images", npy(IMAGES) + b"!", "has 121 bytes of numbers, its shape asks for 120"),
    "header cut": ("golden_images", npy(IMAGES)[:40], "is no .npy array ("),
    "a header of brackets": ("golden_images", npy_header("(" * 110), "is no .npy array ("),
    "a promise of terabytes": (
        "golden_images",
        npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 4, 5, 3)}"),
        "has 0 bytes of numbers, its shape asks for 60000000000000",
    ),
    "format 2.0": ("golden_images", b"\x93NUMPY\x02\x00" + bytes(100), "is no .npy array (version 2.0 of the format"),
}


def with_golden(root: Path, role: str, content: bytes) -> Bundle:
    """The bundle with another golden file, whose hash is right."""
    path = next(file.path for file in FILES if file.role == role)
    files = tuple(entry(role, path, content) if file.role == role else file for file in FILES)
    write_bundle(root, dataclasses.replace(SOUND, files=files), {**CONTENTS, path: content})
    return open_bundle(root)


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_arrays_that_do_not_fit(root: Path, name: str) -> None:
    role, content, text = GOLDEN[name]
    bundle = with_golden(root, role, content)
    with pytest.raises(BundleError) as caught:
        bundle.golden()
    path = next(file.path for file in FILES if file.role == role)
    assert str(caught.value).startswith(f"bundle {root}: {path!r} {text}")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_golden_answers_that_are_not_finite(root: Path, value: float) -> None:
    logits = LOGITS.copy()
    logits[1, 1] = value
    with pytest.raises(BundleError, match=r"golden answers are not finite; export it again$"):
        with_golden(root, "golden_logits", npy(logits)).golden()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_golden_images_and_answers_in_different_numbers(root: Path, count: int) -> None:
    images = np.zeros((count, 4, 5, 3), np.uint8)
    with pytest.raises(BundleError, match=f"{count} golden images, 2 golden answers found$"):
        with_golden(root, "golden_images", npy(images)).golden()


def test_a_test_of_no_images_is_no_test(root: Path) -> None:
    contents = {
        **CONTENTS,
        "golden/images.npy": npy(IMAGES[:0]),
        "golden/logits.npy": npy(LOGITS[:0]),
    }
    golden = (entry(file.role, file.path, contents[file.path]) for file in FILES[3:])
    write_bundle(root, dataclasses.replace(SOUND, files=(*FILES[:3], *golden)), contents)
    with pytest.raises(BundleError, match=r"0 golden images, 0 golden answers found$"):
        open_bundle(root).golden()


def test_no_golden_images_at_all(root: Path) -> None:
    write_bundle(root, dataclasses.replace(SOUND, files=FILES[:3]))
    with pytest.raises(BundleError, match=r"no file with role 'golden_images'; export it again$"):
        open_bundle(root).golden()


@pytest.mark.parametrize(
    ("images", "logits", "text"),
    [
        (np.repeat(IMAGES[:1], 2, axis=0), LOGITS, "all 2 golden images are equal"),
        (np.full_like(IMAGES, 255), LOGITS, "each of the 2 golden images has a single colour"),
        (IMAGES, np.repeat(LOGITS[:1], 2, axis=0), "all 2 golden answers are equal"),
        (IMAGES, LOGITS, ""),
        (IMAGES[:1], LOGITS[:1], ""),
    ],
)
def test_golden_images_that_prove_nothing(images: np.ndarray, logits: np.ndarray, text: str) -> None:
    assert proves_nothing(images, logits) == text
