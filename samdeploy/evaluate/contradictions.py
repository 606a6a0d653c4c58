"""Bundles that contradict themselves: every file has its hash, and yet they are not all of one network.

Who edits a bundle writes the hashes anew, so only comparing its parts shows that something was exchanged.  Needs no
PyTorch: what a missing runtime would compare is left out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends import availability, open_session
from samdeploy.backends.difference import difference_shares, image_ranges
from samdeploy.backends.golden import GOLDEN_TOLERANCE, golden_error, sum_error, sum_tolerance
from samdeploy.backends.names import MAP_BACKENDS
from samdeploy.bundle import Bundle
from samdeploy.bundle.fields import short
from samdeploy.bundle.manifest import BundleFile
from samdeploy.bundle.measured import model_sha256
from samdeploy.bundle.names import BUNDLE_FOLDER, MANIFEST, RUN_FILE
from samdeploy.data.duplicates.bundle_hashes import ROLES
from samdeploy.errors import BackendUnavailable, BundleError, FileSizeLimit, first_line
from samdeploy.runs.locate import unlike_its_run


def find_contradictions(bundle: Bundle, *, answers: bool = True) -> tuple[str, ...]:
    """What does not fit together, worst first, each with file and cure; empty for a bundle as it was exported.

    Args:
        bundle: whose files are as the manifest states.
        answers: whether to run its networks, which takes seconds.
    """
    found = [*_measured(bundle), *(_answers(bundle) if answers else ()), *_entries(bundle), *_engines(bundle)]
    cure = f"make the bundle again: samdeploy export {_run(bundle)}"
    other_run = unlike_its_run(bundle)
    return (*(f"{text}; {cure}" for text in found), *([other_run] if other_run else []))


def _run(bundle: Bundle) -> str:
    run = bundle.root.resolve().parent
    return str(run) if bundle.root.resolve().name == BUNDLE_FOLDER and (run / RUN_FILE).is_file() else "RUN"


def _entries(bundle: Bundle) -> Iterator[str]:
    """Names and files that the manifest states twice."""
    classes = [name for name, count in Counter(bundle.spec.classes).items() if count > 1]
    if classes:
        yield f"{MANIFEST}: the class {short(classes[0])} is named more than once"
    twice: dict[tuple[str | None, ...], list[BundleFile]] = {}
    for file in bundle.files:
        # Engines of one precision may be built for several targets.
        target = (file.built_for.get("runtime"), file.built_for.get("target")) if file.role == "engine" else ()
        twice.setdefault((file.role, file.backend, file.precision, *target), []).append(file)
    for files in twice.values():
        if len(files) > 1:
            what = " ".join(filter(None, (files[0].precision, files[0].role)))
            yield f"{files[1].path}: a second file for {what}, beside {files[0].path}"


def _engines(bundle: Bundle) -> Iterator[str]:
    graphs = {file.sha256: file for file in bundle.select("graph")}
    for engine in bundle.select("engine"):
        graph = graphs.get(engine.built_for.get("graph", ""))
        if graph is None:
            yield f"{engine.path}: was built from a graph that is not in this bundle"
        elif graph.precision != engine.precision:
            yield f"{engine.path}: is {engine.precision}, and was built from {graph.path}, which is {graph.precision}"


def _measured(bundle: Bundle) -> Iterator[str]:
    """The manifest against what training recorded in it."""
    measured, weights = bundle.measured, bundle.find("weights")
    if measured is None:
        return
    if weights is not None and weights.sha256 != measured.weights_sha256:
        yield f"{weights.path}: is not the file of epoch {measured.epoch} that training measured"
    if model_sha256(bundle.spec) != measured.model_sha256:
        yield f"{MANIFEST}: its architecture, classes or preprocessing are not those that were trained"
    yield from _hashes(bundle)
    for name, split in (("val", measured.val), ("test", measured.test)):
        count = bundle.data.counts.get(name, 0)
        # Of an imported network's val some are measured, and none need be.
        some = measured.epoch == 0 and name == "val"
        if split is not None and not (1 if some else count) <= split.images <= count:
            yield f"{MANIFEST}: data.counts names {count} {name} images, training measured {split.images}"


def _hashes(bundle: Bundle) -> Iterator[str]:
    """Whether the images it was trained on can be known again: each has one row, copies share theirs."""
    for split, role in ROLES.items():
        images, file = bundle.data.counts.get(split, 0), bundle.find(role)
        rows = len(bundle.array(role, np.dtype(np.uint64), (2,))) if file is not None else 0
        if file is None and images:
            yield f"{MANIFEST}: names no {role}, the hashes of its {images:,} {split} images"
        elif file is not None and not min(images, 1) <= rows <= images:
            yield f"{file.path}: holds {rows:,} hashes of {images:,} {split} images"


def _is_as_trained(bundle: Bundle) -> bool:
    measured, weights = bundle.measured, bundle.find("weights")
    if measured is None or weights is None:
        return False
    return weights.sha256 == measured.weights_sha256 and model_sha256(bundle.spec) == measured.model_sha256


def _path(bundle: Bundle, role: str) -> str:
    return next(file.path for file in bundle.files if file.role == role)


def _answers(bundle: Bundle) -> Iterator[str]:
    """Weights and graphs that answer the golden images otherwise, and maps that are not the network's."""
    try:
        images, golden = bundle.golden()
    except BundleError as problem:
        yield str(problem)
        return
    texts, trained = _maps(bundle, "weights", ("pytorch",), images, golden)
    if texts and _is_as_trained(bundle):  # the golden answers are wrong, and would accuse every graph
        yield f"{_path(bundle, 'golden_logits')}: is not what {_path(bundle, 'weights')} answers"
        return
    yield from texts
    if availability("onnxruntime") is None:
        for file in bundle.select("graph"):
            yield from _graph(bundle, file, images, golden)
    runtimes = [name for name in MAP_BACKENDS if name != "pytorch"]
    texts, drawn = _maps(bundle, "cam_graph", runtimes, images, golden)
    yield from texts
    cam = bundle.find("cam_graph")
    if cam is not None and drawn is not None and trained is not None:
        error = float(difference_shares(drawn, trained, image_ranges(trained)).max())
        yield from _departure(cam.path, error, "its maps are")
    elif cam is not None and drawn is not None and sum_error(drawn, golden) > sum_tolerance("fp32"):
        yield f"{cam.path}: its maps do not add up to the logits"


