"""Our preparation of images beside timm's and torchvision's own, for every distinct record of their weights.

    .venv/bin/python benchmarks/importing/preprocessing.py IMAGES [--out FILE.json] [--images 1000] [--top 12]

Each setting (size, shorter side, filter, fit, rounding of the crop) is taken once, from the first weights that have it:
the images pass through `timm.data.create_transform`, or through the preset of torchvision's weights, and through ours.
Settings that are not among the most common see every tenth image.
What is compared are 8-bit levels before the normalisation, which is in the graph.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from samdeploy.bundle.spec import Preprocessing
from samdeploy.errors import InputError
from samdeploy.images.decode import decode, resize
from samdeploy.models.registry import family_of
from samdeploy.progress import progress_bar


def settings() -> tuple[dict[Preprocessing, dict[str, Any]], dict[str, str]]:
    """Distinct settings with an example and the number of weight sets; and weights that cannot be expressed."""
    import timm

    found: dict[Preprocessing, dict[str, Any]] = {}
    refused = {}
    tagged = [f"timm:{name}" for name in timm.list_pretrained() if timm.models.get_pretrained_cfg(name).num_classes]
    for arch in (*tagged, *family_of("torchvision:").architectures()):
        try:
            record = family_of(arch).preprocessing(arch, {})
        except InputError as error:
            refused[arch] = str(error).partition(": ")[2]
            continue
        assert record is not None
        key = Preprocessing(
            record.height, record.width, record.fit, record.resize_short, resize=record.resize, crop=record.crop
        )
        row = found.setdefault(key, {"example": arch, "weights": 0})
        row["weights"] += 1
    return found, refused


def theirs(arch: str) -> Any:
    """PIL image -> uint8 [H, W, 3], by the library that published the weights."""
    if arch.startswith("timm:"):
        from timm.data import create_transform, resolve_data_config
        from timm.models import get_pretrained_cfg

        config = resolve_data_config(pretrained_cfg=get_pretrained_cfg(arch.partition(":")[2]).to_dict())
        transform = create_transform(**config, is_training=False, use_prefetcher=True)  # ends in uint8 [3, H, W]
        return lambda image: np.asarray(transform(image)).transpose(1, 2, 0)
    from torchvision.models import get_model_weights

    preset = get_model_weights(arch.partition(":")[2]).DEFAULT.transforms()
    preset.mean, preset.std = [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]
    return lambda image: (preset(image).numpy() * 255).round().astype(np.uint8).transpose(1, 2, 0)


def measure(paths: list[Path], found: dict[Preprocessing, dict[str, Any]], top: int) -> None:
    """Fill the rows of `found`: the first `top` on all images, the others on every tenth."""
    transforms = {key: theirs(row["example"]) for key, row in found.items()}

    def one(numbered: tuple[int, Path]) -> list[tuple[int, float, int]]:
        number, path = numbered
        ours, image = decode(path), Image.open(path).convert("RGB")
        rows = []
        for key, transform in list(transforms.items())[: None if number % 10 == 0 else top]:
            difference = np.abs(resize(ours, key).astype(np.int16) - transform(image))
            rows.append((int(difference.max()), float(difference.mean()), int((difference > 1).sum())))
        return rows

    results = []
    with progress_bar("comparing", len(paths)) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        for rows in pool.map(one, enumerate(paths)):
            results.append(rows)
            advance(1)
    for place, (key, row) in enumerate(found.items()):
        mine = [rows[place] for rows in results if place < len(rows)]
        largest, mean, above = zip(*mine, strict=True)
        row["images"] = len(mine)
        row["largest"], row["mean"] = max(largest), round(float(np.mean(mean)), 5)
        row["above_1_per_million"] = round(1e6 * sum(above) / (len(mine) * key.height * key.width * 3), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--top", type=int, default=12)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    paths = sorted(options.folder.rglob("*.jpg"))[: options.images]
    found, refused = settings()
    found = dict(sorted(found.items(), key=lambda pair: -pair[1]["weights"]))
    measure(paths, found, options.top)
    rows = [
        {
            "height": key.height,
            "resize_short": key.resize_short,
            "filter": key.resize.partition("-")[0],
            "fit": key.fit,
            "crop": key.crop,
            **row,
        }
        for key, row in found.items()
    ]
    for row in rows:
        print(" ".join(f"{value!s:>12}" for value in row.values()))
    result = {
        "machine": platform.processor() or platform.machine(),
        "command": "benchmarks/importing/preprocessing.py",
        "versions": {name: version(name) for name in ("timm", "torchvision", "pillow", "numpy")},
        "settings": rows,
        "refused": refused,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
