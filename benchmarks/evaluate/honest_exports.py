"""Honest engines under the checks that look for dishonest ones: how far they depart, and whether any is accused.

    .venv/bin/python benchmarks/evaluate/honest_exports.py [--out FILE.json] [--epochs 2] [--runs 6]

Trains small networks on scikit-learn's digits with different seeds, depths and gates, exports each, and asks every
engine that runs here the golden images and the consistency checks.  Exits with 1 if one is accused: that is a false
alarm, or a fault that deserves to be found.  The largest departure of each precision, at the end, is what the
tolerances stand on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from samdeploy.backends import open_session
from samdeploy.backends.golden import GOLDEN_TOLERANCE, check_golden
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.data import load_images, open_dataset
from samdeploy.errors import BackendUnavailable, BundleError, ExportError, InputError
from samdeploy.evaluate.consistency.run import TOLERANCE, check_consistency, larger_batches, largest_batch
from samdeploy.export import ExportOptions, export_run
from samdeploy.train.loop.train import train
from samdeploy.train.recipe.load import load_recipe

# Networks with attention that is trained, and one that is hardly trained: its logits nearly cancel.
NETWORKS = (
    ("sam-resnet18", "original", 1, 1.0),
    ("sam-resnet18", "identity", 2, 1.0),
    ("sam-resnet34", "identity", 3, 1.0),
    ("sam-resnet18", "original", 4, 1.0),
    ("sam-resnet34", "original", 5, 1.0),
    ("sam-resnet50", "identity", 6, 0.5),
)
ENGINES = (
    ("pytorch", "fp32"),
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("onnxruntime", "int8"),
    ("openvino", "int8"),
    ("onnxruntime", "fp16"),
    ("openvino", "fp16"),
    ("tensorrt", "fp32"),
    ("tensorrt", "fp16"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One engine: the golden images' difference as a share of their range, and the consistency checks."""

    network: str
    backend: str
    precision: str
    device: str
    golden: float | None
    consistency: dict[str, Any] | None
    said: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--runs", type=int, default=len(NETWORKS), help="the first so many networks")
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    start = time.monotonic()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for arch, gate, seed, share in NETWORKS[: options.runs]:
            rows += network_rows(
                Path(folder) / str(seed), arch, gate, seed, max(1, round(options.epochs * share)), options.repeats
            )
    ran = [row for row in rows if row.consistency is not None]
    accused = [row for row in ran if not row.consistency["passed"]]  # type: ignore[index]
    print(f"\n{len(ran)} engines, {len(accused)} accused, {time.monotonic() - start:.0f} s")
    for precision, largest in _largest(ran).items():
        print(f"  {precision}: worst {largest:.1e} of the range, {TOLERANCE[precision]:.0e} allowed")
    report = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {
            name: version(name) for name in ("samdeploy", "torch", "onnxruntime", "openvino", "onnx", "numpy")
        },
        "python": platform.python_version(),
        "epochs": options.epochs,
        "repeats": options.repeats,
        "tolerance": TOLERANCE,
        "golden_tolerance": GOLDEN_TOLERANCE,
        "largest": _largest(ran),
        "engines": len(ran),
        "accused": len(accused),
        "rows": [asdict(row) for row in rows],
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if accused else 0


def network_rows(folder: Path, arch: str, gate: str, seed: int, epochs: int, repeats: int) -> list[Row]:
    """Train and export one network, and examine all its engines."""
    name = f"{arch} {gate} {seed}"
    settings = [
        *(f"model.arch={arch}", f"model.gate={gate}", f"training.seed={seed}", f"training.epochs={epochs}"),
        *("training.batch_size=32", "training.device=cpu", "data.val_fraction=0.5"),
    ]
    run = train(load_recipe("digits", settings), runs_root=folder)
    said = ""
    export_run(run, ExportOptions())
    try:
        # "all" would turn a missing INT8 graph into a row; by name it is an error that says why.
        export_run(run, ExportOptions(engine="onnxruntime", precision="int8", max_drop=5.0))
    except ExportError as error:
        said = str(error)
    bundle = open_bundle(run / "bundle")
    spec = bundle.spec.preprocessing
    digits = open_dataset("digits", val_fraction=0.5, seed=0)
    images, _ = load_images(digits.test, spec, description="digits")
    rows = []
    for backend, precision in ENGINES:
        if precision == "int8" and said:
            rows.append(Row(name, backend, precision, "", None, None, said))
        else:
            rows.append(examine(bundle, name, backend, precision, images, repeats))
        _print(rows[-1])
    return rows


def examine(
    bundle: Bundle,
    name: str,
    backend: str,
    precision: str,
    images: np.ndarray,
    repeats: int,
    *,
    limit_s: float | None = None,
) -> Row:
    """Golden images and consistency of one engine; `limit_s`: at most so many seconds for the latter."""
    try:
        session = open_session(bundle, backend, precision=precision, check=False)
    except (BackendUnavailable, InputError) as error:
        return Row(name, backend, precision, "", None, None, str(error))
    with session:
        said, golden = "", None
        try:
            golden = check_golden(session, *bundle.golden())
        except BundleError as error:
            said = str(error)
        largest = largest_batch(bundle, backend, precision)
        found = check_consistency(
            lambda: open_session(bundle, backend, precision=precision, check=False), session, images,
            max_batch=largest, large=larger_batches(images, largest), repeats_wanted=repeats, limit_s=limit_s,
        )  # fmt: skip
        result = found.to_json()
        result["passed"] = result["passed"] and golden is not None
        return Row(name, backend, precision, session.device, golden, result, said or found.verdict)


def _largest(rows: list[Row]) -> dict[str, float]:
    """Precision -> the largest departure of any check of any engine; a missing answer counts as 1."""
    found: dict[str, float] = {}
    for row in rows:
        for check in row.consistency["checks"] if row.consistency else ():
            worst = 1.0 if check["worst"] is None else check["worst"]
            found[row.precision] = max(found.get(row.precision, 0.0), worst)
    return found


def _print(row: Row) -> None:
    start = f"{row.network:<24} {row.backend:<11} {row.precision:<4}"
    if row.consistency is None:
        print(f"{start} not run: {row.said[:80]}", flush=True)
        return
    golden = "failed" if row.golden is None else f"{row.golden:.1e}"
    worst = " ".join(f"{1.0 if check['worst'] is None else check['worst']:.0e}" for check in row.consistency["checks"])
    exact = "bit-equal" if row.consistency["bit_equal"] else "not bit-equal"
    said = "ok" if row.consistency["passed"] else f"ACCUSED {row.said}"
    print(f"{start} golden {golden} checks {worst} {row.consistency['seconds']:.1f} s {exact} {said}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
