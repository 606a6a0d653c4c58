"""`samdeploy eval`: the test set through each engine, paired with PyTorch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import samdeploy
from samdeploy.backends import BACKENDS, DEFAULT_PRECISION, Session, open_session
from samdeploy.backends.session import DEVICES
from samdeploy.bundle import Bundle, Float32Array, UInt8Array
from samdeploy.data import fingerprint, load_images, open_dataset
from samdeploy.data.dataset import Int64Array
from samdeploy.errors import BackendUnavailable, BundleError, DatasetError, InputError, unknown
from samdeploy.evaluate.accuracy import compare
from samdeploy.evaluate.gate import broken_promises
from samdeploy.evaluate.latency import measure_latency
from samdeploy.evaluate.report import AS_AT_TRAINING, Report, Result
from samdeploy.progress import progress_bar
from samdeploy.run import RUN_FILE, open_run
from samdeploy.spec import PRECISIONS

BATCH = 64
ALL = "all"
# "all" leaves PyTorch out: it is what the others are compared with.
_ENGINES = tuple(backend for backend in BACKENDS if backend != "pytorch")
_PACKAGES = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx-cu13", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What to evaluate.

    Attributes:
        backend: a key of `BACKENDS`, or "all".
        precision: None: what the bundle's TensorRT engines have, and each other backend's default.
        device: "cpu", "cuda" or "auto", for the engine and the reference alike.
        data_root: where the data set lies; None: where training found it.
    """

    backend: str = ALL
    precision: str | None = None
    device: str = "auto"
    data_root: Path | None = None


def evaluate_bundle(bundle: Bundle, options: EvalOptions) -> Report:
    """Every test picture through each engine and through the network as trained.

    Raises:
        InputError: an unknown backend, precision or device.
        BundleError: a file of the bundle was changed or is unsafe.
        BackendUnavailable: the reference, PyTorch, cannot run here.
        DatasetError: the test pictures are missing or damaged.
    """
    if options.backend not in (*BACKENDS, ALL):
        raise InputError(unknown("backend", options.backend, (*BACKENDS, ALL)))
    # Before the test set is read and run through the network, which may take minutes.
    if options.device not in DEVICES:
        raise InputError(unknown("device", options.device, DEVICES))
    if options.precision is not None and options.precision not in PRECISIONS:
        raise InputError(unknown("precision", options.precision, PRECISIONS))
    bundle.verify()
    images, labels, test_set = _test_images(bundle, options.data_root)
    with open_session(bundle, "pytorch", device=options.device) as session:
        reference = _run_all(session, images, "pytorch")
    if not np.isfinite(reference).all():
        raise BundleError(f"bundle {bundle.root}: the network's own logits are not finite; train again")
    named = options.backend != ALL
    results = tuple(
        _evaluate(bundle, backend, precision, options.device, images, labels, reference, named=named)
        for backend, precision in _engines(bundle, options)
    )
    ran = [result for result in results if result.ran]
    passed = bool(ran) and all(result.passed for result in (results if named else ran))
    return Report(
        bundle=str(bundle.root),
        dataset=bundle.data.name,
        n_images=len(images),
        test_set=test_set,
        versions=_versions(),
        machine=f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        results=results,
        passed=passed,
    )


def _engines(bundle: Bundle, options: EvalOptions) -> Iterator[tuple[str, str]]:
    for backend in _ENGINES if options.backend == ALL else (options.backend,):
        if options.precision is not None:
            yield backend, options.precision
        elif backend == "tensorrt":
            # Several targets may share a precision; one of them fits this machine, or none does.
            found = {file.precision: None for file in bundle.select("engine", backend=backend)}
            yield from ((backend, precision) for precision in found or [DEFAULT_PRECISION[backend]] if precision)
        else:
            yield backend, DEFAULT_PRECISION[backend]


def _evaluate(
    bundle: Bundle,
    backend: str,
    precision: str,
    device: str,
    images: UInt8Array,
    labels: Int64Array,
    reference: Float32Array,
    *,
    named: bool,
) -> Result:
    try:
        # Without the golden images: the whole test set says more, and says it as a row instead of an error.
        session = open_session(bundle, backend, device=device, precision=precision, check=False)
    except (BackendUnavailable, InputError) as error:
        # A device or precision that this runtime never has: the user's mistake only where the runtime was named.
        if named and isinstance(error, InputError):
            raise
        return Result(backend, precision, "", False, str(error), None, None, False)
    with session:
        logits = _run_all(session, images, f"{backend} {precision}")
        comparison = compare(logits, reference, labels)
        latency = measure_latency(session, images)
    broken = broken_promises(comparison, precision)
    return Result(backend, precision, session.device, True, "; ".join(broken), comparison, latency, passed=not broken)


def _run_all(session: Session, images: UInt8Array, description: str) -> Float32Array:
    parts = []
    with progress_bar(description, len(images)) as advance:
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            parts.append(session.run(batch))
            advance(len(batch), "")
    return np.concatenate(parts)


def _test_images(bundle: Bundle, data_root: Path | None) -> tuple[UInt8Array, Int64Array, str]:
    data = bundle.data
    root = _data_root(bundle, data_root)
    try:
        dataset = open_dataset(
            data.name, root, options=data.options, val_fraction=data.val_fraction, seed=data.split_seed
        )
    except DatasetError as error:
        raise DatasetError(f"{error}; if the files lie elsewhere, name their folder: --data DIR") from None
    if dataset.classes != bundle.spec.classes:
        raise InputError(
            f"data set {data.name!r} has {len(dataset.classes)} classes ({', '.join(dataset.classes[:5])}, ...), the "
            f"bundle was trained on {len(bundle.spec.classes)} ({', '.join(bundle.spec.classes[:5])}, ...): "
            "these are not its pictures; give their folder with --data"
        )
    images, labels = load_images(dataset.test, bundle.spec.preprocessing, description="test images")
    recorded = data.fingerprints.get("test")
    if recorded is None:
        test_set = "not recorded at training"
    elif recorded == fingerprint(images, labels):
        test_set = AS_AT_TRAINING
    else:
        test_set = "differs from the one at training"
    return images, labels, test_set


def _data_root(bundle: Bundle, data_root: Path | None) -> Path:
    """The folder of the data: as given, else as the run beside the bundle recorded it, else "data"."""
    if data_root is not None:
        return data_root
    run_dir = bundle.root.resolve().parent
    return Path(open_run(run_dir).data_root) if (run_dir / RUN_FILE).is_file() else Path("data")


def _versions() -> dict[str, str]:
    found = {"samdeploy": samdeploy.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """The processor's name; `platform.processor()` is empty on most Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
