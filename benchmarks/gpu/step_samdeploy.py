"""samdeploy itself on this GPU: a run with random weights, exported to a bundle, and every backend opened on it."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from child import emit, reason, run
from networks import Plan, calibrate, fresh

_CLASSES, _PX = 10, 64


def step(plan: Plan, work: Path, options: argparse.Namespace) -> None:
    from samdeploy.bundle import open_bundle

    run_dir = _run_directory(plan, work)
    if not _export(run_dir, "onnxruntime", "fp32", None):
        return
    _export(run_dir, "onnxruntime", "fp16", None)
    # TensorRT for the GPU here; where TensorRT-RTX refuses it, a plan for another GPU, whose refusal is then shown.
    if not _export(run_dir, "trt", "fp16", None):
        _export(run_dir, "trt-rtx", "fp16", "SM86")
    bundle = open_bundle(run_dir / "bundle")
    images = _digits()[0][:64].numpy()
    expected = _open(bundle, "pytorch", plan.device, "fp32", images, None)
    if expected is not None:
        for backend, precision in (("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("tensorrt", "fp16")):
            _open(bundle, backend, "cuda" if backend == "tensorrt" else plan.device, precision, images, expected)


def _run_directory(plan: Plan, work: Path) -> Path:
    from samdeploy.bundle.names import WEIGHTS_FILE
    from samdeploy.bundle.spec import Preprocessing
    from samdeploy.models import save_weights
    from samdeploy.runs.record import RunRecord, write_run

    torch.manual_seed(3)
    # 18 layers: random weights of 50 lose so much to FP16 that samdeploy rightly refuses to export them in it.
    small = replace(plan, depth=18, classes=_CLASSES, sizes=(_PX,))
    run_dir = work / "run"
    run_dir.mkdir()
    save_weights(calibrate(fresh(small, "sam"), _digits(), plan.device).cpu(), run_dir / WEIGHTS_FILE)
    record = RunRecord(
        arch=small.arch, options={"gate": "identity"}, classes=tuple("0123456789"),
        preprocessing=Preprocessing(_PX, _PX),
        dataset="digits", data_options={}, data_root="data", val_fraction=0.1, split_seed=0, counts={},
        fingerprints={}, status="complete", best_epoch=1, best_val_top1=0.0, best_val_loss=0.0, test_top1=None,
        test_correct=None, test_images=None, provenance={"made_by": "gpu_check, random weights"},
    )  # fmt: skip
    write_run(run_dir, record)
    return run_dir


def _digits() -> list[torch.Tensor]:
    """Training images of the data set that the bundle's golden images come from: uint8 [128, H, W, 3] each."""
    from samdeploy.bundle.spec import Preprocessing
    from samdeploy.data import load_images, open_dataset

    train = open_dataset("digits", Path("data"), val_fraction=0.1, seed=0).train
    images, _ = load_images(train, Preprocessing(_PX, _PX), description="digits")
    return list(torch.from_numpy(images[:256]).split(128))


def _export(run_dir: Path, engine: str, precision: str, target: str | None) -> bool:
    from samdeploy.export import ExportOptions, export_run

    row = {"kind": "export", "engine": engine, "precision": precision, "target": target or "here"}
    try:
        result = export_run(run_dir, ExportOptions(engine=engine, precision=precision, target=target))
    except Exception as error:
        emit(**row, status=f"failed: {reason(error)}")
        return False
    for made in result.rows:
        if made.engine == engine:
            emit(**row, status="ok", state=made.state, note=made.note, bytes=made.bytes)
    return True


def _open(bundle: Any, backend: str, device: str, precision: str, images: Any, expected: Any) -> Any:
    from samdeploy.backends import open_session
    from samdeploy.backends.difference import difference_shares, image_ranges

    row = {"kind": "session", "backend": backend, "precision": precision, "device": device}
    try:
        with open_session(bundle, backend, device=device, precision=precision) as session:
            pieces = [session.run(images[:size]) for size in (1, 3, 8, len(images))]
    except Exception as error:
        emit(**row, status=f"failed: {reason(error)}")
        return None
    logits = pieces[-1]
    if expected is None:
        emit(**row, status="ok", images=len(images))
        return logits
    ranges = image_ranges(expected)
    emit(
        **row,
        status="ok",
        images=len(images),
        max_diff_of_range=float(difference_shares(logits, expected, ranges).max()),
        top1_same=int((logits.argmax(1) == expected.argmax(1)).sum()),
        # The same image in batches of 1, 3, 8 and 64.
        max_diff_between_batches=max(
            float(difference_shares(piece, logits[: len(piece)], ranges[: len(piece)]).max()) for piece in pieces
        ),
    )
    return logits


if __name__ == "__main__":
    run(step)
