"""`samdeploy compare`: two networks on the same images, each with its own preprocessing, on one backend."""

from __future__ import annotations

import os
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from samdeploy.arrays import Float32Array, Int64Array
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle.spec import named_model
from samdeploy.compare.answers import Answers, compare_answers
from samdeploy.compare.images import ImageSet, open_images
from samdeploy.compare.latency import compare_latency
from samdeploy.compare.options import CompareOptions
from samdeploy.compare.prepared import Prepared, PreparedSide, prepare_images
from samdeploy.compare.result import ComparedImages, CompareReport, Network
from samdeploy.compare.sides import Side, class_places, open_both, open_side
from samdeploy.errors import BackendUnavailable, InputError
from samdeploy.evaluate.accuracy.gate import Judgement, judge_change, worst_first
from samdeploy.evaluate.machine import machine, versions
from samdeploy.evaluate.passes import EngineStopped, engine_pass
from samdeploy.evaluate.test_set.prepared import PreparedImages
from samdeploy.runs.locate import unlike_its_run


def compare_networks(a: Path, b: Path, options: CompareOptions) -> tuple[CompareReport, ImageSet]:
    """Run two networks over the same images.

    Everything that can be wrong with the arguments is found before the first image is decoded.

    Args:
        a, b: bundles or runs; a run is opened by its bundle, or, if it was never exported, by its weights.

    Returns:
        The report, and the images that it speaks of.

    Raises:
        BundleError: one of them is damaged.
        InputError: they have other classes, or name other test images; or a margin is asked of images without labels.
        BackendUnavailable: no backend opens both, or one failed.
        DatasetError, ImageError: the images cannot be read, or the disk has no room for them.
    """
    # Used only once all images went through both; that the package is missing should be known before.
    import scipy.stats  # noqa: F401

    first, second = open_side("A", a), open_side("B", b)
    columns = class_places(first.classes, second)
    images = open_images(first, second, options.data_root)
    if options.margin is not None and not images.is_labelled:
        raise InputError(
            f"--margin: the {images.source} have no labels (no folder is named like a class); sort them into folders "
            "named like the classes, or leave --margin out"
        )
    with ExitStack() as stack:
        sessions = open_both(first, second, options, stack)
        prepared = prepare_images(images, first, second, stack)
        logits = [
            _run(side, session, of.images)
            for side, session, of in zip((first, second), sessions, prepared.sides, strict=True)
        ]
        latency = None
        if options.rounds:
            fed = {"A": prepared.sides[0].images, "B": prepared.sides[1].images}
            latency = compare_latency(dict(zip("AB", sessions, strict=True)), fed, options.rounds)
        session = sessions[0]
    answers = compare_answers(
        logits[0],
        _in_order(logits[1], columns),
        images.samples.labels[prepared.places] if images.is_labelled else None,
        first.classes,
        places=prepared.places,
        confidence=options.confidence,
        temperatures=(first.bundle.temperature, second.bundle.temperature),
    )
    is_same = _is_same_network(first, second)
    judgement = _judged(answers, options.margin, prepared, is_same=is_same)
    report = CompareReport(
        a=_network(first, prepared.sides[0]),
        b=_network(second, prepared.sides[1]),
        backend=session.backend,
        precision=session.precision,
        device=session.device,
        images=_images(images, prepared),
        names=tuple(_utf8(images.samples.names[row.place]) for row in answers.differing),
        class_names=first.classes,
        answers=answers,
        latency=latency,
        confidence=options.confidence,
        margin=options.margin,
        verdict=judgement.verdict if judgement else None,
        reasons=judgement.reasons if judgement else (),
        n_needed=judgement.n_needed if judgement else None,
        is_same_network=is_same,
        notes=tuple(f"{side.name}: {text}" for side in (first, second) if (text := unlike_its_run(side.bundle))),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=machine(),
        versions=versions(),
    )
    return report, images


def _run(side: Side, session: CheckedSession, images: PreparedImages) -> Float32Array:
    try:
        return engine_pass(session, images, len(side.classes), f"{side.name}, {session.backend}")
    except EngineStopped as stopped:
        raise BackendUnavailable(f"{side.name}, {session.backend} on {session.device}, {stopped}") from stopped


def _in_order(logits: Float32Array, columns: Int64Array) -> Float32Array:
    """Logits float32 [N, K] with column i at `columns[i]`."""
    ordered = np.empty_like(logits)
    ordered[:, columns] = logits
    return ordered


def _judged(answers: Answers, margin: float | None, prepared: Prepared, *, is_same: bool) -> Judgement | None:
    """The verdict on the margin, and why it is not kept; None without one."""
    if margin is None or answers.accuracies is None:
        return None
    # Equal answers of the same network need no statistics: it is the same on every other image, too.
    is_proven = is_same and not answers.differing
    judgement = Judgement("holds") if is_proven else judge_change(answers.accuracies.change, margin)
    faults = [f"{name}: {text}" for name, side in zip("AB", prepared.sides, strict=True) for text in side.faults]
    reasons = worst_first([*judgement.reasons, *faults], judgement)
    return Judgement("fails" if faults else judgement.verdict, reasons, judgement.n_needed)


def _is_same_network(a: Side, b: Side) -> bool:
    weights = [side.bundle.find("weights") for side in (a, b)]
    return (
        a.bundle.spec == b.bundle.spec
        and weights[0] is not None
        and weights[1] is not None
        and weights[0].sha256 == weights[1].sha256
    )


def _network(side: Side, prepared: PreparedSide) -> Network:
    spec, weights = side.bundle.spec, side.bundle.find("weights")
    return Network(
        path=str(side.bundle.root),
        is_run=side.is_run,
        arch=named_model(spec.arch, spec.options),
        preprocessing=spec.preprocessing,
        weights_sha256=weights.sha256 if weights else "",
        is_imported=side.bundle.is_imported,
        leaks=prepared.leaks,
    )


def _images(images: ImageSet, prepared: Prepared) -> ComparedImages:
    return ComparedImages(
        source=images.source,
        folder=_utf8(images.folder),
        is_labelled=images.is_labelled,
        found=len(images.samples),
        compared=len(prepared.places),
        copies=prepared.copies,
        unreadable=prepared.unreadable,
        notes=prepared.notes,
    )


def _utf8(name: str) -> str:
    """The bytes of a name, whatever the locale makes of them; one that is no UTF-8 would be no valid JSON."""
    return os.fsencode(name).decode("utf-8", "replace")
