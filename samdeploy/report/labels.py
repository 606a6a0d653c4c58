"""What a labelling found, for people: counts, confidence, drift, and images to look at.

One pass over the labels; in memory stand the images that are shown alone.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from samdeploy.arrays import Int64Array
from samdeploy.bundle import Bundle
from samdeploy.bundle.answers import CONFIDENCE_BINS, Answered
from samdeploy.certainty.calibration import confidence_bins
from samdeploy.certainty.drift import LEAST, index_by_chance, stability_index
from samdeploy.errors import ImageError
from samdeploy.images.decode import decode
from samdeploy.label.inputs import Input
from samdeploy.label.results import Labels
from samdeploy.progress import progress_bar
from samdeploy.report.thumbnail import Thumbnail, thumbnail
from samdeploy.terminal.wording import Kind

# Images on the sheet of the least certain, and at most on that of each class and on all of those together.
LEAST_CERTAIN, OF_A_CLASS, OF_ALL_CLASSES = 48, 12, 960
_ERRORS = 20
# By custom, of the population stability index (N. Siddiqi, "Credit Risk Scorecards", 2006).
_SMALL, _LARGE = 0.1, 0.25
_COLUMNS = ("row", "uri", "label", "index", "probability", "rejected", "top_labels", "top_probabilities", "error")


@dataclass(frozen=True, slots=True)
class ShownImage:
    """A labelled image.

    Attributes:
        probability, second_probability: in percent, of `label` and of `second`, the next likely class; "" and 0
            where there is none.
        thumbnail: None if the input was not named, or the image cannot be read any more.
    """

    row: int
    name: str
    label: str
    probability: float
    rejected: bool
    second: str
    second_probability: float
    thumbnail: Thumbnail | None = None


@dataclass(frozen=True, slots=True)
class ClassCount:
    """One class: images that were given it, their percentage, and that of validation, or None."""

    name: str
    images: int
    percent: float
    before: float | None
    shown: tuple[ShownImage, ...]


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a spread is from that of validation.

    Attributes:
        of: what is spread.
        index: the population stability index.
        chance: that it stays below in 95 of 100 cases where nothing has changed.
        kind, words: what to think of it.
    """

    of: str
    index: float
    chance: float
    kind: Kind
    words: str


@dataclass(frozen=True, slots=True)
class LabelsFound:
    """Everything that the report shows.

    Attributes:
        rows, labelled, errors, rejected: of the input.
        classes: in their order.
        confidence, confidence_before: percentages of labelled images by their probability, in tenths; the second of
            validation images, None where the bundle does not know.
        drift: of classes and confidence; empty where the bundle or the images say nothing.
        least: the least certain images, the least first.
        broken: (name, why) of some images without a label.
        unread: why images that are shown could not be read again; "" where all could.
    """

    rows: int
    labelled: int
    errors: int
    rejected: int
    classes: tuple[ClassCount, ...]
    confidence: tuple[float, ...]
    confidence_before: tuple[float, ...] | None
    drift: tuple[Drift, ...]
    least: tuple[ShownImage, ...]
    broken: tuple[tuple[str, str], ...]
    unread: str


@dataclass(slots=True)
class _Pass:
    """What one look at every row leaves."""

    bins: Int64Array = field(default_factory=lambda: np.zeros(CONFIDENCE_BINS, np.int64))
    least: list[tuple[float, int, ShownImage]] = field(default_factory=list)
    of_class: dict[int, list[tuple[int, int, ShownImage]]] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)


