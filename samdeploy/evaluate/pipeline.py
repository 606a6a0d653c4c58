"""`samdeploy eval`: the test set through each engine, paired with PyTorch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from samdeploy.arrays import Float32Array, Int64Array, UInt8Array
from samdeploy.backends import BACKENDS, open_session, precisions_held
from samdeploy.backends.cam import CAM_PRECISIONS, open_cam_session
from samdeploy.backends.session import Session, check_golden, golden_outliers
from samdeploy.bundle import Bundle
from samdeploy.data.cache import stream_prepared
from samdeploy.data.images import Fingerprint
from samdeploy.data.leaks import LeakReport
from samdeploy.errors import BackendUnavailable, BundleError, Contradiction, InputError, SamdeployError, unknown
from samdeploy.evaluate.accuracy import DEFAULT_CONFIDENCE, compare
from samdeploy.evaluate.against_training import compare_with_training, not_recorded
from samdeploy.evaluate.cam import compare_cams
from samdeploy.evaluate.checks import Consistency
from samdeploy.evaluate.consistency import check_consistency, larger_batches, largest_batch
from samdeploy.evaluate.contradictions import find_contradictions
from samdeploy.evaluate.examine import examine
from samdeploy.evaluate.floors import NO_FLOORS, Floors
from samdeploy.evaluate.gate import DEFAULT_MARGIN, Judgement, judge, worst_first
from samdeploy.evaluate.latency import measure_latency
from samdeploy.evaluate.machine import machine, versions
from samdeploy.evaluate.passes import BATCH, EngineStopped, engine_pass, reference_pass, said
from samdeploy.evaluate.pictures import PreparedPictures
from samdeploy.evaluate.probes import NoReference, ProbeAnswers, ProbeReference, compare_probes, probe_reference
from samdeploy.evaluate.report import NotMeasured, Part, Report, Result
from samdeploy.evaluate.test_set import AS_AT_TRAINING, TestSet, open_test_set, same_as_at_training
from samdeploy.evaluate.why import explain_if_possible, worst_pictures
from samdeploy.golden import proves_nothing
from samdeploy.manifest import MANIFEST
from samdeploy.spec import DEVICES, PRECISIONS

ALL = "all"
# "all" leaves PyTorch out: it is what the others are compared with.
_ENGINES = tuple(backend for backend in BACKENDS if backend != "pytorch")
# Seconds for the checks of one engine against itself; small networks need a few.
CONSISTENCY_S = 60.0
# Test pictures that stay in memory, for checks that need real ones but not all.
SAMPLE = 256


@dataclass(frozen=True, slots=True)
class EvalOptions:
    """What to evaluate.

    Attributes:
        backend: a key of `BACKENDS`, or "all".
        precision: None: all that the bundle holds for a backend, see `precisions_held`.
        device: "cpu", "cuda" or "auto", for the engine and the reference alike.
        data_root: where the data set lies; None: where training found it.
        margin: points of top-1 that an engine below FP32 may lose, above 0 and below 100.
        confidence: of the interval that must show it, from 0.5 and below 1.
        consistency_s: at most so many seconds for each engine's checks against itself; 0: none.
        floors: what every engine must reach beside the gate.
        why: where an engine fails, find the tensor of its graph that departs first.

    Raises:
        InputError: unknown names, or numbers out of range.
    """

    backend: str = ALL
    precision: str | None = None
    device: str = "auto"
    data_root: Path | None = None
    margin: float = DEFAULT_MARGIN
    confidence: float = DEFAULT_CONFIDENCE
    consistency_s: float = CONSISTENCY_S
    why: bool = False
    floors: Floors = NO_FLOORS

    def __post_init__(self) -> None:
        if self.backend not in (*BACKENDS, ALL):
            raise InputError(unknown("backend", self.backend, (*BACKENDS, ALL)))
        if self.device not in DEVICES:
            raise InputError(unknown("device", self.device, DEVICES))
        if self.precision is not None and self.precision not in PRECISIONS:
            raise InputError(unknown("precision", self.precision, PRECISIONS))
        if not 0 < self.margin < 100:
            hint = " (a loss of nothing at all cannot be shown; 0.1 is strict)" if self.margin == 0 else ""
            raise InputError(f"margin {self.margin:g} found, percentage points above 0 and below 100 expected{hint}")
        if not 0.5 <= self.confidence < 1:
            percent = 50 <= self.confidence < 100
            hint = f" (for {self.confidence:g} %: {self.confidence / 100:g})" if percent else ""
            raise InputError(f"confidence {self.confidence:g} found, a share from 0.5 and below 1 expected{hint}")
        if not 0 <= self.consistency_s < math.inf:
            raise InputError(f"consistency {self.consistency_s:g} found, seconds from 0 expected")


@dataclass(frozen=True, slots=True)
class _Case:
    """What every engine is judged by.

    Attributes:
        pictures, labels, reference: the distinct test images, int64 [N], and the trained network's logits
            float32 [N, K].
        places: int64 [N], where in the test set each of them is.
        sample: uint8 [n, H, W, 3], at most `SAMPLE` test pictures from all over the set.
        golden: the images and logits that the bundle tests itself with.
        probes: what the trained network answers to the probe images.
    """

    bundle: Bundle
    options: EvalOptions
    pictures: PreparedPictures
    labels: Int64Array
    reference: Float32Array
    places: Int64Array
    sample: UInt8Array
    golden: tuple[UInt8Array, Float32Array]
    probes: ProbeReference


def evaluate_bundle(bundle: Bundle, options: EvalOptions) -> Report:
    """Every test picture through each engine and through the network as trained.

    Raises:
        BundleError: a file of the bundle was changed or is unsafe, or it has no golden pictures: no application could
            open it.
        BackendUnavailable: the reference, PyTorch, cannot run here.
        DatasetError: the test pictures are missing or damaged, or the disk has no room for them.
        InputError: the classes of the data set are not the bundle's; the engine named never has that device.
        Contradiction: any of these, of a bundle that contradicts itself: that comes first.
    """
    # Used only once all pictures went through an engine; that the package is missing should be known before.
    import scipy.stats  # noqa: F401

    bundle.verify()
    contradictions = find_contradictions(bundle)
    try:
        return _report(bundle, options, contradictions)
    except SamdeployError as error:
        if contradictions:
            raise Contradiction("; ".join(contradictions)) from error
        raise


def _report(bundle: Bundle, options: EvalOptions, contradictions: tuple[str, ...]) -> Report:
    test = open_test_set(bundle, options.data_root)
    golden = bundle.golden()
    preprocessing = bundle.spec.preprocessing
    with PreparedPictures(len(test.samples), preprocessing.height, preprocessing.width) as pictures:
        reference, fingerprint, probes = _reference(bundle, options, test, pictures, golden[0])
        found = examine(bundle, test.samples, pictures)
        against = compare_with_training(bundle, found.hashes.digests, found.hashes.labels, reference)
        spread = np.linspace(0, len(pictures) - 1, min(SAMPLE, len(pictures))).round().astype(np.int64)
        sample = pictures.take(spread)
        rows = found.distinct
        case = _Case(
            bundle, options, pictures, test.samples.labels[rows], reference[rows], rows, sample, golden, probes
        )
        results = tuple(_evaluate(case, backend, precision) for backend, precision in _engines(bundle, options))
    return Report(
        bundle=str(bundle.root),
        dataset=bundle.data.name,
        n_images=len(rows),
        test_images=found.test_images,
        test_set=AS_AT_TRAINING if against and against.same_labels else same_as_at_training(bundle, fingerprint),
        against_training=against,
        versions=versions(),
        machine=machine(),
        results=results,
        named=options.backend != ALL,
        margin=options.margin,
        confidence=options.confidence,
        floors=options.floors,
        class_names=bundle.spec.classes,
        manifest_sha256=hashlib.sha256((bundle.root / MANIFEST).read_bytes()).hexdigest(),
        test_fingerprint=fingerprint,
        notes=(*_notes(bundle, test, found.leaks), *found.test_images.notes()),
        left_out=tuple(_left_out(bundle, results)),
        leaks=found.leaks,
        faults=(
            *contradictions,
            *_golden_faults(*bundle.golden()),
            *([against.fault] if against and against.fault else []),
            *found.faults,
        ),
    )


def _golden_faults(images: UInt8Array, logits: Float32Array) -> Iterator[str]:
    if nothing := proves_nothing(images, logits):
        yield f"{nothing}: opening an engine proves nothing; make the bundle again: samdeploy export"


def _notes(bundle: Bundle, test: TestSet, leaks: LeakReport | None) -> tuple[str, ...]:
    unknown_figure = not_recorded(bundle)
    return (*([unknown_figure] if unknown_figure else []), *test.notes, *(leaks.lines() if leaks else ()))


def _left_out(bundle: Bundle, results: Sequence[Result]) -> Iterator[str]:
    """The bundle's engines that nobody asked for, and its graphs that no engine ran."""
    asked = {(row.backend, row.precision) for row in results}
    missing = [engine for engine in _engines(bundle, EvalOptions()) if engine not in asked]
    if missing:
        yield f"not asked for: {', '.join(f'{backend} {precision}' for backend, precision in missing)}"
    said = {row.precision for row in results if row.ran} | {precision for _, precision in missing}
    said |= {"fp32"} if "bf16" in said else set()
    for file in bundle.files:
        if file.role == "graph" and file.precision not in said:
            yield f"not judged: {file.path}, which no engine ran"