def _maps(
    bundle: Bundle, role: str, backends: Iterable[str], images: UInt8Array, golden: Float32Array
) -> tuple[list[str], Float32Array | None]:
    """What is wrong with the file of `role`, asked by the first of `backends` that runs here; else its maps
    float32 [n, K, h, w], None where nothing runs it, or the bundle has no graph of maps.

    PyTorch's session of maps answers with the network's own logits, so that one pass compares both.
    """
    file, drawn = bundle.find(role), bundle.find("cam_graph") is not None
    for backend in backends if file is not None else ():
        assert file is not None
        if availability(backend) is not None:
            continue
        try:
            with open_session(bundle, backend, device="cpu", maps=drawn, check=False) as session:
                logits, maps = session.run_with_maps(images) if drawn else (session.run(images), None)
        except BackendUnavailable:
            continue
        except Exception as problem:  # whatever a runtime raises on a file that is none of its own
            return [f"{file.path}: {backend} cannot run it ({first_line(problem)})"], None
        texts = [*_departure(file.path, golden_error(logits, golden, "fp32"))]
        return texts, None if texts else maps
    return [], None


def _graph(bundle: Bundle, file: BundleFile, images: UInt8Array, golden: Float32Array) -> Iterator[str]:
    from samdeploy.backends.onnxruntime.session import emulate

    precision = file.precision or "fp32"
    try:
        found = emulate(bundle.read(file), images)
    except FileSizeLimit:
        return  # says nothing about the graph; opening its engine names the limit
    except Exception as problem:  # whatever ONNX Runtime raises on a graph that is none
        yield f"{file.path}: onnxruntime cannot run it ({first_line(problem)})"
    else:
        yield from _departure(file.path, golden_error(found, golden, precision), precision=precision)


def _departure(path: str, error: float, what: str = "its answers are", precision: str = "fp32") -> Iterator[str]:
    if not error <= GOLDEN_TOLERANCE[precision]:
        size = f"off by {error:.1e} of the range" if math.isfinite(error) else "missing or not finite"
        yield f"{path}: {what} not those of the trained network on the golden images ({size})"
