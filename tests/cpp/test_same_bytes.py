"""Decode and resize give the same bytes in C++ and in Python, for every kind of image."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.spec import RESIZES, Crop, Preprocessing
from samdeploy.errors import ImageError
from samdeploy.images.decode import decode, prepare, resize
from tests.cpp import corpus
from tests.cpp.ask import ask
from tests.cpp.conftest import Probe

IMAGE, IMAGE_TOO_LARGE = 11, 12

BICUBIC = RESIZES["bicubic"]
TARGETS = (
    Preprocessing(32, 32),
    Preprocessing(45, 64, resize=BICUBIC),
    Preprocessing(33, 28, "center_crop", 40),
    Preprocessing(64, 64, "center_crop", 64, resize=BICUBIC, crop="half-even"),
    Preprocessing(1, 7),
    Preprocessing(33, 28, "center_crop", 40, crop="half-even"),
    Preprocessing(40, 31, "center_crop", 41, resize=BICUBIC),
)


def compare(probe: Probe, folder: Path, images: list[tuple[str, bytes]]) -> list[str]:
    """Names of the images that the two readers see differently."""
    jobs = [(encoded, TARGETS[i % len(TARGETS)]) for i, (_, encoded) in enumerate(images)]
    wrong = []
    for (name, encoded), (_, size), answer in zip(images, jobs, ask(probe, folder, jobs), strict=True):
        expected = decode(encoded)
        if isinstance(answer[0], int):
            wrong.append(f"{name}: {answer}")
        elif not np.array_equal(answer[0], expected):
            wrong.append(f"{name}: decoded {answer[0].shape} differs from {expected.shape}")
        elif not np.array_equal(answer[1], resize(expected, size)):
            wrong.append(f"{name}: resized to {size} differs")
    return wrong


def test_jpeg(probe: Probe, tmp_path: Path) -> None:
    images = list(corpus.jpegs())
    assert len(images) > 60
    assert compare(probe, tmp_path, images) == []


def test_png(probe: Probe, tmp_path: Path) -> None:
    images = list(corpus.pngs())
    assert len(images) > 100
    assert compare(probe, tmp_path, images) == []


def many_sizes(count: int) -> Iterator[tuple[UInt8Array, Preprocessing]]:
    """Resizes of each image with every filter and crop in turn."""
    generator = np.random.default_rng(7)
    for _ in range(count):
        height, width, target_height, target_width = (int(side) for side in generator.integers(1, 120, 4))
        short = max(target_height, target_width) + int(generator.integers(20))
        image = corpus.pixels(height, width)
        for resize_name in RESIZES.values():
            yield image, Preprocessing(target_height, target_width, resize=resize_name)
            for crop in ("floor", "half-even"):
                yield (
                    image,
                    Preprocessing(
                        target_height, target_width, "center_crop", short, resize=resize_name, crop=cast("Crop", crop)
                    ),
                )


def test_resize_of_many_sizes(probe: Probe, tmp_path: Path) -> None:
    jobs, expected = [], []
    for image, size in many_sizes(80):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG", compress_level=1)
        jobs.append((file.getvalue(), size))
        expected.append(resize(image, size))
    answers = ask(probe, tmp_path, jobs)
    assert [jobs[i][1] for i, answer in enumerate(answers) if not np.array_equal(answer[1], expected[i])] == []


def damaged() -> list[tuple[str, bytes]]:
    """Images that neither reader may take."""
    photo = corpus.jpeg(Image.fromarray(corpus.pixels(90, 120)))
    drawing = corpus.png(40, 30, 8, 2)
    transparent = corpus.chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    cuts = [(f"jpeg cut at {at}", photo[:at]) for at in (3, 20, 200, len(photo) // 2, len(photo) - 2)]
    cuts += [(f"png cut at {at}", drawing[:at]) for at in (8, 20, 33, 60, len(drawing) // 2)]
    return [
        *cuts,
        ("empty", b""),
        ("text", b"no image at all"),
        ("gif start", b"GIF89a" + bytes(40)),
        ("16 bit with a transparent colour", corpus.png(5, 5, 16, 2, before=transparent)),
        ("4 bit with a transparent colour", corpus.png(5, 5, 4, 0, before=corpus.chunk(b"tRNS", b"\0\3"))),
        ("short tRNS", corpus.png(5, 5, 8, 2, before=corpus.chunk(b"tRNS", b"\0\1"))),
        ("jpeg of no size", photo.replace(struct.pack(">HH", 90, 120), struct.pack(">HH", 0, 120))),
        ("png of no size", drawing.replace(struct.pack(">II", 30, 40), struct.pack(">II", 0, 40))),
    ]


def test_damaged_images_are_refused_by_both(probe: Probe, tmp_path: Path) -> None:
    for name, encoded in damaged():
        with pytest.raises(ImageError):
            pytest.fail(f"{name}: {decode(encoded).shape}")
    answers = ask(probe, tmp_path, [(encoded, TARGETS[0]) for _, encoded in damaged()])
    assert [name for (name, _), answer in zip(damaged(), answers, strict=True) if answer[0] != IMAGE] == []
    texts = [str(answer[1]) for answer in answers]
    assert "damaged or truncated (JPEG: the file ends before EOI); expected a complete image" in texts[3]
    assert any("transparent colour beside 2, 4 or 16 bits" in text for text in texts)


def test_files_with_wrong_bytes_are_taken_or_refused_by_both(probe: Probe, tmp_path: Path) -> None:
    generator = np.random.default_rng(6)
    sound = [content for _, content in (*corpus.jpegs(), *corpus.pngs()) if len(content) < 6000]
    files = []
    for _ in range(300):
        content = bytearray(sound[int(generator.integers(len(sound)))])
        reach = min(len(content), int(generator.choice([100, 700, 6000])))
        content[int(generator.integers(reach))] = int(generator.choice([0, 1, 255, generator.integers(256)]))
        files.append(bytes(content))
    at = sound[0].index(b"\xff\xc0") + 5
    files.append(sound[0][:at] + struct.pack(">HH", 9000, 9000) + sound[0][at + 4 :])  # fewer bits than blocks
    taken = []
    for content in files:
        try:
            taken.append(bool(decode(content).size))
        except ImageError:
            taken.append(False)
    answers = ask(probe, tmp_path, [(content, TARGETS[0]) for content in files])
    assert [not isinstance(answer[0], int) for answer in answers] == taken
    assert 30 < sum(taken) < 270 and not taken[-1]


def test_a_png_that_is_not_whole_is_refused_by_both(probe: Probe, tmp_path: Path) -> None:
    """Cut anywhere, with a wrong checksum, or with fewer rows than its header says: never an answer in one of them."""
    whole = corpus.png(20, 11, 8, 2)
    ends = [*range(8, len(whole), 5), *range(len(whole) - 16, len(whole))]
    flipped = bytearray(whole)
    flipped[whole.index(b"IEND") - 5] ^= 1  # of the pixels' checksum
    header = struct.pack(">IIBBBBB", 11, 21, 8, 2, 0, 0, 0)
    taller = whole[:8] + corpus.chunk(b"IHDR", header) + whole[33:]
    images = [*(whole[:end] for end in ends), bytes(flipped), taller]
    for encoded in images:
        with pytest.raises(ImageError):
            decode(encoded)
    answers = ask(probe, tmp_path, [(encoded, TARGETS[0]) for encoded in images])
    assert [answer[0] for answer in answers] == [IMAGE] * len(images)
    assert np.array_equal(ask(probe, tmp_path, [(whole, TARGETS[0])])[0][0], decode(whole))


def test_a_side_that_is_too_long_is_refused_by_both(probe: Probe, tmp_path: Path) -> None:
    """Tall, so that what lies between the passes is small."""
    rows = 2**20 + 1
    header = struct.pack(">IIBBBBB", 1, rows, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(2 * rows), 1)
    encoded = b"\x89PNG\r\n\x1a\n" + b"".join(
        corpus.chunk(kind, data) for kind, data in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    )
    with pytest.raises(ImageError, match=r"1x1048577 pixels .* are too long and thin to be brought to 3x3"):
        prepare(encoded, Preprocessing(3, 3))
    ((status, text),) = ask(probe, tmp_path, [(encoded, Preprocessing(3, 3))])
    assert status == IMAGE_TOO_LARGE and "1x1048577 pixels (width x height) are too long and thin" in str(text)


def bomb(side: int) -> bytes:
    """A PNG of a hundred bytes that claims side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + corpus.chunk(b"IHDR", header)
        + corpus.chunk(b"IDAT", b"x\x9c")
        + corpus.chunk(b"IEND", b"")
    )


