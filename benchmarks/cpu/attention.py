"""What the attention of SAM-ResNet-50 costs over the same network without it, and what its gates gain as products.

    .venv/bin/python benchmarks/cpu/attention.py [--out FILE.json] [--rounds 4] [--openings 3] [--threads 1]

Three graphs take turns in each round, for every runtime and precision: the exported one, whose gates are matrix
products; the same with each gate as a 1x1 convolution of [N, C, 1, 1]; and the folded network without gates.  What
counts are ratios within a round.  All engines are opened several times, since the memory that one happens to get moves
its time by several percent.  With one thread the clock is the processor time of the process, which other programs on
the machine disturb least; with more it is wall-clock time.  Weights are random; speed does not depend on them.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
from engines import Run, coloured_images, network, onnxruntime, openvino, processor  # the script beside this one

from samdeploy.export.int8.qdq import calibrate, quantize
from samdeploy.graphs.edit import checked, constants, copy_of, make_node, serialize, set_constant
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model

CASES = {64: (1, 16, 64), 192: (1, 16)}  # batches by size
ENGINES: dict[str, Callable[[bytes, int], Run]] = {
    "openvino fp32": lambda graph, threads: openvino(graph, "f32", threads),
    "openvino bf16": lambda graph, threads: openvino(graph, "bf16", threads),
    "onnxruntime fp32": onnxruntime,
    "openvino int8": lambda graph, threads: openvino(graph, "f32", threads),
    "onnxruntime int8": onnxruntime,
}
CALIBRATION = 16

Seconds = np.ndarray[Any, np.dtype[np.float64]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--openings", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    rows = [row for px in CASES for row in measure(px, options)]
    report = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{processor()}, {options.threads} threads, {_clock(options.threads)[0]} time",
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "openvino", "onnx", "numpy")},
        "python": platform.python_version(),
        "openings": options.openings,
        "rounds_of_each": options.rounds,
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def measure(px: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each engine and batch, at one size."""
    fp32 = {"bare": _folded(px, "none"), "product": _folded(px, "identity")}
    fp32["convolution"] = gates_as_convolutions(fp32["product"])
    images = coloured_images(4 * max(CASES[px]), px)
    graphs = {name: serialize(model) for name, model in fp32.items()}
    int8 = {name: quantize(calibrate(graph, images[:CALIBRATION]), "cpu") for name, graph in graphs.items()}
    rows = []
    for engine, open_engine in ENGINES.items():
        chosen = list((int8 if engine.endswith("int8") else graphs).items())
        parts: dict[int, list[dict[str, Seconds]]] = {batch: [] for batch in CASES[px]}
        for opening in range(options.openings):
            order = chosen[opening % 3 :] + chosen[: opening % 3]
            runs = {name: open_engine(graph, options.threads) for name, graph in order}
            for batch, found in parts.items():
                batches = [images[i * batch : (i + 1) * batch] for i in range(4)]
                found.append(take_turns(runs, batches, options.rounds, options.threads))
        for batch, found in parts.items():
            rows.append({"px": px, "batch": batch, "engine": engine, **_report(found)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def _report(parts: list[dict[str, Seconds]]) -> dict[str, Any]:
    bare, product, convolution = (
        np.concatenate([part[name] for part in parts]) for name in ("bare", "product", "convolution")
    )
    return {
        "bare_ms": 1e3 * float(np.median(bare)),
        "cost_as_convolution_percent": _spread(100 * (convolution / bare - 1)),
        "cost_as_product_percent": _spread(100 * (product / bare - 1)),
        "product_gains": _spread(convolution / product),
    }


def take_turns(runs: Mapping[str, Run], batches: list[np.ndarray], rounds: int, threads: int) -> dict[str, Seconds]:
    """Seconds of each run in each round; an untimed run comes before each."""
    _, clock = _clock(threads)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(-1, rounds):
        for name, run in runs.items():
            run(batches[(turn + 1) % 4])
            start = clock()
            run(batches[turn % 4])
            if turn >= 0:
                times[name].append(clock() - start)
    return {name: np.array(values) for name, values in times.items()}


def gates_as_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with a 1x1 convolution in place of each gate's Flatten, Gemm and Unsqueeze."""
    changed = copy_of(model)
    weights = constants(changed)
    by_name = {node.name: node for node in model.graph.node}
    del changed.graph.node[:]
    for node in model.graph.node:
        block, _, part = node.name.rpartition(".")
        if part == "gate":
            mean = by_name[f"{block}.flatten"].input[0]
            set_constant(weights[node.input[1]], onnx.numpy_helper.to_array(weights[node.input[1]])[:, :, None, None])
            gate = by_name[f"{block}.unsqueeze"].output[0]
            changed.graph.node.append(make_node("Conv", node.name, [mean, *node.input[1:]], gate, kernel_shape=[1, 1]))
        elif not (block and part in ("flatten", "unsqueeze")):
            changed.graph.node.append(node)
    return checked(changed)


def _folded(px: int, gate: str) -> onnx.ModelProto:
    net, spec = network(px, None, gate=gate)
    return graph_from_model(fold(net), spec)


def _clock(threads: int) -> tuple[str, Callable[[], float]]:
    return ("processor", time.process_time) if threads == 1 else ("wall-clock", time.perf_counter)


def _spread(values: Seconds) -> dict[str, float]:
    low, middle, high = np.percentile(values, [10, 50, 90])
    return {"median": round(float(middle), 4), "p10": round(float(low), 4), "p90": round(float(high), 4)}


if __name__ == "__main__":
    main()
