"""CPU engines of SAM-ResNet-50 against the network exported as trained, interleaved in one run.

    .venv/bin/python benchmarks/cpu/engines.py [--out FILE.json] [--rounds 15] [--run RUN] [--threads 2]

As trained: PyTorch's own exporter and torch.compile on the module, batch norms, gates and head as they are.  Ours: the
graphs of a bundle.  Every engine takes its turn in each round, with an untimed run before the timed one; what counts is
the ratio within a round, against the fastest as-trained engine of all rounds.  The share of peak is of a matrix product
in the engine's precision, measured in the same run.  "No attention" is the folded network without its gates: what an
engine of the whole cannot be faster than.

Weights are random unless --run names a trained SAM-ResNet-50; speed does not depend on them.  Needs
`pip install '.[bench]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import openvino as ov
import torch
from onnx import TensorProto, helper, numpy_helper

from samdeploy.backends.difference import difference_shares, image_ranges
from samdeploy.bench.alternatives.pytorch import export_module
from samdeploy.bundle.names import WEIGHTS_FILE
from samdeploy.bundle.spec import ModelSpec, Preprocessing, model_spec
from samdeploy.export.fp16.convert import fp16_graph
from samdeploy.export.int8.search import quantize_graph
from samdeploy.graphs.cost import layer_multiply_adds
from samdeploy.graphs.edit import serialize
from samdeploy.models import Exported, build_model, load_weights
from samdeploy.models.graph import Normalize
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model
from samdeploy.models.sam_resnet.resnet import SamResNet
from samdeploy.runs.record import open_run

Run = Callable[[np.ndarray], np.ndarray]
CASES = ((192, 1), (64, 16))
_SIDE = 2048
NO_ATTENTION = "no attention"
AS_TRAINED = ("onnxruntime fp32", "openvino fp32", "torch.compile fp32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--run", type=Path, help="a trained SAM-ResNet-50")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{processor()}, {options.threads} threads of {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "openvino", "onnx", "numpy")},
        "python": platform.python_version(),
        "rounds": options.rounds,
        "cases": [measure(px, batch, options) for px, batch in CASES],
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def measure(px: int, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    """One size and batch: all engines in turn."""
    net, spec = network(px, options.run)
    images = coloured_images(max(64, 4 * batch), px)
    engines = build(net, spec, images, options.threads) | build_bounds(px, spec, options.threads)
    batches = [images[i * batch : (i + 1) * batch] for i in range(4)]
    with torch.inference_mode():
        reference = Exported(net, spec)(torch.from_numpy(batches[0])).numpy()
    print(f"\n{px} px, batch {batch}, {options.rounds} rounds", flush=True)
    differences = {}
    for name, run in engines.items():
        found = run(batches[0])
        if not name.startswith(NO_ATTENTION):  # another network
            differences[name] = float(difference_shares(found, reference, image_ranges(reference)).max())
        for _ in range(3):
            run(batches[1])
    times: dict[str, list[float]] = {name: [] for name in engines}
    kinds = ("fp32", "bf16", "int8", *(("fp16",) if has_fp16() else ()))
    products = {kind: matrix_product(kind, options.threads) for kind in kinds}
    peaks: dict[str, list[float]] = {kind: [] for kind in products}
    for turn in range(options.rounds):
        for name, run in engines.items():
            time.sleep(0.05)  # idle threads of the engine before spin for a while after its last run
            run(batches[(turn + 1) % 4])
            start = time.perf_counter()
            run(batches[turn % 4])
            times[name].append(time.perf_counter() - start)
        for kind, values in peaks.items():
            values.append(rate(products[kind]))
    return _report(px, batch, layer_multiply_adds(graph_from_model(fold(net), spec)), times, differences, peaks)


def network(
    px: int, run: Path | None, *, arch: str = "sam-resnet50", gate: str = "identity", seed: int = 0
) -> tuple[SamResNet, ModelSpec]:
    """The network of a run, or one of random weights whose batch norms hold plausible statistics."""
    if run is not None:
        record = open_run(run)
        net = build_model(record.arch, len(record.classes), record.options)
        load_weights(net, run / WEIGHTS_FILE)
        return net.eval(), model_spec(record.arch, record.options, record.classes, Preprocessing(px, px))
    torch.manual_seed(seed)
    net = build_model(arch, 100, {"gate": gate})
    for key, weight in net.named_parameters():
        if ".sl.fc." in key:
            torch.nn.init.normal_(weight, std=0.1 / weight.shape[1] ** 0.5)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(Normalize(Preprocessing(px, px))(torch.from_numpy(coloured_images(16, px))))
    return net.eval(), model_spec(arch, {"gate": gate}, tuple(map(str, range(100))), Preprocessing(px, px))


def coloured_images(count: int, px: int) -> np.ndarray:
    """Coloured blobs with noise, uint8 [count, px, px, 3]."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand((count, 3, 5, 5), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (px, px), mode="bilinear").permute(0, 2, 3, 1)
    noise = torch.rand((count, px, px, 3), generator=generator) - 0.5
    return ((smooth + 0.1 * noise).clamp(0, 1) * 255).round().to(torch.uint8).contiguous().numpy()


