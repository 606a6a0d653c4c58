"""One engine held against the trained network: accuracy, golden and probe images, latency, consistency, maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from samdeploy.arrays import Float32Array, Int64Array, UInt8Array
from samdeploy.backends import open_session
from samdeploy.backends.golden import check_golden, golden_outliers
from samdeploy.backends.names import BACKENDS
from samdeploy.backends.session import CheckedSession, Session
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, BundleError, InputError
from samdeploy.evaluate.accuracy.facts import ImageFacts
from samdeploy.evaluate.accuracy.gate import worst_first
from samdeploy.evaluate.accuracy.judged import conclude, judge_facts
from samdeploy.evaluate.consistency.checks import Consistency
from samdeploy.evaluate.consistency.probes import ProbeReference, compare_probes
from samdeploy.evaluate.consistency.run import check_consistency, larger_batches, largest_batch
from samdeploy.evaluate.latency.measure import measure_latency
from samdeploy.evaluate.machine import machine, versions
from samdeploy.evaluate.map_agreement import compare_cams
from samdeploy.evaluate.options import ALL, EvalOptions
from samdeploy.evaluate.passes import EngineStopped, said
from samdeploy.evaluate.result import NotMeasured, Part, Result
from samdeploy.evaluate.why.explain import explain_if_possible, worst_images, worst_of

# Test images that stay in memory, for checks that need real ones but not all.
SAMPLE = 256


@dataclass(frozen=True, slots=True)
class Case:
    """What every engine is judged by.

    Attributes:
        ask: what an engine and the trained network answer to the N distinct test images; or `EngineStopped`.
        take: the images at places int64 [M] among them, uint8 [M, H, W, 3].
        places: int64 [N], where in the test set each of them is.
        sample: uint8 [n, H, W, 3], at most `SAMPLE` test images from all over the set.
        golden: the images and logits that the bundle tests itself with.
        probes: what the trained network answers to the probe images.
    """

    bundle: Bundle
    options: EvalOptions
    ask: Callable[[CheckedSession], ImageFacts]
    take: Callable[[Int64Array], UInt8Array]
    places: Int64Array
    sample: UInt8Array
    golden: tuple[UInt8Array, Float32Array]
    probes: ProbeReference


def evaluate_engine(case: Case, backend: str, precision: str) -> Result:
    """Open one engine of the bundle and ask it everything.

    Raises:
        InputError: the runtime was named and never has that device or precision.
    """
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
            facts = case.ask(session)
        except EngineStopped as stopped:
            return row(session.device, True, str(stopped), None, None, False, n_images_done=stopped.n_images_done)
        judged = judge_facts(facts, precision, case.bundle, options, case.places)
        judgement = judged.judgement
        row = partial(row, session.device, True, comparison=judged.comparison, n_images_done=len(facts))
        faults: list[str] = []  # beside the accuracy
        parts: dict[str, Part] = {}
        stage = "at the golden images"
        try:
            fault, wrong_golden = _golden(session, *case.golden)
            faults += [fault] if fault else []
            stage = "at the probe images"
            parts["probes"] = answers = compare_probes(session, case.bundle, case.probes)
            faults += [answers.fault] if answers.fault else []
            stage = "while its latency was measured"
            latency = measure_latency(session, case.sample)
        except Exception as error:  # whatever a runtime throws; what was wrong until then comes first
            reasons = worst_first([*judgement.reasons, *faults, f"stopped {stage}: {said(error)}"], judgement)
            return row(reason="; ".join(reasons), worst=reasons[0], latency=None, passed=False)
        # The last to be asked of a session: one whose threads wait for each other answers nothing afterwards.
        if options.consistency_s > 0:
            parts["consistency"] = found = _consistency(case, session)
            faults += [found.verdict] if found.failures else []
    maps = _maps(case, backend, precision)
    if maps is not None:
        parts["cam"] = maps
    if options.why and (faults or judgement.verdict == "fails"):  # too few images are no fault of a tensor
        # Where the golden images alone accuse an engine, the test images would show nothing.
        use_golden = len(wrong_golden) and judgement.verdict != "fails"
        worst = wrong_golden if use_golden else case.take(worst_of(facts.shares()))
        parts["why"] = explain_if_possible(case.bundle, backend, precision, worst, device=session.device)
    return conclude(partial(row, latency=latency), judged, case.bundle, options, faults, parts)


def _golden(session: Session, images: UInt8Array, logits: Float32Array) -> tuple[str, UInt8Array]:
    """Of what the golden images accuse an engine, and those that it answers worst; "" and none where of nothing."""
    try:
        check_golden(session, images, logits)
    except BundleError as error:
        allowed = golden_outliers(session.precision, len(images))
        return str(error), images[worst_images(session.run(images), logits, allowed=allowed)]
    return "", images[:0]


def _consistency(case: Case, session: Session) -> Consistency:
    def open_again() -> Session:
        return open_session(
            case.bundle, session.backend, device=session.device, precision=session.precision, check=False
        )

    largest = largest_batch(case.bundle, session.backend, session.precision)
    return check_consistency(
        open_again, session, case.sample, max_batch=largest, large=larger_batches(case.sample, largest),
        limit_s=case.options.consistency_s,
    )  # fmt: skip


def _maps(case: Case, backend: str, precision: str) -> Part | None:
    """How well the engine's class activation maps agree with PyTorch's; None where one of them has none."""
    if precision not in BACKENDS[backend].maps_in or case.bundle.find("cam_graph") is None:
        return None
    device = case.options.device
    try:
        with (
            open_session(case.bundle, "pytorch", device=device, maps=True) as reference,
            open_session(case.bundle, backend, device=device, precision=precision, maps=True) as engine,
        ):
            return compare_cams(reference, engine, case.sample)
    except Exception as error:  # the maps are beside the verdict: no report is lost for them
        return NotMeasured(said(error))