def _reference(
    bundle: Bundle, options: EvalOptions, test: TestSet, pictures: PreparedPictures, golden: UInt8Array
) -> tuple[Float32Array, str, ProbeReference]:
    """The trained network's logits float32 [N, K], the fingerprint of the images, which are then in the file, and its
    answers to the probe images."""
    digest = Fingerprint(pictures.shape)
    blocks = stream_prepared(test.samples, bundle.spec.preprocessing, description="test images", block=BATCH)
    # Whether it answers the golden images is among the contradictions: those are reported, with all figures.
    with open_session(bundle, "pytorch", device=options.device, check=False) as session, closing(blocks):
        try:
            logits = reference_pass(session, blocks, pictures, digest, len(bundle.spec.classes))
        except EngineStopped as stopped:
            raise BackendUnavailable(f"the reference, pytorch on {session.device}, {stopped}") from stopped
        if not np.isfinite(logits).all():
            raise BundleError(f"bundle {bundle.root}: the network's own logits are not finite; train again")
        probes = probe_reference(session, golden, logits)
    return logits, digest.hexdigest(test.samples.labels), probes


def _engines(bundle: Bundle, options: EvalOptions) -> Iterator[tuple[str, str]]:
    for backend in _ENGINES if options.backend == ALL else (options.backend,):
        held = precisions_held(bundle, backend)
        if options.precision is None:
            yield from ((backend, precision) for precision in held)
        # Of a plan that was never built there is nothing to say, unless it is asked for by name.
        elif options.backend != ALL or backend != "tensorrt" or options.precision in held:
            yield backend, options.precision


