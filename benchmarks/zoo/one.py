"""One architecture the whole way, stage by stage; started by zoo.py in a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from architectures import parse
from network import write_random_run

from samdeploy.backends import open_session
from samdeploy.backends.difference import difference_shares, image_ranges
from samdeploy.backends.golden import golden_error
from samdeploy.backends.onnxruntime.session import emulate
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.data import load_images, open_dataset
from samdeploy.errors import SamdeployError
from samdeploy.evaluate.evaluate import evaluate_bundle
from samdeploy.evaluate.latency import measure
from samdeploy.evaluate.options import EvalOptions
from samdeploy.export import ExportOptions, export_run
from samdeploy.export.int8.search import quantize_graph

BATCHES = (1, 3, 7)
TARGET = "SM86"
# Points of top-1: random weights have no accuracy to lose.
MAX_DROP = 100.0
CONSISTENCY_S = 1.0


class Failed(Exception):
    """A stage ended the way of this architecture."""


STAGES = ("build", "export", "engines", "int8", "cpp", "eval")


def main(row: dict[str, Any], images: Path, work: Path, probe: str, wanted: Sequence[str]) -> dict[str, Any]:
    """The row with the stages in `wanted` that it does not have; what they need lies in `work`."""
    arch, options = parse(row["name"])
    run_dir = work / "run"
    todo = {
        "build": lambda: built(run_dir, arch, options, images),
        "export": lambda: exported(run_dir),
        "engines": lambda: differences(open_bundle(run_dir / "bundle")),
        "int8": lambda: quantised(open_bundle(run_dir / "bundle"), images),
        "cpp": lambda: cpp(open_bundle(run_dir / "bundle"), probe, work),
        "eval": lambda: evaluated(open_bundle(run_dir / "bundle")),
    }
    try:
        for title in STAGES:
            if title in wanted and title not in row["stages"]:
                row.update(stage(row, title, todo[title]))
        row["ok"] = all(title in row["stages"] for title in STAGES)
    except Failed as failed:
        row["ok"], row["failed"] = False, str(failed)
    return row


def built(run_dir: Path, arch: str, options: dict[str, str], images: Path) -> dict[str, Any]:
    model = write_random_run(run_dir, arch, dict(options), images)
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def stage(row: dict[str, Any], title: str, work: Callable[[], Any]) -> Any:
    """Do one stage and note its seconds.

    Raises:
        Failed: it raised; the row holds the reason.
    """
    start = time.perf_counter()
    try:
        return work()
    except Exception as error:
        row["reason"] = str(error) if isinstance(error, SamdeployError) else traceback.format_exc()[-3000:]
        row["refused"] = isinstance(error, SamdeployError)
        raise Failed(title) from error
    finally:
        row["stages"][title] = round(time.perf_counter() - start, 2)


def exported(run_dir: Path) -> dict[str, Any]:
    """`samdeploy export --engine trt-rtx --precision fp16 --target SM86`."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        result = export_run(run_dir, ExportOptions(engine="trt-rtx", precision="fp16", target=TARGET))
    lines = said.getvalue().splitlines()
    bundle = open_bundle(result.bundle)
    return {
        "px": bundle.spec.preprocessing.height,
        "said": [line for line in lines if not line.startswith("no maps: ")],
        "maps": bundle.find("cam_graph") is not None,
        "no_maps": "; ".join(line.removeprefix("no maps: ") for line in lines if line.startswith("no maps: ")),
        "fp16_share": result.headroom.fp16_share,
        "fp16_kept": result.headroom.fp32,
        "plan_bytes": result.rows[0].bytes,
        "plan_note": result.rows[0].note,
    }


def differences(bundle: Bundle) -> dict[str, Any]:
    """Each runtime at several batch sizes, beside PyTorch, as shares of the range."""
    golden, logits = bundle.golden()
    found = {}
    for backend in ("onnxruntime", "openvino"):
        with open_session(bundle, backend, precision="fp32") as session:
            for batch in BATCHES:
                rows = np.arange(batch) % len(golden)
                answer = session.run(np.ascontiguousarray(golden[rows]))
                shares = difference_shares(answer, logits[rows], image_ranges(logits)[rows])
                found[f"{backend} {batch}"] = float(shares.max())
    return {"differences": found}


def quantised(bundle: Bundle, images: Path) -> dict[str, Any]:
    """What `samdeploy export --precision int8 --max-drop 100` does with the FP32 graph."""
    graph = bundle.find("graph", precision="fp32")
    assert graph is not None
    dataset = open_dataset("folder", images)
    size = bundle.spec.preprocessing
    (train, _), (val, labels) = (load_images(part, size, description="images") for part in (dataset.train, dataset.val))
    found = quantize_graph(bundle.read(graph), train, val, labels, max_drop=MAX_DROP)
    golden, logits = bundle.golden()
    error = golden_error(emulate(found.graph, golden), logits, "int8")
    return {"int8_share": found.int8_share_of_multiply_adds, "int8_error": error}


def cpp(bundle: Bundle, probe: str, work: Path) -> dict[str, Any]:
    """The C++ library's logits through OpenVINO, which must be Python's, bit for bit."""
    golden, _ = bundle.golden()
    (work / "pixels.bin").write_bytes(golden.tobytes())
    command = [probe, "run", bundle.root, "fp32", 0, work / "pixels.bin", len(golden), work / "logits.bin"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise SamdeployError(f"C++: exit {done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}")
    with open_session(bundle, "openvino", precision="fp32") as session:
        expected = session.run(golden)
    found = np.frombuffer((work / "logits.bin").read_bytes(), np.float32).reshape(expected.shape)
    if found.tobytes() != expected.tobytes():
        raise SamdeployError(f"C++: logits differ from Python's by up to {np.abs(found - expected).max():g}")
    return {"cpp": True}


def evaluated(bundle: Bundle) -> dict[str, Any]:
    """`samdeploy eval` of OpenVINO in FP32: every test image, the probes, and the engine against itself."""
    measure.RUNS, measure.LEAST_S, measure.WARM_UP_LIMIT_S = 30, 0.0, 0.0  # a latency that is not reported
    report = evaluate_bundle(bundle, EvalOptions("openvino", "fp32", device="cpu", consistency_s=CONSISTENCY_S))
    (row,) = report.results
    if not row.passed or report.faults:
        raise SamdeployError("; ".join(filter(None, [row.reason, row.below_minimum, *report.faults])))
    return {"eval": True}


def run(row: dict[str, Any], images: Path, work: Path, probe: str, stages: Sequence[str], log: Path) -> None:
    """In a process of its own; writes the row into `log`."""
    torch.set_num_threads(2)
    with contextlib.redirect_stdout(sys.stderr):
        row = main(row, images, work, probe, stages)
    log.write_text(json.dumps(row))
