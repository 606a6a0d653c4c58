"""JPEG photographs for benchmarks, made of the two real ones that scikit-learn brings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

CLASSES = 10


def write_photographs(root: Path, splits: dict[str, int], width: int, height: int) -> None:
    """Write `root/<split>/<class>/<number>.jpg`: crops of random place and size, resized, quality 90.

    Args:
        root: of a data set as `samdeploy train folder` reads it.
        splits: images of each.
        width, height: in pixels.
    """
    sources = [Image.fromarray(array) for array in load_sample_images().images]
    draw = np.random.default_rng(0)
    for split, count in splits.items():
        for number in range(count):
            source = sources[number % len(sources)]
            w = int(draw.integers(source.width // 4, source.width // 2))
            h = w * height // width
            left, top = int(draw.integers(source.width - w)), int(draw.integers(source.height - h))
            image = source.crop((left, top, left + w, top + h)).resize((width, height), Image.Resampling.BICUBIC)
            path = root / split / f"class {number % CLASSES}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path, quality=90)