def _evaluate(case: _Case, backend: str, precision: str) -> Result:
    row = partial(
        Result, backend, precision, date=datetime.now(UTC).isoformat(timespec="seconds"), machine=machine(),
        versions=versions(),
    )  # fmt: skip
    options = case.options
    try:
        # The golden images come later, as a promise among others: the whole test set says more than an error.
        session = open_session(case.bundle, backend, device=options.device, precision=precision, check=False)
    except (BackendUnavailable, InputError) as error:
        # A device or precision that this runtime never has: the user's mistake only where the runtime was named.
        if options.backend != ALL and isinstance(error, InputError):
            raise
        return row("", False, str(error), None, None, False)
    except BundleError as error:  # all files are as the manifest says: the engine itself is not what it is called
        return row("", True, str(error), None, None, False)
    with session:
        try:
            logits = engine_pass(session, case.pictures, len(case.bundle.spec.classes), f"{backend} {precision}")
        except EngineStopped as stopped:
            return row(session.device, True, str(stopped), None, None, False, n_images_done=stopped.n_images_done)
        comparison = compare(logits, case.reference, case.labels, confidence=options.confidence, places=case.places)
        row = partial(row, session.device, True, comparison=comparison, n_images_done=len(logits))
        judgement = judge(comparison, precision, options.margin)
        broken, verdict = list(judgement.reasons), judgement.verdict
        try:
            fault, wrong_golden = _golden(session, *case.golden)
        except Exception as error:
            return _stopped(row, judgement, broken, f"stopped at the golden images: {said(error)}")
        if fault:
            broken, verdict = [*broken, fault], "fails"
        parts: dict[str, Part] = {}
        try:
            parts["probes"] = answers = _probes(case, session)
        except Exception as error:
            return _stopped(row, judgement, broken, f"stopped at the probe images: {said(error)}")
        if isinstance(answers, ProbeAnswers) and answers.fault:
            broken, verdict = [*broken, answers.fault], "fails"
        try:
            latency = measure_latency(session, case.sample)
        except Exception as error:
            return _stopped(row, judgement, broken, f"stopped while its latency was measured: {said(error)}")
        # The last to be asked of a session: one whose threads wait for each other answers nothing afterwards.
        if options.consistency_s > 0:
            parts["consistency"] = found = _consistency(case, session)
            if found.failures:
                broken, verdict = [*broken, found.verdict], "fails"
    maps = _maps(case, backend, precision)
    if maps is not None:
        parts["cam"] = maps
    if options.why and verdict == "fails":  # too few pictures are no fault of a tensor
        # Where the golden pictures alone accuse an engine, the test pictures would show nothing.
        use_golden = len(wrong_golden) and judgement.verdict != "fails"
        worst = wrong_golden if use_golden else case.pictures.take(worst_pictures(logits, case.reference))
        parts["why"] = explain_if_possible(case.bundle, backend, precision, worst, device=session.device)
    below = options.floors.missed(comparison, case.bundle.spec.classes)
    if below:
        broken, verdict = [*broken, below], "fails"
    reasons = worst_first(broken, judgement)
    return row(
        reason="; ".join(reasons), worst="".join(reasons[:1]), latency=latency, verdict=verdict,
        passed=verdict == "holds" and not broken,
        n_needed=judgement.n_needed, below_minimum=below, parts=parts,
    )  # fmt: skip


