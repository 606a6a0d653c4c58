#!/usr/bin/env python3
"""Python and C++ on the same images: differing bytes after decoding and resizing, differing logits.  Prints JSON.

    python benchmarks/embedding/same_bytes.py [BUNDLE] [--images 1000] [--photographs FOLDER] [--out result.json]

Images are those of tests/cpp/corpus.py (every kind of JPEG and PNG, EXIF, 4000x3000) and, up to the number asked for,
JPEGs and PNGs of random size, kind and content; and all files below FOLDER.  Each is brought to every one of `SIZES`
with every filter, fit and crop.  Independent references on the same decoded pixels:

pillow       `Image.resize` of both axes in one call, with `reducing_gap=None`; the crop is ours.  Pillow goes
             horizontal first at most sizes, so bytes differ, most where bicubic leaves 0..255 between the
             passes: `not_explained` counts images that are neither ours nor ours with the passes exchanged
torchvision  `Resize` and `CenterCrop` on a Pillow image: for the fit "center_crop" with the crop "half-even"

Images that are more than `THINNEST` times as long as wide are left out there: they take most of the time.

With BUNDLE, which must squeeze, its logits on the images are compared too.  Exit code 1 if Python and C++ differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain, islice, product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from samdeploy.arrays import UInt8Array

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from samdeploy import open_bundle, open_session  # noqa: E402  (the path above makes the working copy come first)
from samdeploy.bundle.spec import CROPS, RESIZES, Preprocessing  # noqa: E402
from samdeploy.errors import ImageError  # noqa: E402
from samdeploy.evaluate.machine import machine, versions  # noqa: E402
from samdeploy.images.decode import decode, resize  # noqa: E402
from samdeploy.images.resize import placement  # noqa: E402
from tests.cpp import build as cpp_build  # noqa: E402
from tests.cpp import corpus  # noqa: E402
from tests.cpp.ask import ask  # noqa: E402

BATCH = 8
# Height, width, shorter side before the crop: the usual ones, and odd ones that enlarge most images before the crop.
SIZES = ((224, 224, 256), (299, 197, 331))
THINNEST = 8
FILTERS = {RESIZES["bilinear"]: Image.Resampling.BILINEAR, RESIZES["bicubic"]: Image.Resampling.BICUBIC}
_PNG_KINDS = ((0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (6, 8))


def targets() -> list[Preprocessing]:
    """Every size with every filter, fit and crop."""
    found = []
    for (height, width, short), filter in product(SIZES, FILTERS):
        found.append(Preprocessing(height, width, resize=filter))
        found += [Preprocessing(height, width, "center_crop", short, resize=filter, crop=crop) for crop in CROPS]
    return found


def made_up() -> Iterator[tuple[str, bytes]]:
    """Names and encoded images, without end."""
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


def photographs(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names and content of all files below a folder."""
    for path in sorted(folder.rglob("*.jp*g")):
        yield path.relative_to(folder).as_posix(), path.read_bytes()


def by_pillow(image: Image.Image, size: Preprocessing, *, is_horizontal_first: bool = False) -> UInt8Array:
    """Resized by Pillow, in one call or with our passes exchanged, and cut."""
    place = placement(size, image.height, image.width)
    if is_horizontal_first:
        image = image.resize((place.width, image.height), FILTERS[size.resize])
    scaled = image.resize((place.width, place.height), FILTERS[size.resize], reducing_gap=None)
    return np.asarray(scaled)[place.top : place.top + size.height, place.left : place.left + size.width]


def by_torchvision(image: Image.Image, size: Preprocessing) -> UInt8Array:
    """Resized and cut by torchvision."""
    from torchvision.transforms import CenterCrop, InterpolationMode, Resize

    mode = InterpolationMode.BICUBIC if size.resize == RESIZES["bicubic"] else InterpolationMode.BILINEAR
    return np.asarray(CenterCrop((size.height, size.width))(Resize(size.resize_short, mode)(image)))


class Difference:
    """How far a reference is from ours, over many images."""

    def __init__(self) -> None:
        self.row = Counter[str]()
        self.largest = 0

    def add(self, ours: UInt8Array, theirs: UInt8Array, exchanged: UInt8Array) -> None:
        """`exchanged`: ours with the passes exchanged."""
        off = np.abs(ours.astype(np.int16) - theirs)
        self.largest = max(self.largest, int(off.max()))
        self.row.update(
            resized=1,
            differ=int(off.any()),
            not_explained=int(off.any() and not np.array_equal(theirs, exchanged)),
            values=off.size,
            values_differ_by_1=int(np.count_nonzero(off == 1)),
            values_differ_by_more=int(np.count_nonzero(off > 1)),
        )


