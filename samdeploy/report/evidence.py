"""What the report shows besides `eval.json`: images, confusions, and what other commands measured."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.bundle import Bundle
from samdeploy.errors import ImageError, SamdeployError
from samdeploy.evaluate.accuracy.compare import PerImage
from samdeploy.evaluate.result import Report
from samdeploy.evaluate.test_set.open import open_test_set
from samdeploy.report.confusion import Confusion, confusions
from samdeploy.report.maps import MapSheet, draw_maps
from samdeploy.report.records import (
    AGAINST_FILE,
    BENCH_FILE,
    BenchRecord,
    HeadroomRecord,
    LeakRecord,
    leaks_of,
    read_bench,
    read_headroom,
    read_leaks,
)
from samdeploy.report.rows import Row, answered, engine_name
from samdeploy.report.thumbnail import Thumbnail, thumbnail

T = TypeVar("T")

# Of all engines together; with the images of the maps, a few megabytes at the very most.
MOST_IMAGES = 96
MOST_MAPS = 8
RECIPE_FILE = "recipe.toml"


@dataclass(frozen=True, slots=True)
class Flip:
    """A test image for which an engine names another class than PyTorch.

    Attributes:
        index, name: which image; `name` is its file, or its place in one.
        label, reference, engine: its class and those that both name; None for logits that are not finite.
        kind: "lost", "gained", or "other": both are wrong.
        thumbnail: None if it could not be read again.
    """

    index: int
    name: str
    label: str
    reference: str
    engine: str | None
    kind: str
    thumbnail: Thumbnail | None


@dataclass(frozen=True, slots=True)
class EngineFlips:
    """One engine's flips: all `images` of them, of which some are shown, lost ones first."""

    engine: str
    images: int
    shown: tuple[Flip, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything the report shows besides `eval.json`.

    Attributes:
        date: when the report was made, UTC, ISO 8601.
        command: the line that made it.
        recipe: the experiment, as resolved at training; "" if the run does not lie beside the bundle.
        flips: of each engine that answered all images.
        confusions: see `confusion.confusions`.
        headroom, bench, against, maps, leaks: None where `missing` says why.
        missing: section -> why it is not there, and how to have it.
    """

    date: str
    command: str
    recipe: str
    flips: tuple[EngineFlips, ...]
    confusions: tuple[Confusion, ...]
    headroom: HeadroomRecord | None
    bench: BenchRecord | None
    against: BenchRecord | None
    maps: MapSheet | None
    leaks: tuple[LeakRecord, ...] | None
    missing: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Under "report" in report.json; the images themselves are in the HTML alone."""
        return dataclasses.asdict(self, dict_factory=_without_thumbnails)


def gather(
    bundle: Bundle, evaluation: Mapping[str, Any], report: Report, *, data_root: Path | None, command: str
) -> Evidence:
    """Collect what the report shows.  Whatever cannot be had costs its own section, never the report.

    Args:
        bundle: that was evaluated.
        evaluation: the report's JSON.
        report: knows what was said of each image.
        data_root: where the test images lie.
        command: the line that made the report.
    """
    missing: dict[str, str] = {}
    measured = next((row.comparison.per_image for row in report.results if row.comparison is not None), None)
    rows = [row for row in evaluation["results"] if answered(row)]
    images = _TestImages(bundle, data_root, missing)
    if measured is None:
        missing["confusion"] = "no engine answered every test image"
    bench = _attempt(missing, "bench", lambda: read_bench(bundle, BENCH_FILE))
    against = _attempt(missing, "against", lambda: read_bench(bundle, AGAINST_FILE))
    headroom = _attempt(missing, "headroom", lambda: read_headroom(bundle))
    here = evaluation.get("leaks")
    leaks = leaks_of(here) if here else _attempt(missing, "leaks", lambda: read_leaks(bundle))
    for section, value, cure in (
        ("bench", bench, _bench_line(bundle, "--json", BENCH_FILE)),
        ("against", against, _bench_line(bundle, "--against", "--json", AGAINST_FILE)),
        ("headroom", headroom, "export the run again: samdeploy export"),
        ("leaks", leaks, "the bundle has no hashes of its training images; export the run again: samdeploy export"),
    ):
        if value is None:
            missing.setdefault(section, cure)
    return Evidence(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        recipe=_recipe(bundle),
        flips=_flips(rows, images),
        confusions=confusions(report),
        headroom=headroom,
        bench=bench,
        against=against,
        maps=_maps(bundle, measured, images, missing),
        leaks=leaks,
        missing=missing,
    )


def _bench_line(bundle: Bundle, *options: str) -> str:
    *words, file = options
    return shlex.join(["samdeploy", "bench", str(bundle.root), *words, str(bundle.root / file)])


class _TestImages:
    """The test images, opened when the first one is asked for."""

    def __init__(self, bundle: Bundle, data_root: Path | None, missing: dict[str, str]) -> None:
        self._missing = missing
        test = _attempt(missing, "images", lambda: open_test_set(bundle, data_root))
        self._samples = test.samples if test is not None else None
        self._thumbnails: dict[int, Thumbnail | None] = {}

    def name(self, index: int) -> str:
        return self._samples.names[index] if self._samples is not None else f"test image {index}"

    def load(self, index: int) -> UInt8Array | None:
        """uint8 [h, w, 3]; None if it cannot be read any more."""
        if self._samples is None:
            return None
        try:
            return self._samples.load(index)
        except ImageError as error:
            self._missing.setdefault("images", str(error))
            return None

    def thumbnail(self, index: int) -> Thumbnail | None:
        if index not in self._thumbnails:
            image = self.load(index)
            self._thumbnails[index] = None if image is None else thumbnail(image)
        return self._thumbnails[index]


def _flips(rows: Sequence[Row], images: _TestImages) -> tuple[EngineFlips, ...]:
    changed = [row for row in rows if row["changed"]]
    most = max(8, MOST_IMAGES // max(1, len(changed)))
    return tuple(
        EngineFlips(
            engine=engine_name(row),
            images=round(row["n_images_done"] * (100 - row["top1_agreement"]) / 100),
            shown=tuple(_flip(change, images) for change in row["changed"][:most]),
        )
        for row in rows
    )


def _flip(change: Mapping[str, Any], images: _TestImages) -> Flip:
    index, label = change["index"], change["label"]
    kind = "lost" if change["reference"] == label else "gained" if change["engine"] == label else "other"
    return Flip(
        index=index,
        name=images.name(index),
        label=label,
        reference=change["reference"],
        engine=change["engine"],
        kind=kind,
        thumbnail=images.thumbnail(index),
    )


def _maps(bundle: Bundle, measured: PerImage | None, images: _TestImages, missing: dict[str, str]) -> MapSheet | None:
    if bundle.find("cam_graph") is None:
        missing["maps"] = "the bundle has no graph of maps; export the run again: samdeploy export --cam"
        return None
    if measured is None:
        missing["maps"] = "no engine answered every test image"
        return None
    rows = _instructive(measured)
    loaded = [images.load(measured.place(row)) for row in rows]
    sound = [(image, row) for image, row in zip(loaded, rows, strict=True) if image is not None]
    if not sound:
        missing["maps"] = "the test images cannot be read any more"
        return None
    labels = [bundle.spec.classes[measured.labels[row]] for _, row in sound]
    places = [measured.place(row) for _, row in sound]
    return _attempt(missing, "maps", lambda: draw_maps(bundle, [image for image, _ in sound], places, labels))


def _instructive(measured: PerImage) -> list[int]:
    """Test images from all over the set: half of them such that PyTorch takes for something else, if there are."""
    wrong = np.flatnonzero(measured.reference != measured.labels)
    right = np.flatnonzero(measured.reference == measured.labels)
    wanted = min(len(wrong), max(MOST_MAPS // 2, MOST_MAPS - len(right)))
    chosen = [*_spread(right, MOST_MAPS - wanted), *_spread(wrong, wanted)]
    return [int(index) for index in chosen]


def _spread(indices: np.ndarray[Any, np.dtype[Any]], count: int) -> np.ndarray[Any, np.dtype[Any]]:
    count = min(count, len(indices))
    return indices[np.linspace(0, len(indices) - 1, count).round().astype(np.int64)] if count else indices[:0]


def _attempt(missing: dict[str, str], section: str, make: Callable[[], T]) -> T | None:
    try:
        return make()
    except ModuleNotFoundError as error:
        missing[section] = f"the package {error.name!r} is not installed; pip install 'samdeploy[report]'"
    except (SamdeployError, OSError) as error:
        missing[section] = " ".join(str(error).split())
    return None


def _recipe(bundle: Bundle) -> str:
    """The run's recipe, where the bundle still lies in its run."""
    try:
        return (bundle.root.resolve().parent / RECIPE_FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _without_thumbnails(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in items if key not in ("thumbnail", "drawn")}
