"""`samdeploy eval`: the test set through each engine, paired with PyTorch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends import BACKENDS, open_session, precisions_held
from samdeploy.backends.reference import reference_name
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle import Bundle
from samdeploy.bundle.golden import proves_nothing
from samdeploy.bundle.names import MANIFEST
from samdeploy.data.cache import stream_prepared
from samdeploy.data.dataset import Samples
from samdeploy.data.duplicates.leaks import LeakReport
from samdeploy.data.images import Fingerprint
from samdeploy.errors import OTHER_WEIGHTS, BackendUnavailable, BundleError, Contradiction, SamdeployError
from samdeploy.evaluate.accuracy.against_training import AgainstTraining, compare_with_training, not_recorded
from samdeploy.evaluate.accuracy.facts import ImageFacts, image_facts, logit_spread
from samdeploy.evaluate.consistency.probes import ProbeReference, probe_reference
from samdeploy.evaluate.contradictions import find_contradictions
from samdeploy.evaluate.evaluate_engine import SAMPLE, Case, evaluate_engine
from samdeploy.evaluate.machine import machine, versions
from samdeploy.evaluate.options import ALL, EvalOptions
from samdeploy.evaluate.passes import BATCH, EngineStopped, engine_pass, reference_pass
from samdeploy.evaluate.result import Report, Result
from samdeploy.evaluate.test_set.examine import Examined, examine
from samdeploy.evaluate.test_set.open import AS_AT_TRAINING, TestSet, open_test_set, same_as_at_training
from samdeploy.evaluate.test_set.prepared import PreparedImages

# "all" leaves PyTorch out: it is what the others are compared with.
_ENGINES = tuple(backend for backend in BACKENDS if backend != "pytorch")


def evaluate_bundle(bundle: Bundle, options: EvalOptions) -> Report:
    """Every test image through each engine and through the network as trained.

    Raises:
        BundleError: a file of the bundle was changed or is unsafe, or it has no golden images: no application could
            open it.
        BackendUnavailable: the reference, PyTorch, cannot run here.
        DatasetError: the test images are missing or damaged, or the disk has no room for them.
        InputError: the classes of the data set are not the bundle's; the engine named never has that device.
        Contradiction: any of these, of a bundle that contradicts itself: that comes first, where images that were
            named can be opened or no network need be run to see it.
    """
    bundle.verify()
    try:
        test = open_test_set(bundle, options.data_root)
    except SamdeployError as error:  # said at once: running the networks takes seconds
        if contradictions := find_contradictions(bundle, answers=options.data_root is None):
            raise Contradiction("; ".join(contradictions)) from error
        raise
    # Used only once all images went through an engine; that the package is missing should be known before.
    import scipy.stats  # noqa: F401

    contradictions = find_contradictions(bundle)
    try:
        return _report(bundle, options, test, contradictions)
    except SamdeployError as error:
        if contradictions:
            raise Contradiction("; ".join(contradictions)) from error
        raise


def _report(bundle: Bundle, options: EvalOptions, test: TestSet, contradictions: tuple[str, ...]) -> Report:
    golden = bundle.golden()
    preprocessing = bundle.spec.preprocessing
    with PreparedImages(len(test.samples), preprocessing.height, preprocessing.width) as images:
        reference, fingerprint, probes = _reference(bundle, options, test, images, golden[0])
        found = examine(bundle, test.samples, images)
        against = compare_with_training(bundle, found.hashes.digests, found.hashes.labels, reference.argmax(axis=1))
        spread = np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).round().astype(np.int64)
        sample = images.take(spread)
        rows = found.distinct
        labels, logits = test.samples.labels[rows], reference[rows]

        def ask(session: CheckedSession) -> ImageFacts:
            engine = f"{session.backend} {session.precision}"
            found = engine_pass(session, images, logits.shape[1], engine)
            return image_facts(found, logits, labels, bundle.temperature)

        case = Case(bundle, options, ask, images.take, rows, sample, golden, probes)
        results = tuple(evaluate_engine(case, backend, precision) for backend, precision in engines_of(bundle, options))
    same = AS_AT_TRAINING if against and against.same_labels else same_as_at_training(bundle, fingerprint)
    source = TestSource(fingerprint, same, test.notes, options.data_root)
    return report_of(bundle, options, (found, against), results, source, contradictions)


@dataclass(frozen=True, slots=True)
class TestSource:
    """Where the test images are from, and notes on their files; the others are as in `Report`."""

    # pytest would take the name for a class of tests.
    __test__ = False

    fingerprint: str
    test_set: str
    notes: tuple[str, ...]
    data_root: Path | None


def report_of(
    bundle: Bundle,
    options: EvalOptions,
    images: tuple[Examined, AgainstTraining | None],
    results: Sequence[Result],
    source: TestSource,
    contradictions: tuple[str, ...],
) -> Report:
    """Everything that was found, with the verdict.

    Args:
        images: what is known of the test images, and of the trained network's accuracy on them.
        results: of the engines.
        contradictions: from `find_contradictions`.
    """
    found, against = images
    return Report(
        bundle=str(bundle.root),
        dataset=bundle.data.name,
        n_images=len(found.distinct),
        test_images=found.test_images,
        test_set=source.test_set,
        reference=reference_name(bundle),
        against_training=against,
        versions=versions(),
        machine=machine(),
        results=tuple(results),
        named=options.backend != ALL,
        margin=options.margin,
        confidence=options.confidence,
        floors=options.floors,
        class_names=bundle.spec.classes,
        manifest_sha256=hashlib.sha256((bundle.root / MANIFEST).read_bytes()).hexdigest(),
        test_fingerprint=source.fingerprint,
        notes=(*_notes(bundle, source, found.leaks), *found.notes, *found.test_images.notes()),
        left_out=tuple(_left_out(bundle, results)),
        leaks=found.leaks,
        faults=(
            *contradictions,
            *_golden_faults(*bundle.golden()),
            *([against.fault] if against and against.fault else []),
            *found.faults,
        ),
        test_set_faults=(
            *([against.fault] if against and against.fault and not against.same_labels else []),
            *found.faults,
        ),
        data_root=None if source.data_root is None else str(source.data_root.absolute()),
    )


def _golden_faults(images: UInt8Array, logits: Float32Array) -> Iterator[str]:
    if nothing := proves_nothing(images, logits):
        yield f"{nothing}: opening an engine proves nothing; make the bundle again: samdeploy export"


def _notes(bundle: Bundle, source: TestSource, leaks: LeakReport | None) -> tuple[str, ...]:
    # Export leaves copies of test images out, so no hash in the bundle tells of them.
    copies = bundle.provenance.get("trained_with_copies")
    own = [text for text in (not_recorded(bundle), copies and f"at import, {copies}") if text]
    return (*own, *source.notes, *(leaks.lines() if leaks else ()))


def _left_out(bundle: Bundle, results: Sequence[Result]) -> Iterator[str]:
    """The bundle's engines that nobody asked for, and its graphs that no engine ran."""
    asked = {(row.backend, row.precision) for row in results}
    missing = [engine for engine in engines_of(bundle, EvalOptions()) if engine not in asked]
    if missing:
        yield f"not asked for: {', '.join(f'{backend} {precision}' for backend, precision in missing)}"
    said = {row.precision for row in results if row.ran} | {precision for _, precision in missing}
    said |= {"fp32"} if "bf16" in said else set()
    for file in bundle.files:
        if file.role == "graph" and file.precision not in said:
            yield f"not judged: {file.path}, which no engine ran"