def build(net: SamResNet, spec: ModelSpec, images: np.ndarray, threads: int) -> dict[str, Run]:
    """All engines, by name; those as trained first."""
    module = Exported(net, spec).eval()
    plain = export_module(module, images[:2])
    fp32 = graph_from_model(fold(net), spec)
    folded, fp16 = serialize(fp32), serialize(fp16_graph(fp32))
    labels = np.zeros(8, dtype=np.int64)
    int8 = quantize_graph(folded, images[:32], images[:8], labels, max_drop=100).graph
    compiled = torch.compile(module)

    def eager_compiled(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return compiled(torch.from_numpy(batch)).numpy()

    return {
        "onnxruntime fp32": onnxruntime(plain, threads),
        "openvino fp32": openvino(plain, "f32", threads),
        "openvino bf16": openvino(plain, "bf16", threads),
        **({"openvino fp16": openvino(plain, "f16", threads)} if has_fp16() else {}),
        "torch.compile fp32": eager_compiled,
        "samdeploy onnxruntime fp32": onnxruntime(folded, threads),
        "samdeploy openvino fp32": openvino(folded, "f32", threads),
        "samdeploy openvino bf16": openvino(folded, "bf16", threads),
        **({"samdeploy openvino fp16": openvino(fp16, "f16", threads)} if has_fp16() else {}),
        "samdeploy onnxruntime int8": onnxruntime(int8, threads),
        "samdeploy openvino int8": openvino(int8, "f32", threads),
    }


def build_bounds(px: int, spec: ModelSpec, threads: int) -> dict[str, Run]:
    """The same network with its gates left out, folded: the time of the convolutions alone."""
    net, bare = network(px, None, arch=spec.arch, gate="none")
    graph = serialize(graph_from_model(fold(net), bare))
    return {
        f"{NO_ATTENTION} onnxruntime fp32": onnxruntime(graph, threads),
        f"{NO_ATTENTION} openvino fp32": openvino(graph, "f32", threads),
    }


def has_fp16() -> bool:
    """Whether OpenVINO computes in FP16 on this processor, rather than saying so."""
    return "FP16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def onnxruntime(graph: bytes, threads: int) -> Run:
    session = inference_session(graph, threads)
    return lambda batch: session.run(None, {"image": batch})[0]


def inference_session(graph: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def openvino(graph: bytes, precision: str, threads: int) -> Run:
    core = ov.Core()
    compiled = core.compile_model(
        core.read_model(graph),
        "CPU",
        {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads},
    )
    request = compiled.create_infer_request()
    return lambda batch: request.infer({0: batch}, share_inputs=True)[0].copy()


def matrix_product(kind: str, threads: int) -> Callable[[], object]:
    """A product of two matrices `_SIDE` x `_SIDE`: in PyTorch; int8 (u8 times s8) in ONNX Runtime."""
    if kind != "int8":
        types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        left = torch.ones((_SIDE, _SIDE), dtype=types[kind])
        return lambda: left @ left
    factor = np.ones((_SIDE, _SIDE), np.uint8)
    product = helper.make_graph(
        [helper.make_node("MatMulInteger", ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, [_SIDE, _SIDE])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [_SIDE, _SIDE])],
        [numpy_helper.from_array(factor.view(np.int8), "right")],  # a weight: packed once, at opening
    )
    model = helper.make_model(product, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = inference_session(model.SerializeToString(), threads)
    return lambda: session.run(None, {"left": factor})


def rate(product: Callable[[], object]) -> float:
    """Billions of multiplications and additions per second."""
    product()
    start = time.perf_counter()
    product()
    return 2 * _SIDE**3 / (time.perf_counter() - start) / 1e9


def _report(
    px: int,
    batch: int,
    cost: dict[str, int],
    times: dict[str, list[float]],
    differences: dict[str, float],
    peaks: dict[str, list[float]],
) -> dict[str, Any]:
    median = {name: statistics.median(values) for name, values in times.items()}
    best = min(AS_TRAINED, key=median.__getitem__)
    gflop = 2 * sum(cost.values()) * batch / 1e9
    # The best, not the median: a peak that something else on the machine held down is none.
    peak = {kind: max(values) for kind, values in peaks.items()}
    rates = ", ".join(f"{peak[kind]:.0f} {kind}" for kind in peak)
    print(f"matrix product, billion operations/s: {rates}; {gflop:.2f} billion per batch")
    print(f"{'engine':<29} {'ms':>6} {'p10':>7} {'p90':>7} {'ratio':>6} {'of peak':>8} {'diff':>8}")
    rows = []
    for name, values in times.items():
        ratios = [b / t for b, t in zip(times[best], values, strict=True)]
        low, high = np.percentile(values, [10, 90]) * 1e3
        of = peak[name.rsplit(maxsplit=1)[-1]]
        row = {
            "engine": name,
            "median_ms": median[name] * 1e3,
            "p10_ms": low,
            "p90_ms": high,
            "ratio_to_fastest_as_trained": statistics.median(ratios),
            "ratio_p10": float(np.percentile(ratios, 10)),
            "ratio_p90": float(np.percentile(ratios, 90)),
            "share_of_peak_percent": None if name.startswith(NO_ATTENTION) else 100 * gflop / median[name] / of,
            "max_difference_of_range": differences.get(name),
        }
        rows.append(row)
        line = f"{name:<29} {row['median_ms']:6.1f} {low:7.1f} {high:7.1f} {row['ratio_to_fastest_as_trained']:5.2f}x"
        if name in differences:
            line += f" {row['share_of_peak_percent']:6.0f} % {row['max_difference_of_range']:8.1e}"
        print(line)
    sys.stdout.flush()
    return {"px": px, "batch": batch, "fastest_as_trained": best, "gflop": gflop, "peak_gflops": peak, "rows": rows}


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