def test_bombs_are_refused_by_both(probe: Probe, tmp_path: Path) -> None:
    photo = corpus.jpeg(Image.fromarray(corpus.pixels(8, 8)))
    at = photo.index(b"\xff\xc0") + 5
    images = [bomb(13_378), bomb(2**31 - 1), photo[:at] + struct.pack(">HH", 65_500, 65_500) + photo[at + 4 :]]
    for encoded in images:
        with pytest.raises(ImageError, match="too many pixels"):
            decode(encoded)
    thin = corpus.png(1, 60_000, 1, 0)
    with pytest.raises(ImageError, match="too long and thin"):
        resize(decode(thin), Preprocessing(3000, 3000))
    jobs = [*((encoded, TARGETS[0]) for encoded in images), (thin, Preprocessing(3000, 3000))]
    answers = ask(probe, tmp_path, jobs)
    assert [answer[0] for answer in answers] == [IMAGE_TOO_LARGE] * 4
    assert "13378x13378 found, at most 178956970 allowed" in str(answers[0][1])
    assert "60000x1 pixels (width x height) are too long and thin to be brought to 3000x3000" in str(answers[3][1])


@pytest.mark.parametrize("kind", [b"eXIf", b"tEXt", b"IDAT", b"PLTE"])
def test_what_a_chunk_promises_is_not_reserved(kind: bytes, probe: Probe, tmp_path: Path) -> None:
    """A file of some hundred bytes whose chunk claims 2 GiB; libpng alone would ask for them (found by fuzzing)."""
    whole = corpus.png(20, 11, 8, 2)
    at = whole.index(b"IDAT") - 4
    encoded = whole[:at] + struct.pack(">I", 2**31 - 100) + kind + whole[at + 8 :]
    with pytest.raises(ImageError):
        decode(encoded)
    [(status, text)] = ask(probe, tmp_path, [(encoded, TARGETS[0])])
    assert status == IMAGE
    assert "ends in the middle of chunk" in str(text)


def test_the_pixel_limit_can_be_set(probe: Probe, tmp_path: Path) -> None:
    jobs = [(corpus.png(10, 10, 8, 0), TARGETS[0]), (corpus.png(10, 11, 8, 0), TARGETS[0])]
    first, second = ask(probe, tmp_path, jobs, most=100)
    assert not isinstance(first[0], int)
    assert second[0] == IMAGE_TOO_LARGE
