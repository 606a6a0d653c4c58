"""Where on an image a cell of a class activation map belongs, and whether maps point at the object.

Images of one shape each (a disc, a square, a cross) at a random place on coloured noise; SAM-ResNet-18 is trained on
660 of them and asked about 360 others, whose places are known.  Printed per class, over the objects that are not at
the border: how many input pixels the object lies beyond 32 times the strongest cell (15.5 means that the grid of cells
is centred on the image), and how often the strongest pixel of the drawn map lies on the object.

    python benchmarks/evaluate/cam_place.py            # a few minutes on two cores
    python benchmarks/evaluate/cam_place.py --work DIR  # keep images and bundle there, and use them again
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from samdeploy.backends import open_session
from samdeploy.bundle import open_bundle
from samdeploy.explain.region import Region, place_map
from samdeploy.images.decode import prepare
from samdeploy.runs.locate import latest_bundle

KINDS = ("disc", "square", "cross")
SIZE = 160
FEATURE_STRIDE = 32
SETTINGS = ("model.pretrained=false", "model.arch=sam-resnet18", f"image.height={SIZE}", f"image.width={SIZE}",
            "training.epochs=5", "training.learning_rate=5e-4", "training.batch_size=16")  # fmt: skip


def shape(kind: str, height: int, width: int, rng: np.random.Generator) -> tuple[Image.Image, tuple[int, int], int]:
    """An image, the centre (row, column) of its object, and its radius, in pixels."""
    noise = rng.integers(40, 200, (height // 24 + 2, width // 24 + 2, 3), dtype=np.uint8)
    rough = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    image = Image.fromarray((rough + rng.integers(-18, 18, (height, width, 1))).clip(0, 255).astype(np.uint8))
    radius = int(rng.integers(22, 38))
    x, y = int(rng.integers(radius, width - radius)), int(rng.integers(radius, height - radius))
    colour = tuple(int(level) for level in rng.integers(0, 255, 3))
    draw, arm = ImageDraw.Draw(image), radius // 3
    box = (x - radius, y - radius, x + radius, y + radius)
    if kind == "disc":
        draw.ellipse(box, fill=colour, outline="white", width=3)
    elif kind == "square":
        draw.rectangle(box, fill=colour, outline="white", width=3)
    else:
        for rim, fill in ((0, "white"), (3, colour)):
            draw.rectangle((x - radius + rim, y - arm + rim, x + radius - rim, y + arm - rim), fill=fill)
            draw.rectangle((x - arm + rim, y - radius + rim, x + arm - rim, y + radius - rim), fill=fill)
    return image, (y, x), radius


def train(work: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 220), ("test", 12)):
        for kind in KINDS:
            folder = work / "shapes" / split / kind
            folder.mkdir(parents=True)
            for index in range(count):
                height, width = int(rng.integers(160, 320)), int(rng.integers(160, 420))
                shape(kind, height, width, rng)[0].save(folder / f"{index:03}.jpg", quality=90)
    line = [sys.executable, "-m", "samdeploy.cli"]
    sets = [part for setting in SETTINGS for part in ("--set", setting)]
    subprocess.run([*line, "train", "folder", "--data", work / "shapes", "--runs", work / "runs", *sets], check=True)
    subprocess.run([*line, "export", "--runs", work / "runs", "--engine", "onnxruntime"], check=True)


def measure(work: Path, count: int) -> None:
    rng = np.random.default_rng(99)
    bundle = open_bundle(latest_bundle(work / "runs"))
    preprocessing = bundle.spec.preprocessing
    height, width = preprocessing.height, preprocessing.width
    with open_session(bundle, "onnxruntime", device="cpu", maps=True) as session:
        for kind in KINDS:
            column = bundle.spec.classes.index(kind)
            beyond, hits = [], []
            for _ in range(count):
                image, (y, x), radius = shape(kind, 260, 260, rng)
                logits, maps = session.run_with_maps(prepare(np.asarray(image), preprocessing)[None])
                at = np.array([(y + 0.5) / 260 * height, (x + 0.5) / 260 * width]) - 0.5
                if logits[0].argmax() != column or not all(40 < place < 120 for place in at):
                    continue
                cam = maps[0, column]
                beyond.append(at - FEATURE_STRIDE * np.array(np.unravel_index(cam.argmax(), cam.shape)))
                values, _ = place_map(cam, Region(), preprocessing, (260, 260))
                peak = np.mean(np.argwhere(values == values.max()), axis=0)
                hits.append(np.abs(peak - (y, x)).max() <= radius)
            down, right = np.mean(beyond, axis=0)
            spread = np.std(beyond)
            print(
                f"{kind:<7} n = {len(hits):3}: object beyond 32 i by {down:5.1f} down, {right:5.1f} right, standard "
                f"deviation {spread:4.1f}; strongest pixel on the object {100 * np.mean(hits):5.1f} %"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for images and runs; default: a temporary one")
    parser.add_argument("--count", type=int, default=120, help="images per class")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        if not (work / "runs").exists():
            train(work)
        measure(work, arguments.count)


if __name__ == "__main__":
    main()
