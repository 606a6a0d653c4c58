"""Everything about TensorRT engines that can be seen without a GPU, as JSON.

    .venv/bin/python benchmarks/tensorrt/rehearsal.py --out FILE.json [--quick]

TensorRT-RTX's real parser and compiler make plans of SAM-ResNet-18 and 50 with each gate in fp32, fp16 and int8, for
every GPU generation it has.  Kept of each: the layers of the typed network by kind and type, the share of multiply-adds
in the asked-for type, size and time of the plan, and what reading it back answers.  Of INT8 graphs also the axis, zero
point and types of every Q/DQ node, compared with what TensorRT's parser accepts (operator table of ONNX-TensorRT): int8
with zero point 0, one scale per tensor of activations, one per output channel of weights, no quantised bias.  An engine
that runs is not among it: that needs a GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import torch

from samdeploy.backends.tensorrt.library import create, error_log, import_runtime
from samdeploy.backends.tensorrt.session import named_targets, open_plan
from samdeploy.bundle.spec import Preprocessing, model_spec
from samdeploy.errors import SamdeployError, first_line
from samdeploy.evaluate.machine import machine, versions
from samdeploy.export.fp16.convert import fp16_graph
from samdeploy.export.int8.qdq import calibrate, quantize
from samdeploy.export.tensorrt.build import build_engine
from samdeploy.export.tensorrt.precision_proof import check_graph_precision, heavy_layers
from samdeploy.graphs.edit import serialize
from samdeploy.models import Exported, build_model
from samdeploy.models.sam_resnet.attention import GATES
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model

ARCHITECTURES = ("sam-resnet18", "sam-resnet50")
PRECISIONS = ("fp32", "fp16", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="one architecture, one gate, one target")
    options = parser.parse_args()
    trt = import_runtime("tensorrt_rtx")
    cases = [(arch, gate) for arch in ARCHITECTURES for gate in GATES]
    targets = named_targets(trt)
    if options.quick:
        cases, targets = cases[:1], targets[:1]
    rows = []
    for arch, gate in cases:
        for precision, graph in _graphs(arch, gate).items():
            rows.append(_rehearse(trt, f"{arch} {gate}", precision, graph, targets))
            print(json.dumps({key: rows[-1][key] for key in ("network", "precision", "counted", "failed")}), flush=True)
    report = {
        "command": "benchmarks/tensorrt/rehearsal.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "targets": targets,
        "rows": rows,
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    failed = [row for row in rows if row["failed"] or row["violations"]]
    print(f"{len(rows)} graphs, {sum(len(row['plans']) for row in rows)} plans, {len(failed)} graphs with a failure")
    raise SystemExit(1 if failed else 0)


def _graphs(arch: str, gate: str) -> dict[str, bytes]:
    """The graphs of a network with random weights whose batch norms know the statistics of images."""
    torch.manual_seed(0)
    spec = model_spec(arch, {"gate": gate}, tuple(f"class {k}" for k in range(10)), Preprocessing(64, 64))
    model = build_model(arch, 10, {"gate": gate})
    images = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        Exported(model.train(), spec)(torch.from_numpy(images))
    graph = graph_from_model(fold(model.eval()), spec)
    fp32 = serialize(graph)
    return {"fp32": fp32, "fp16": serialize(fp16_graph(graph)), "int8": quantize(calibrate(fp32, images), "tensorrt")}


def _rehearse(trt: Any, network: str, precision: str, graph: bytes, targets: list[str]) -> dict[str, Any]:
    layers, kinds = _typed_network(trt, graph)
    plans, failed = [], []
    for target in targets:
        start = time.monotonic()
        try:
            built = build_engine(graph, engine="trt-rtx", precision=precision, target=target)
        except SamdeployError as error:
            failed.append(f"{target}: {first_line(error)}")
            continue
        seconds = round(time.monotonic() - start, 2)
        proof = built.built_for["precision_proof"]
        plans.append(
            {"target": target, "bytes": len(built.plan), "seconds": seconds, "proof": proof, "note": built.note}
        )
        plans[-1]["read_back"] = _read_back(trt, built.plan)
    return {
        "network": network,
        "precision": precision,
        "counted": check_graph_precision(layers, precision),
        "network_layers": kinds,
        "plans": plans,
        "failed": failed,
        "qdq": (nodes := _qdq_nodes(graph) if precision == "int8" else {}),
        "violations": [text for name, node in nodes.items() for text in _violations(name, node)],
    }


def _typed_network(trt: Any, graph: bytes) -> tuple[Any, dict[str, int]]:
    log = error_log(trt)
    builder = create(trt, "Builder", log)
    network = builder.create_network(0)
    parser = create(trt, "OnnxParser", network, log)
    assert parser.parse(graph)
    kinds = Counter(
        f"{layer.type.name} -> {layer.get_output(0).dtype.name}"
        for layer in (network.get_layer(index) for index in range(network.num_layers))
    )
    return heavy_layers(trt, network), dict(sorted(kinds.items()))


def _read_back(trt: Any, plan: bytes) -> str:
    """What the runtime answers to the plan; without a GPU it refuses, and the engine inspector cannot be asked."""
    try:
        open_plan(trt, plan, "the plan")
    except SamdeployError as error:
        return first_line(error)
    return "opened"


def _qdq_nodes(graph: bytes) -> dict[str, dict[str, Any]]:
    model = onnx.load_from_string(graph)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        scale, zero = constants[node.input[1]], constants.get(node.input[2]) if len(node.input) > 2 else None
        axis = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
        found[node.name] = {
            "op": node.op_type,
            "of": "weight" if node.input[0] in constants else "activation",
            "axis": axis[0] if axis else None,
            "scales": int(scale.size),
            "scale_type": str(scale.dtype),
            "smallest_scale": float(scale.min()),
            "zero_point_type": None if zero is None else str(zero.dtype),
            "zero_points": [] if zero is None else sorted({int(value) for value in np.atleast_1d(zero)}),
            "shape": list(constants[node.input[0]].shape) if node.input[0] in constants else None,
            "input_type": str(constants[node.input[0]].dtype) if node.input[0] in constants else None,
        }
    return found


def _violations(name: str, node: dict[str, Any]) -> list[str]:
    wrong = []
    if node["zero_point_type"] != "int8" or node["zero_points"] != [0]:
        wrong.append(f"{name}: zero point {node['zero_points']} of {node['zero_point_type']}, 0 of int8 expected")
    if node["scale_type"] != "float32" or not node["smallest_scale"] > 0:
        wrong.append(f"{name}: scale of {node['scale_type']}, at least {node['smallest_scale']}")
    if node["of"] == "activation" and node["scales"] != 1:
        wrong.append(f"{name}: {node['scales']} scales of an activation, one expected")
    if node["of"] == "weight":
        if node["shape"] and len(node["shape"]) < 2:
            wrong.append(f"{name}: a quantised bias")
        if node["scales"] > 1 and (node["axis"] != 0 or node["scales"] != node["shape"][0]):
            wrong.append(f"{name}: {node['scales']} scales on axis {node['axis']} of {node['shape']}")
    return wrong


if __name__ == "__main__":
    main()
