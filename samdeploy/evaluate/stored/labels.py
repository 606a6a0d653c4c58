"""The gate over labels: an engine's answers and the trained network's, as `samdeploy label` wrote them.

No image is read and no engine runs over them.  In memory stand some 100 bytes for each image; logits are read block by
block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from samdeploy.arrays import BoolArray, Float32Array, Float64Array, Int64Array, UInt64Array
from samdeploy.bundle import Bundle
from samdeploy.data.duplicates.image_hashes import ImageHashes, set_hashes
from samdeploy.data.texts import PackedTexts
from samdeploy.errors import OTHER_WEIGHTS, BundleError, InputError
from samdeploy.evaluate.accuracy.against_training import compare_with_training
from samdeploy.evaluate.accuracy.facts import ImageFacts, image_facts
from samdeploy.evaluate.accuracy.judged import conclude, judge_facts
from samdeploy.evaluate.contradictions import find_contradictions
from samdeploy.evaluate.evaluate import TestSource, report_of
from samdeploy.evaluate.options import EvalOptions
from samdeploy.evaluate.result import Report, Result
from samdeploy.evaluate.stored.test_set import stored_test_set
from samdeploy.evaluate.test_set.examine import examine_hashes
from samdeploy.evaluate.test_set.seen_in_training import known_images
from samdeploy.label.parts import DIGEST_BYTES
from samdeploy.label.results import Labels, check_whole, labels_of
from samdeploy.label.truth import true_classes
from samdeploy.progress import progress_bar

_NOTE = (
    "answers of samdeploy label, paired image by image; probe images, batch sizes and latency are judged by samdeploy "
    "eval without --labels"
)


@dataclass(frozen=True, slots=True)
class LabelSets:
    """Labels of the same images.

    Attributes:
        engines: folders with the answers of one engine each; at least one.
        reference: with those of the trained network.
        table: with the true classes, see `true_classes`.
        column: of the table.
    """

    engines: tuple[Path, ...]
    reference: Path
    table: Path | None = None
    column: str = ""


def evaluate_labels(bundle: Bundle, given: LabelSets, options: EvalOptions) -> Report:
    """Judge engines by their labels.

    Args:
        bundle: of which the engines are.
        given: the labels.
        options: margin, confidence and minimums; others mean nothing here.

    Raises:
        InputError: labels of another bundle, of other images, or without what the gate needs; images without a class
            or that cannot be read.
        BundleError: as `evaluate_bundle` does.
    """
    bundle.verify()
    folders = [folder.resolve() for folder in (*given.engines, given.reference)]
    for folder in given.engines:
        if folders.count(folder.resolve()) > 1:
            raise InputError(
                f"labels {folder}: named twice; name each engine's labels once, and PyTorch's as --reference only"
            )
    reference = _reference(bundle, given.reference)
    engines = [_engine(bundle, folder, reference) for folder in given.engines]
    contradictions = find_contradictions(bundle)
    images = _read_images(bundle, reference, given)
    known = {
        split: ImageHashes(found.digests, np.empty((len(found), 0), np.uint64), found.names, found.labels)
        for split, found in known_images(bundle).items()
    }
    found = examine_hashes(bundle, images.hashes, known, None)
    against = compare_with_training(bundle, images.hashes.digests, images.hashes.labels, images.answers)
    results = [_judged(bundle, one, reference, images, found.distinct, options) for one in engines]
    fingerprint = set_hashes(images.hashes.digests, images.hashes.labels)[1]
    source = TestSource(fingerprint, stored_test_set(bundle, against), (_NOTE,), given.table)
    return report_of(bundle, options, (found, against), results, source, contradictions)


@dataclass(frozen=True, slots=True)
class _Images:
    """All images: their hashes with true classes, and the classes that the reference names, int64 [N]."""

    hashes: ImageHashes
    answers: Int64Array


def _of_bundle(bundle: Bundle, folder: Path) -> Labels:
    labels = labels_of(bundle, folder)
    check_whole(labels, "eval")
    return labels


def _reference(bundle: Bundle, folder: Path) -> Labels:
    labels = _of_bundle(bundle, folder)
    engine = labels.settings["engine"]
    if engine["backend"] != "pytorch":
        raise InputError(
            f"--reference {folder}: labels of {engine['backend']} {engine['precision']} found, the trained network's "
            f"expected: samdeploy label {bundle.root} INPUT --backend pytorch --logits float32 --out DIR"
        )
    return labels


def _engine(bundle: Bundle, folder: Path, reference: Labels) -> Labels:
    labels = _of_bundle(bundle, folder)
    if (labels.settings["input"], labels.rows) != (reference.settings["input"], reference.rows):
        raise InputError(
            f"labels {folder}: of another INPUT ({labels.rows:,} rows) than {reference.folder} "
            f"({reference.rows:,} rows); label one INPUT with both engines"
        )
    if labels.settings["engine"]["precision"] == "fp32" and not _have_logits(labels, reference):
        lacking = " and ".join(str(one.folder) for one in (labels, reference) if not _have_logits(one))
        raise InputError(
            f"labels {folder}: FP32 is judged by its logits, which {lacking} lack; label again with --logits float32 "
            "(float16 rounds more than FP32 may differ)"
        )
    return labels


def _have_logits(*labels: Labels) -> bool:
    return all(one.settings["logits"] == "float32" for one in labels)


def _read_images(bundle: Bundle, reference: Labels, given: LabelSets) -> _Images:
    truth = true_classes(reference, given.table, given.column, bundle.spec.classes)
    names, digests, labels, answers = PackedTexts(), list[UInt64Array](), list[Int64Array](), list[Int64Array]()
    with progress_bar("labels of the reference", reference.rows) as advance:
        for block in reference.blocks(("uri", "index", "error", "digest")):
            _refuse_unread(reference, block)
            uris = block.column("uri").to_pylist()
            for uri in uris:
                names.append(uri)
            labels.append(truth(uris))
            digests.append(_digests(block))
            answers.append(_chosen(block))
            if (answers[-1] < 0).any():
                raise BundleError(f"bundle {bundle.root}: the network's own logits are not finite; {OTHER_WEIGHTS}")
            advance(len(block), "")
    every = np.concatenate(digests)
    hashes = ImageHashes(every, np.zeros((len(every), 0), np.uint64), names, np.concatenate(labels))
    return _Images(hashes, np.concatenate(answers))


def _refuse_unread(labels: Labels, block: pa.RecordBatch) -> None:
    """Images make one figure here: all must be readable, as for `evaluate_bundle`."""
    unread = np.flatnonzero(~_has_digest(block))
    if not len(unread):
        return
    row = int(unread[0])
    raise InputError(
        f"labels {labels.folder}: {block.column('uri')[row].as_py()} could not be read "
        f"({block.column('error')[row].as_py()}); eval needs every image: mend it, or leave it out of the list, and "
        "label again"
    )


def _judged(
    bundle: Bundle, labels: Labels, reference: Labels, images: _Images, distinct: Int64Array, options: EvalOptions
) -> Result:
    engine = labels.settings["engine"]
    name = f"{engine['backend']} {engine['precision']}"
    facts, done = list[ImageFacts](), 0
    with_logits = _have_logits(labels, reference)
    with progress_bar(name, reference.rows) as advance:
        for one, other in _paired(labels, reference, with_logits):
            rows = slice(done, done + len(one))
            _check_same(labels, one, images.hashes, rows)
            make = _from_logits if with_logits else _from_classes
            facts.append(make(bundle, one, other, images.hashes.labels[rows]))
            done += len(one)
            advance(len(one), "")
    found = ImageFacts.joined(facts).take(distinct)
    judged = judge_facts(found, engine["precision"], bundle, options, distinct)
    row = partial(
        Result, engine["backend"], engine["precision"], engine["device"], ran=True, comparison=judged.comparison,
        latency=None, n_images_done=len(found), date=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    return conclude(row, judged, bundle, options, (), {})


def _paired(labels: Labels, reference: Labels, with_logits: bool) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
    """Blocks of both with the same rows; their parts may have other lengths."""
    columns = ("index", "digest", "logits") if with_logits else ("index", "digest", "probability", "top_labels")
    ones, others = labels.blocks(columns), reference.blocks(columns)
    one, other = next(ones, None), next(others, None)
    while one is not None and other is not None:
        count = min(len(one), len(other))
        yield one.slice(0, count), other.slice(0, count)
        one, other = _rest(one, count, ones), _rest(other, count, others)
    if one is not None or other is not None:
        raise InputError(f"labels {labels.folder}: not as many rows as {reference.folder} has; label again with both")


def _rest(block: pa.RecordBatch, count: int, blocks: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    return block.slice(count) if count < len(block) else next(blocks, None)


def _check_same(labels: Labels, block: pa.RecordBatch, hashes: ImageHashes, rows: slice) -> None:
    same = _has_digest(block) & (_digests(block) == hashes.digests[rows]).all(axis=1)
    if not same.all():
        row = rows.start + int(np.flatnonzero(~same)[0])
        raise InputError(
            f"labels {labels.folder}: {hashes.names[row]} has other pixels than when the reference was made; label "
            "again"
        )


def _from_logits(bundle: Bundle, one: pa.RecordBatch, other: pa.RecordBatch, labels: Int64Array) -> ImageFacts:
    k = len(bundle.spec.classes)
    return image_facts(_logits(one, k), _logits(other, k), labels, bundle.temperature)


def _from_classes(bundle: Bundle, one: pa.RecordBatch, other: pa.RecordBatch, labels: Int64Array) -> ImageFacts:
    unknown = np.full(len(labels), np.nan)
    return ImageFacts(
        labels=labels,
        engine=_chosen(one),
        reference=_chosen(other),
        top5=_top5(one, labels, bundle.spec.classes),
        reference_top5=_top5(other, labels, bundle.spec.classes),
        sure=_sure(one),
        reference_sure=_sure(other),
        raw_sure=unknown,
        nll=unknown,
        raw_nll=unknown,
        difference=unknown,
        spread=unknown,
    )


def _chosen(block: pa.RecordBatch) -> Int64Array:
    """int64 [n]: the index of the label; -1 for rows without one."""
    return np.asarray(block.column("index").fill_null(-1).to_numpy(zero_copy_only=False), np.int64)


def _sure(block: pa.RecordBatch) -> Float64Array:
    return np.asarray(block.column("probability").to_numpy(zero_copy_only=False), np.float64)


def _top5(block: pa.RecordBatch, labels: Int64Array, classes: Sequence[str]) -> BoolArray:
    tops = block.column("top_labels").to_pylist()
    return np.fromiter(
        (classes[label] in (top or ()) for top, label in zip(tops, labels, strict=True)), np.bool_, len(labels)
    )


def _logits(block: pa.RecordBatch, classes: int) -> Float32Array:
    """float32 [n, K]; NaN where there is no answer."""
    column = block.column("logits")
    found = np.full((len(column), classes), np.nan, np.float32)
    known = column.is_valid().to_numpy(zero_copy_only=False)
    found[known] = np.asarray(column.drop_null().flatten().to_numpy(), np.float32).reshape(-1, classes)
    return found


def _has_digest(block: pa.RecordBatch) -> BoolArray:
    return np.asarray(block.column("digest").is_valid().to_numpy(zero_copy_only=False), np.bool_)


def _digests(block: pa.RecordBatch) -> UInt64Array:
    """uint64 [n, 2], as `digests_of` gives them."""
    content = b"".join(value or bytes(DIGEST_BYTES) for value in block.column("digest").to_pylist())
    return np.frombuffer(content, "<u8").reshape(-1, 2).astype(np.uint64)
