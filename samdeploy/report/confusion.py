"""Which classes are taken for which, by the trained network and by each engine that answers differently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from samdeploy.evaluate.accuracy import Int32Array, PerPicture
from samdeploy.report.rows import Row, answered, engine_name

REFERENCE = "PyTorch"
# Beyond this, a matrix is larger than a page, and nearly all of it is zero.
MOST_CLASSES = 20
_MOST_PAIRS = 20


@dataclass(frozen=True, slots=True)
class Pair:
    """Pictures of class `label` that were taken for class `named`, and how many of them PyTorch takes for it."""

    label: str
    named: str
    images: int
    reference_images: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """What a group of engines that name the same class for every picture takes for what.

    Attributes:
        names: "PyTorch" and engines.
        counts: [K][K], pictures of each class (row) by the class that was named (column); None for more than
            `MOST_CLASSES` classes.
        pairs: the most frequent mistakes, the most frequent first.
        mistakes: pictures that were taken for another class, or for none.
        unnamed: pictures for which the logits are not finite.
    """

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...] | None
    pairs: tuple[Pair, ...]
    mistakes: int
    unnamed: int


def confusions(
    rows: Sequence[Row], measured: PerPicture, class_names: Sequence[str]
) -> tuple[tuple[Confusion, ...], tuple[str, ...]]:
    """One for the trained network, and one for each different way in which engines answer.

    Args:
        rows: of `eval.json`; their engines' classes are the reference's but for those listed under "changed".
        measured: labels and reference of the same pictures.
        class_names: index -> name.

    Returns:
        The confusions, and the engines of which too few changed pictures are listed to tell.
    """
    index_of: dict[str | None, int] = {name: index for index, name in enumerate(class_names)}
    groups: dict[bytes, tuple[list[str], Int32Array]] = {
        measured.reference.tobytes(): ([REFERENCE], measured.reference)
    }
    unknown = []
    for row in rows:
        if not answered(row):
            continue
        named = _named(row, measured.reference, index_of)
        if named is None:
            unknown.append(engine_name(row))
        else:
            groups.setdefault(named.tobytes(), ([], named))[0].append(engine_name(row))
    reference = _matrix(measured.labels, measured.reference, len(class_names))
    found = [_confusion(names, measured.labels, named, reference, class_names) for names, named in groups.values()]
    return tuple(found), tuple(unknown)


def _named(row: Row, reference: Int32Array, index_of: Mapping[str | None, int]) -> Int32Array | None:
    """int32 [N], class that the engine names, -1 for none; None if not every changed picture is listed."""
    changed: Sequence[Mapping[str, Any]] = row["changed"]
    if len(changed) != round(len(reference) * (100 - row["top1_agreement"]) / 100):
        return None
    named = reference.copy()
    for picture in changed:
        named[picture["index"]] = index_of.get(picture["engine"], -1)
    return named


def _matrix(labels: Int32Array, named: Int32Array, classes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """int64 [K, K + 1]; the last column is "no class"."""
    column = np.where(named < 0, classes, named).astype(np.int64)
    flat = np.bincount(labels.astype(np.int64) * (classes + 1) + column, minlength=classes * (classes + 1))
    return flat.reshape(classes, classes + 1)


def _confusion(
    names: Sequence[str],
    labels: Int32Array,
    named: Int32Array,
    reference: np.ndarray[Any, np.dtype[np.int64]],
    class_names: Sequence[str],
) -> Confusion:
    classes = len(class_names)
    matrix = _matrix(labels, named, classes)
    mistakes = matrix[:, :classes].copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_MOST_PAIRS]
    places = [divmod(int(place), classes) for place in order if mistakes.flat[place]]
    pairs = tuple(
        Pair(class_names[row], class_names[column], int(mistakes[row, column]), int(reference[row, column]))
        for row, column in places
    )
    return Confusion(
        names=tuple(names),
        counts=tuple(tuple(map(int, row[:classes])) for row in matrix) if classes <= MOST_CLASSES else None,
        pairs=pairs,
        mistakes=int((named != labels).sum()),
        unnamed=int(matrix[:, classes].sum()),
    )