def look_at_labels(labels: Labels, bundle: Bundle, given: Input | None) -> LabelsFound:
    """Read all labels once, and again the images that are shown.

    Args:
        labels: of every row of the input.
        bundle: that made them.
        given: the input, for thumbnails; None: none are shown.
    """
    classes = bundle.spec.classes
    counts = np.array(labels.by_index(len(classes)), np.int64)
    found = _look(labels, len(classes))
    least = [shown for *_, shown in sorted(found.least, key=lambda one: one[:2], reverse=True)]
    sheets = {
        index: sorted((shown for *_, shown in chosen), key=lambda one: -one.probability)
        for index, chosen in found.of_class.items()
    }
    unread: list[str] = []
    wanted = {one.row for images in (least, *sheets.values()) for one in images}
    pictures = _thumbnails(given, wanted, unread)
    answered, total = bundle.answered, int(counts.sum())
    now, before = _percent(counts), _percent(np.array(answered.labels)) if answered else None
    return LabelsFound(
        rows=labels.rows,
        labelled=total,
        errors=labels.counts.get("errors", 0),
        rejected=labels.counts.get("rejected", 0),
        classes=tuple(
            ClassCount(
                name, int(counts[index]), now[index], before[index] if before else None,
                _with(sheets.get(index, []), pictures),
            )
            for index, name in enumerate(classes)
        ),
        confidence=_percent(found.bins),
        confidence_before=_percent(np.array(answered.confidence)) if answered else None,
        drift=tuple(_drifts(counts, found.bins, answered)) if answered and total >= LEAST else (),
        least=_with(least, pictures),
        broken=tuple(found.broken),
        unread=unread[0] if unread else "",
    )  # fmt: skip


def _look(labels: Labels, classes: int) -> _Pass:
    found = _Pass()
    most = max(1, min(OF_A_CLASS, OF_ALL_CLASSES // classes))
    with progress_bar("labels", labels.rows) as advance:
        for block in labels.blocks(_COLUMNS):
            for row in block.to_pylist():
                if row["label"] is None:
                    if len(found.broken) < _ERRORS:
                        found.broken.append((row["uri"], row["error"]))
                    continue
                shown, place = _shown(row), row["row"]
                found.bins[confidence_bins(np.array([row["probability"]]), CONFIDENCE_BINS)] += 1
                _keep(found.least, LEAST_CERTAIN, (-row["probability"], -place, shown))
                # The same draw in every report: rows by their checksum, which knows nothing of what they show.
                draw = zlib.crc32(str(place).encode())
                _keep(found.of_class.setdefault(row["index"], []), most, (-draw, -place, shown))
            advance(len(block), "")
    return found


def _keep(heap: list[Any], most: int, one: Any) -> None:
    """Of all that come, the `most` largest."""
    (heapq.heappush if len(heap) < most else heapq.heappushpop)(heap, one)


def _shown(row: Mapping[str, Any]) -> ShownImage:
    names, shares = row["top_labels"], row["top_probabilities"]
    has_second = len(names) > 1
    return ShownImage(
        row["row"], row["uri"], row["label"], 100 * row["probability"], row["rejected"],
        names[1] if has_second else "", 100 * shares[1] if has_second else 0.0,
    )  # fmt: skip


def _thumbnails(given: Input | None, rows: set[int], unread: list[str]) -> dict[int, Thumbnail]:
    if given is None:
        unread.append("the input was not named: --input INPUT shows them")
        return {}
    pictures = {}
    with progress_bar("images", len(rows)) as advance:
        for number in sorted(rows):
            try:
                (row,) = given.rows(number, number + 1)
                pictures[number] = thumbnail(decode(row.read()))
            except ImageError as error:
                unread.append(f"{error}")
            advance(1, "")
    return pictures


def _with(images: Sequence[ShownImage], pictures: Mapping[int, Thumbnail]) -> tuple[ShownImage, ...]:
    return tuple(replace(one, thumbnail=pictures.get(one.row)) for one in images)


def _percent(counts: Int64Array) -> tuple[float, ...]:
    total = max(1, int(counts.sum()))
    return tuple(100 * count / total for count in counts.tolist())


def _drifts(counts: Int64Array, bins: Int64Array, before: Answered) -> Iterator[Drift]:
    for of, now, then in (("classes", counts, before.labels), ("confidence", bins, before.confidence)):
        earlier = np.array(then, np.int64)
        index, chance = stability_index(now, earlier), index_by_chance(now, earlier)
        kind: Kind = "good"
        words = "as on validation images"
        if index > chance and index >= _SMALL:
            large = index >= _LARGE
            kind, words = ("bad", "a large shift") if large else ("open", "a small shift")
        elif index >= _SMALL:
            words = "no more than chance makes of so few images"
        yield Drift(of, index, chance, kind, words)