def _reference(
    bundle: Bundle, options: EvalOptions, test: TestSet, images: PreparedImages, golden: UInt8Array
) -> tuple[Float32Array, str, ProbeReference]:
    """The trained network's logits float32 [N, K], the fingerprint of the images, which are then in the file, and its
    answers to the probe images."""
    # Whether it answers the golden images is among the contradictions: those are reported, with all figures.
    with open_session(bundle, "pytorch", device=options.device, check=False) as session:
        logits, digest = reference_logits(bundle, session, test.samples, images)
        probes = probe_reference(session, golden, logit_spread(logits))
    return logits, digest.hexdigest(test.samples.labels), probes


def reference_logits(
    bundle: Bundle, session: CheckedSession, samples: Samples, images: PreparedImages
) -> tuple[Float32Array, Fingerprint]:
    """Decode test images into `images`, and ask the trained network.

    Args:
        session: the trained network.

    Returns:
        float32 [N, K], finite, and the fingerprint of the images.

    Raises:
        BackendUnavailable: it gave no answer.
        BundleError: its answers are not finite.
        DatasetError: images are missing or damaged.
    """
    digest = Fingerprint(images.shape)
    with closing(stream_prepared(samples, bundle.spec.preprocessing, description="test images", block=BATCH)) as blocks:
        try:
            logits = reference_pass(session, blocks, images, digest, len(bundle.spec.classes))
        except EngineStopped as stopped:
            name = reference_name(bundle)
            raise BackendUnavailable(f"the reference, {name} on {session.device}, {stopped}") from stopped
    if not np.isfinite(logits).all():
        raise BundleError(f"bundle {bundle.root}: the network's own logits are not finite; {OTHER_WEIGHTS}")
    return logits, digest


def engines_of(bundle: Bundle, options: EvalOptions) -> Iterator[tuple[str, str]]:
    """(backend, precision) of each engine that is asked for."""
    for backend in _ENGINES if options.backend == ALL else (options.backend,):
        held = precisions_held(bundle, backend)
        if options.precision is None:
            yield from ((backend, precision) for precision in held)
        # Of a plan that was never built there is nothing to say, unless it is asked for by name.
        elif options.backend != ALL or backend != "tensorrt" or options.precision in held:
            yield backend, options.precision