def _stopped(row: Callable[..., Result], judgement: Judgement, broken: Sequence[str], reason: str) -> Result:
    """The row of an engine that stopped after its accuracy was measured: what was wrong until then comes first."""
    reasons = worst_first([*broken, reason], judgement)
    return row(reason="; ".join(reasons), worst=reasons[0], latency=None, passed=False)


def _golden(session: Session, images: UInt8Array, logits: Float32Array) -> tuple[str, UInt8Array]:
    """Of what the golden pictures accuse an engine, and those that it answers worst; "" and none where of nothing."""
    try:
        check_golden(session, images, logits)
    except BundleError as error:
        allowed = golden_outliers(session.precision, len(images))
        return str(error), images[worst_pictures(session.run(images), logits, allowed=allowed)]
    return "", images[:0]


def _probes(case: _Case, session: Session) -> ProbeAnswers | NotMeasured:
    """How an engine answers the probe images, or why nothing can be said about them."""
    try:
        return compare_probes(session, case.bundle, case.probes)
    except NoReference as error:
        return NotMeasured(str(error))


def _consistency(case: _Case, session: Session) -> Consistency:
    def open_again() -> Session:
        return open_session(
            case.bundle, session.backend, device=session.device, precision=session.precision, check=False
        )

    largest = largest_batch(case.bundle, session.backend, session.precision)
    return check_consistency(
        open_again, session, case.sample, max_batch=largest, large=larger_batches(case.sample, largest),
        limit_s=case.options.consistency_s,
    )  # fmt: skip


def _maps(case: _Case, backend: str, precision: str) -> Part | None:
    """How well the engine's class activation maps agree with PyTorch's; None where one of them has none."""
    if precision not in CAM_PRECISIONS.get(backend, ()) or case.bundle.find("cam_graph") is None:
        return None
    device = case.options.device
    try:
        with (
            open_cam_session(case.bundle, "pytorch", device) as reference,
            open_cam_session(case.bundle, backend, device, precision) as engine,
        ):
            return compare_cams(reference, engine, case.sample)
    except Exception as error:  # the maps are beside the verdict: no report is lost for them
        return NotMeasured(said(error))
