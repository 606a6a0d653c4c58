"""Our graph beside the one that `torch.onnx.export` writes of the same network, in the same runtime, in turns.

    .venv/bin/python benchmarks/zoo/speed.py [--out FILE.json] [--rounds 30] [--only ARCHITECTURE]...

Both take uint8 images and normalise them in the graph; one image at a time.  Compared is processor time of one thread,
so that other programs count little.  The ratio is the median over the rounds of our milliseconds divided by the plain
graph's of the same round; where its lower quartile is above 1.05, the script exits with 1.
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
import onnxruntime as ort
import torch
from network import CLASSES, blots, random_network

from samdeploy.backends.openvino.package import import_openvino
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
        for runtime, opened in (("onnxruntime", by_onnxruntime), ("openvino", by_openvino)):
            row = compare(opened(ours), opened(plain), image, options.rounds)
            rows.append({"architecture": arch, "runtime": runtime, **row})
            print(rows[-1], flush=True)
    report = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": versions(),
        "command": " ".join(["benchmarks/zoo/speed.py", *sys.argv[1:]]),
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if all(row["ratio_quartiles"][0] <= MOST_SLOWER for row in rows) else 1


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


def by_onnxruntime(graph: bytes) -> Run:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # more would spin while the other graph runs, and be counted to it
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def by_openvino(graph: bytes) -> Run:
    core = import_openvino().Core()
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = core.compile_model(core.read_model(graph), "CPU", config).create_infer_request()
    return lambda batch: request.infer({0: batch}, share_inputs=True)[0]


def compare(ours: Run, plain: Run, image: np.ndarray, rounds: int) -> dict[str, Any]:
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for number in range(-3, rounds):  # three rounds of warm-up
        for name, run in sorted({"ours": ours, "plain": plain}.items(), reverse=number % 2 == 1):
            start = time.process_time()
            run(image)
            if number >= 0:
                times[name].append(1e3 * (time.process_time() - start))
    ratios = np.divide(times["ours"], times["plain"])
    return {
        "ours_ms": float(np.median(times["ours"])),
        "plain_ms": float(np.median(times["plain"])),
        "n": rounds,
        "ratio": float(np.median(ratios)),
        "ratio_quartiles": [float(value) for value in np.quantile(ratios, (0.25, 0.75))],
    }


if __name__ == "__main__":
    sys.exit(main())
