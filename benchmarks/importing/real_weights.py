"""Published weights on labelled photographs: timm's own pipeline beside ours, and what wrong preprocessing costs.

    .venv/bin/python benchmarks/importing/real_weights.py RUN [--out FILE.json]

RUN is what `samdeploy import WEIGHTS --arch timm:NAME --data IMAGES` wrote; its judged images are taken.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import binomtest

from samdeploy.bundle.fields import to_json
from samdeploy.bundle.names import WEIGHTS_FILE
from samdeploy.bundle.spec import IMAGENET_MEAN, IMAGENET_STD, RESIZES, Preprocessing
from samdeploy.data import open_dataset
from samdeploy.images.decode import decode, resize
from samdeploy.models import build_model, load_weights
from samdeploy.models.graph import Normalize
from samdeploy.progress import progress_bar
from samdeploy.runs.record import open_run

BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    record = open_run(options.run)
    dataset = open_dataset(record.dataset, Path(record.data_root), val_fraction=record.val_fraction)
    test = dataset.relabelled(record.classes).test
    model = build_model(record.arch, len(record.classes), record.options).eval()
    load_weights(model, options.run / WEIGHTS_FILE)

    from timm.data import create_transform, resolve_data_config
    from timm.models import get_pretrained_cfg

    config = resolve_data_config(pretrained_cfg=get_pretrained_cfg(record.arch.partition(":")[2]).to_dict())
    own = record.preprocessing
    transform = create_transform(**config, is_training=False)

    def ours(preprocessing: Preprocessing, *, bgr: bool = False) -> Callable[[str], torch.Tensor]:
        normalize = Normalize(preprocessing)

        def prepare(name: str) -> torch.Tensor:
            image = resize(decode(Path(name)), preprocessing)
            return normalize(torch.from_numpy(image[None, ..., ::-1].copy() if bgr else image[None]))[0]

        return prepare

    bilinear, bicubic = RESIZES["bilinear"], RESIZES["bicubic"]
    ways = {
        "timm's own pipeline": lambda name: transform(Image.open(name).convert("RGB")),
        "samdeploy": ours(own),
        "wrong mean and std (ImageNet's)": ours(replace(own, mean=IMAGENET_MEAN, std=IMAGENET_STD)),
        "wrong filter": ours(replace(own, resize=bilinear if own.resize == bicubic else bicubic)),
        "no crop (squeezed)": ours(replace(own, fit="squeeze", resize_short=None)),
        "other crop (short side = input)": ours(replace(own, resize_short=own.height)),
        "channels as BGR": ours(own, bgr=True),
    }
    rows: dict[str, dict[str, object]] = {}
    reference = None
    with progress_bar("classifying", len(test) * len(ways)) as advance, torch.inference_mode():
        for way, prepare in ways.items():
            logits = []
            for start in range(0, len(test), BATCH):
                names = test.names[start : start + BATCH]
                logits.append(model(torch.stack([prepare(name) for name in names])))
                advance(len(names))
            answers = torch.cat(logits).argmax(1).numpy()
            reference = answers if reference is None else reference
            right = int((answers == test.labels).sum())
            interval = binomtest(right, len(test)).proportion_ci()
            rows[way] = {
                "top1": round(100 * right / len(test), 2),
                "right": right,
                "interval": [round(100 * end, 2) for end in (interval.low, interval.high)],
                "same_class_as_timm": int(np.sum(answers == reference)),
            }
            print(way, rows[way], flush=True)
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "command": "benchmarks/importing/real_weights.py",
        "versions": {name: version(name) for name in ("torch", "timm", "pillow")},
        "arch": record.arch,
        "preprocessing": to_json(own),
        "images": len(test),
        "ways": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
