"""Our graph beside the one that `torch.onnx.export` writes of the same network, in the same runtime, in turns.

    .venv/bin/python benchmarks/zoo/speed.py [--out FILE.json] [--rounds 30] [--only ARCHITECTURE]...

Both take uint8 images and normalise them in the graph; one image at a time.  The ratio is the median over the rounds
of our milliseconds divided by the plain graph's of the same round; above 1.05 the script exits with 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from network import CLASSES, blots, random_network

from samdeploy.bench.alternatives import onnxruntime, openvino
from samdeploy.bench.turns import Run
from samdeploy.bundle.spec import Preprocessing, model_spec
from samdeploy.evaluate.machine import machine, versions
from samdeploy.export.network import prepare_network
from samdeploy.graphs.edit import serialize
from samdeploy.models import Exported, family_of

ARCHITECTURES = (
    "torchvision:resnet50",
    "timm:efficientnet_b0",
    "timm:convnext_tiny",
    "timm:vit_small_patch16_224",
    "timm:mobilenetv3_large_100",
)
RUNTIMES = {"onnxruntime": onnxruntime.plain, "openvino": openvino.plain}
MOST_SLOWER = 1.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", action="append")
    options = parser.parse_args()
    rows = []
    for arch in options.only or ARCHITECTURES:
        ours, plain, image = graphs(arch)
        for runtime, opened in RUNTIMES.items():
            row = compare(opened(ours, "cpu"), opened(plain, "cpu"), image, options.rounds)
            rows.append({"architecture": arch, "runtime": runtime, **row})
            print(rows[-1], flush=True)
    report = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": versions(),
        "rounds": options.rounds,
        "command": "benchmarks/zoo/speed.py",
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(row["ratio"] <= MOST_SLOWER for row in rows) else 1


def graphs(arch: str) -> tuple[bytes, bytes, np.ndarray]:
    """Our graph, the plain one, and an image uint8 [1, H, W, 3]."""
    size = family_of(arch).preprocessing(arch, {}) or Preprocessing(224, 224)
    model = random_network(arch, {}, size)
    spec = model_spec(arch, {}, CLASSES, size)
    images = blots(np.random.default_rng(1), size, 3)
    program = torch.onnx.export(
        Exported(model, spec).eval(),
        (torch.from_numpy(images),),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("N")},),
    )
    assert program is not None
    return serialize(prepare_network(model, spec).graph), program.model_proto.SerializeToString(), images[:1]


def compare(ours: Run, plain: Run, image: np.ndarray, rounds: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(-3, rounds):  # three rounds of warm-up
        for name, run in sorted({"ours": ours, "plain": plain}.items(), reverse=number % 2 == 1):
            start = time.perf_counter()
            run(image)
            if number >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    ratios = np.divide(times["ours"], times["plain"])
    return {
        "ours_ms": float(np.median(times["ours"])),
        "plain_ms": float(np.median(times["plain"])),
        "ratio": float(np.median(ratios)),
        "ratio_quartiles": [float(value) for value in np.quantile(ratios, (0.25, 0.75))],
    }


if __name__ == "__main__":
    sys.exit(main())
