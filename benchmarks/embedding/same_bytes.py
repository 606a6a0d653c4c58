#!/usr/bin/env python3
"""Python and C++ on the same pictures: differing bytes after decoding and resizing, differing logits.  Prints JSON.

    python benchmarks/embedding/same_bytes.py BUNDLE [--pictures 1000] [--backend openvino] [--precision fp32]

The pictures are those of tests/cpp/corpus.py (every kind of JPEG and PNG, EXIF, 4000x3000) and, up to the number asked
for, JPEGs and PNGs of random size, kind and content.  Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from samdeploy.arrays import UInt8Array

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from samdeploy import open_bundle, open_session  # noqa: E402  (the path above makes the working copy come first)
from samdeploy.bundle import Bundle  # noqa: E402
from samdeploy.images.decode import decode, resize  # noqa: E402
from tests.cpp import build as cpp_build  # noqa: E402
from tests.cpp import corpus  # noqa: E402

BATCH = 8
_PNG_KINDS = ((0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (6, 8))


def pictures() -> Iterator[tuple[str, bytes]]:
    """Names and encoded pictures, without end."""
    yield from corpus.jpegs()
    yield from corpus.pngs()
    generator = np.random.default_rng(2026)
    index = 0
    while True:
        height, width = (int(2 ** generator.uniform(0, 10.5)) for _ in range(2))
        if generator.integers(4):
            image = Image.fromarray(corpus.pixels(height, width, index))
            mode = ("RGB", "RGB", "RGB", "L", "CMYK")[generator.integers(5)]
            exif = b"Exif\0\0" + corpus.tiff_orientation(int(generator.integers(1, 9)), order="<>"[index % 2])
            options = {
                "quality": int(generator.integers(5, 100)),
                "subsampling": int(generator.integers(3)),
                "progressive": bool(generator.integers(2)),
                "exif": exif,
            }
            yield f"random-{index}-{mode}-{height}x{width}", corpus.jpeg(image.convert(mode), **options)
        else:
            colour, depth = _PNG_KINDS[generator.integers(len(_PNG_KINDS))]
            interlaced = bool(generator.integers(2))
            yield (
                f"random-{index}-png-{colour}-{depth}-{height}x{width}",
                corpus.png(height, width, depth, colour, interlaced=interlaced, seed=index),
            )
        index += 1


def in_cpp(probe: Path, bundle: Bundle, paths: list[Path], folder: Path) -> list[tuple[UInt8Array, UInt8Array]]:
    """What C++ makes of each picture: decoded, resized.

    Raises:
        RuntimeError: it refuses one.
    """
    size = bundle.spec.preprocessing
    lines = "\n".join(f"{size.height} {size.width} {size.resize_short or 0} {path}" for path in paths)
    out = folder / "pictures.bin"
    subprocess.run([str(probe), "pictures", str(out), "178956970"], input=lines, text=True, check=True)
    found = []
    with out.open("rb") as file:
        for path in paths:
            status, height = struct.unpack("<ii", file.read(8))
            if status:
                raise RuntimeError(f"{path.name}: {file.read(height).decode()}")
            (width,) = struct.unpack("<i", file.read(4))
            whole = np.frombuffer(file.read(height * width * 3), np.uint8).reshape(height, width, 3)
            small = np.frombuffer(file.read(size.height * size.width * 3), np.uint8)
            found.append((whole, small.reshape(size.height, size.width, 3)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--precision", default="fp32")
    options = parser.parse_args()
    built = cpp_build.build("")
    bundle = open_bundle(options.bundle)
    different: dict[str, list[str]] = {"decoded": [], "resized": []}
    count = pixels = 0
    prepared = []
    every = islice(pictures(), options.pictures)
    with tempfile.TemporaryDirectory(prefix="samdeploy-") as temporary:
        folder = Path(temporary)
        while group := list(islice(every, 50)):
            paths = []
            for index, (_, encoded) in enumerate(group):
                paths.append(folder / f"{index}.img")
                paths[-1].write_bytes(encoded)
            for (name, encoded), (whole, small) in zip(group, in_cpp(built.probe, bundle, paths, folder), strict=True):
                expected = decode(encoded)
                reduced = resize(expected, bundle.spec.preprocessing)
                count, pixels = count + 1, pixels + expected.shape[0] * expected.shape[1]
                prepared.append(reduced)
                if not np.array_equal(whole, expected):
                    different["decoded"].append(name)
                if not np.array_equal(small, reduced):
                    different["resized"].append(name)
        batch = np.stack(prepared)
        with open_session(bundle, options.backend, precision=options.precision) as session:
            parts = [session.run(batch[at : at + BATCH]) for at in range(0, len(batch), BATCH)]
        (folder / "pixels.bin").write_bytes(batch.tobytes())
        engine = f"{options.backend}:{options.precision}"
        arguments = [options.bundle, engine, 0, folder / "pixels.bin", BATCH, folder / "logits.bin"]
        subprocess.run([str(built.probe), "run", *map(str, arguments)], check=True)
        expected_logits = np.concatenate(parts)
        logits = np.frombuffer((folder / "logits.bin").read_bytes(), np.float32).reshape(expected_logits.shape)
    wrong = int((logits.view(np.uint32) != expected_logits.view(np.uint32)).sum())
    result = {
        "pictures": count,
        "megapixels": round(pixels / 1e6, 1),
        "differ_decoded": len(different["decoded"]),
        "differ_resized": len(different["resized"]),
        "engine": engine,
        "logits": int(logits.size),
        "differ_logits": wrong,
        "classes_answered": int(np.unique(logits.argmax(axis=1)).size),
        "names": different["decoded"][:20] + different["resized"][:20],
    }
    print(json.dumps(result))
    return 1 if wrong or different["decoded"] or different["resized"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