class Comparison:
    """Counts over all images."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.names: list[str] = []
        self.references = {name: {filter: Difference() for filter in FILTERS} for name in ("pillow", "torchvision")}

    def add(self, name: str, pixels: UInt8Array, in_cpp: list[Any], sizes: list[Preprocessing]) -> None:
        """One image: as Python decodes it, and what C++ makes of it for each of `sizes`."""
        image = Image.fromarray(pixels)
        self.counts["images"] += 1
        self.counts["kilopixels"] += pixels.shape[0] * pixels.shape[1] // 1000
        if not np.array_equal(in_cpp[0][0], pixels):
            self.counts["differ_decoded"] += 1
            self.names.append(name)
        for size, (_, small) in zip(sizes, in_cpp, strict=True):
            try:
                ours = resize(pixels, size)
            except ImageError:
                self.counts["too_thin"] += 1
                if not isinstance(small, str):
                    self.names.append(f"{name}: C++ alone resizes it to {size}")
                continue
            self.counts["resized"] += 1
            if not np.array_equal(small, ours):
                self.counts["differ_resized"] += 1
                self.names.append(f"{name} to {size}")
            if max(image.size) > THINNEST * min(image.size):
                continue
            exchanged = by_pillow(image, size, is_horizontal_first=True)
            self.references["pillow"][size.resize].add(ours, by_pillow(image, size), exchanged)
            if size.crop == "half-even":
                self.references["torchvision"][size.resize].add(ours, by_torchvision(image, size), exchanged)

    def result(self) -> dict[str, Any]:
        counts = {
            name: self.counts[name] for name in ("images", "resized", "differ_decoded", "differ_resized", "too_thin")
        }
        references = {
            name: {filter: {**each.row, "largest_difference": each.largest} for filter, each in found.items()}
            for name, found in self.references.items()
        }
        return {
            **counts, "megapixels": round(self.counts["kilopixels"] / 1000, 1), **references, "names": self.names[:20],
        }  # fmt: skip


def compare_logits(bundle_path: Path, engine: str, probe: Path, prepared: list[UInt8Array]) -> dict[str, Any]:
    """Logits of Python and of C++ on prepared images."""
    backend, precision = engine.split(":")
    bundle = open_bundle(bundle_path)
    batch = np.stack(prepared)
    with open_session(bundle, backend, precision=precision) as session:
        expected = np.concatenate([session.run(batch[at : at + BATCH]) for at in range(0, len(batch), BATCH)])
    with tempfile.TemporaryDirectory(prefix="samdeploy-") as temporary:
        pixels, logits = Path(temporary) / "pixels.bin", Path(temporary) / "logits.bin"
        pixels.write_bytes(batch.tobytes())
        arguments = [bundle_path, engine, 0, pixels, BATCH, logits]
        subprocess.run([str(probe), "run", *map(str, arguments)], check=True)
        found = np.frombuffer(logits.read_bytes(), np.float32).reshape(expected.shape)
    return {
        "engine": engine,
        "logits": int(found.size),
        "differ_logits": int((found.view(np.uint32) != expected.view(np.uint32)).sum()),
        "classes_answered": int(np.unique(found.argmax(axis=1)).size),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=1000, help="made-up ones")
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--engine", default="openvino:fp32")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    built = cpp_build.build("")

    def probe(*arguments: object, stdin: str = "") -> None:
        subprocess.run([str(built.probe), *map(str, arguments)], input=stdin, text=True, check=True)

    sets = {"made_up": islice(made_up(), options.images)}
    if options.photographs:
        sets["photographs"] = photographs(options.photographs)
    sizes = targets()
    input_size = open_bundle(options.bundle).spec.preprocessing if options.bundle else None
    result: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine(), "versions": versions(), "sizes": SIZES,
    }  # fmt: skip
    prepared = []
    for kind, every in sets.items():
        comparison = Comparison()
        while group := list(islice(every, 20)):
            jobs = [(encoded, size) for _, encoded in group for size in sizes]
            with tempfile.TemporaryDirectory(prefix="samdeploy-") as temporary:
                answers = ask(probe, Path(temporary), jobs)
            for index, (name, encoded) in enumerate(group):
                pixels = decode(encoded)
                comparison.add(name, pixels, answers[index * len(sizes) :][: len(sizes)], sizes)
                if input_size:
                    prepared.append(resize(pixels, input_size))
        result[kind] = comparison.result()
        print(json.dumps(result[kind]), file=sys.stderr)
    if input_size:
        result["logits"] = compare_logits(options.bundle, options.engine, built.probe, prepared)
    print(json.dumps(result))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    counted = chain((result[kind] for kind in sets), (result.get("logits", {}),))
    return int(any(value for part in counted for name, value in part.items() if name.startswith("differ_")))


if __name__ == "__main__":
    raise SystemExit(main())
