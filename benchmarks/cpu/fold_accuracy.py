"""How close to a float64 run the float32 logits are, as trained and folded.

    .venv/bin/python benchmarks/cpu/fold_accuracy.py [--out FILE.json] [--seeds 5]

Per network: the module as trained and its fold in PyTorch, and the folded graph in ONNX Runtime and OpenVINO, all in
float32, against the module as trained in float64.  The figure is the largest |difference| over all images and
classes, as a share of the float64 logits' range.  Weights are random, with plausible batch norm statistics.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
import torch
from engines import coloured_images, network, onnxruntime, openvino  # the script beside this one

from samdeploy.graphs.edit import serialize
from samdeploy.models import Exported
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model

IMAGES = 32
CASES = (("sam-resnet18", 64), ("sam-resnet50", 64), ("sam-resnet50", 192))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    print(f"{'network':<13} {'px':>3} {'gate':<8} {'engine':<26} {'median':>8} {'largest':>8}   n = {options.seeds}")
    for arch, px in CASES:
        for gate in ("identity", "original"):
            found: dict[str, list[float]] = {}
            for seed in range(options.seeds):
                for engine, error in errors(arch, px, gate, seed).items():
                    found.setdefault(engine, []).append(error)
            for engine, values in found.items():
                row = {"arch": arch, "px": px, "gate": gate, "engine": engine, "errors": values}
                rows.append(row)
                median, largest = statistics.median(values), max(values)
                print(f"{arch:<13} {px:>3} {gate:<8} {engine:<26} {median:8.1e} {largest:8.1e}", flush=True)
    if options.out:
        options.out.write_text(json.dumps({"images": IMAGES, "seeds": options.seeds, "rows": rows}, indent=1) + "\n")


@torch.inference_mode()
def errors(arch: str, px: int, gate: str, seed: int) -> dict[str, float]:
    """Engine -> largest difference from float64, as a share of the float64 logits' range."""
    net, spec = network(px, None, arch=arch, gate=gate, seed=seed)
    images = coloured_images(IMAGES, px)
    batch = torch.from_numpy(images)
    folded = fold(net)
    graph = serialize(graph_from_model(folded, spec))
    answers = {
        "PyTorch, as trained": Exported(net, spec)(batch).numpy(),
        "PyTorch, folded": Exported(folded, spec)(batch).numpy(),
        "ONNX Runtime, folded": onnxruntime(graph, 2)(images),
        "OpenVINO, folded": openvino(graph, "f32", 2)(images),
    }
    # The normalisation's constants stay the float32 ones: they are part of what is exported.
    truth = net.double()(Exported(net, spec).normalize(batch).double()).numpy()
    return {name: float(np.abs(found - truth).max() / np.ptp(truth)) for name, found in answers.items()}


if __name__ == "__main__":
    main()
