"""`samdeploy data RECIPE`: what a training would be given, before it is given."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from samdeploy.arrays import Int64Array
from samdeploy.data.cache import PreparedSplit
from samdeploy.data.dataset import SPLITS, Dataset
from samdeploy.data.duplicates.copies import TwoLabels, find_two_labels
from samdeploy.data.duplicates.leaks import LeakReport, find_leaks, refuse_leaks
from samdeploy.data.stream import stream_images
from samdeploy.errors import InputError
from samdeploy.files import write_atomic
from samdeploy.terminal import printable
from samdeploy.terminal.tables import Cell, entries, paragraph, table
from samdeploy.terminal.wording import rate, ratio
from samdeploy.train.augment import Augmentation, make_augmentation
from samdeploy.train.loop.batches import StoredImages
from samdeploy.train.prepare import (
    check_counts,
    class_counts,
    open_recipe_data,
    prepare_larger,
    prepare_splits,
)
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.sheet import ROWS, contact_sheet

# Seconds that each speed is measured for, at least one batch.
_SECONDS = 0.5
# Classes in the table; the rest is summed up.
_CLASSES = 20


@dataclass(frozen=True, slots=True)
class LoadingSpeed:
    """Images per second on this machine, without the network.

    Attributes:
        decoded: decoding and resizing them, as before the first epoch; in threads.
        batches: batches of prepared images, as in every epoch.
        augmented: batches as the network is given them: augmented, normalised, mixed.
    """

    decoded: float
    batches: float
    augmented: float


def look(recipe: Recipe, sheet: Path | None = None) -> None:
    """Print class counts, the leak guard's verdict and loading speeds; write a contact sheet of training images.

    Args:
        sheet: where it is written; None: `<recipe>-samples.png`, and without a sheet if that cannot be written.

    Raises:
        DatasetError: a training would refuse these data; everything is printed before.
        InputError: `sheet` cannot be written.
    """
    dataset = open_recipe_data(recipe)
    print(counts_table(dataset))
    check_counts(dataset)
    dataset, splits = prepare_splits(dataset, recipe)
    hashes = {name: split.hashes for name, split in splits.items()}
    leaks = find_leaks(hashes)
    print()
    print(findings_text(leaks, find_two_labels(hashes, dataset.classes)))
    training = prepare_larger(dataset, recipe, splits["train"])
    device = torch.device("cpu")
    augmentation = make_augmentation(recipe, len(dataset.classes), device)
    png = _draw_sheet(dataset, recipe, training, splits["train"], augmentation)
    sheet_note = _write_sheet(sheet, Path(f"{recipe.name}-samples.png"), png)
    print()
    print(speed_text(measure_loading(dataset, recipe, training, augmentation), splits))
    print()
    print(sheet_note)
    if recipe.data.leaks == "refuse":
        refuse_leaks(leaks, f"data set {recipe.data.name!r}")


def counts_table(dataset: Dataset) -> str:
    """Images per class and split."""
    counts = class_counts(dataset)
    shown = len(dataset.classes) if len(dataset.classes) <= _CLASSES else _CLASSES - 1
    names = [_cut(name) for name in dataset.classes[:shown]]
    rows: list[tuple[Cell, ...]] = [
        (name, *(int(counts[split][label]) for split in SPLITS)) for label, name in enumerate(names)
    ]
    if shown < len(dataset.classes):
        rest = len(dataset.classes) - shown
        rows.append((f"... {rest} more classes", *(int(counts[split][shown:].sum()) for split in SPLITS)))
    rows.append((f"all {len(dataset.classes)} classes", *(int(counts[split].sum()) for split in SPLITS)))
    smallest, largest = int(counts["train"].min()), int(counts["train"].max())
    lines = [
        table(("<class", *(f">{split}" for split in SPLITS)), rows),
        f"smallest and largest class of train: {smallest:,} and {largest:,} images",
    ]
    for split in SPLITS:
        empty = [_cut(dataset.classes[label]) for label in np.flatnonzero(counts[split] == 0)]
        if empty:
            more = ", ..." if len(empty) > 5 else ""
            plural = "es" if len(empty) > 1 else ""
            text = f"NO IMAGE in {split} of {len(empty)} class{plural}: {', '.join(empty[:5])}{more}"
            lines.append(paragraph(text))
    return "\n".join(lines)


def findings_text(leaks: LeakReport, labels: TwoLabels) -> str:
    """The leak guard's verdict, and which images are labelled with two classes."""
    return entries(
        [
            *(("leak guard", line) for line in leaks.lines() or ("no image is in two splits",)),
            *(("labels", line) for line in labels.lines() or ("no image has two labels",)),
        ]
    )


def speed_text(speed: LoadingSpeed, splits: dict[str, PreparedSplit]) -> str:
    """What was measured, and where the images came from."""
    source = "mapped from the cache" if splits["train"].is_cached else "held in memory"
    rows = [
        (what, rate(found), f"{ratio(found / speed.decoded)}x")
        for what, found in (
            ("decoded and resized", speed.decoded),
            (f"as batches, {source}", speed.batches),
            ("augmented and normalised on the CPU", speed.augmented),
        )
    ]
    return table(("<loading, without the network", ">images/s", ">speed"), rows)


def measure_loading(
    dataset: Dataset, recipe: Recipe, training: PreparedSplit, augmentation: Augmentation
) -> LoadingSpeed:
    """Each way for about two seconds."""
    samples = dataset.train
    spread = np.linspace(0, len(samples) - 1, min(256, len(samples))).round().astype(np.int64)
    some = samples.take(spread)
    decoded, start = 0, time.perf_counter()
    while decoded == 0 or time.perf_counter() - start < _SECONDS:
        preprocessing = recipe.image.preprocessing()
        decoded += sum(map(len, stream_images(some, preprocessing, description="decoding")))
    decoding = decoded / (time.perf_counter() - start)
    stored = StoredImages(training.images, training.labels, torch.device("cpu"))
    return LoadingSpeed(
        decoding,
        _batch_speed(stored, recipe.training.batch_size, None),
        _batch_speed(stored, recipe.training.batch_size, augmentation),
    )


def _batch_speed(stored: StoredImages, batch_size: int, augmentation: Augmentation | None) -> float:
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(stored), generator=generator)
    done, start = 0, time.perf_counter()
    while True:
        for rows in stored.batches(batch_size, order):
            images, labels = stored.take(rows)
            if augmentation is not None:
                augmentation(images, labels, generator)
            done += len(rows)
            if time.perf_counter() - start > _SECONDS:
                return done / (time.perf_counter() - start)


def _write_sheet(path: Path | None, default: Path, png: bytes) -> str:
    """Write the sheet to `path`, or to `default` if that is possible; says where it is, or why it is nowhere."""
    wanted = path or default
    try:
        wanted.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(wanted, png)
    except OSError as error:
        if path is not None:
            raise InputError(f"--sheet {path}: cannot be written to ({error.strerror})") from None
        return f"no contact sheet: {wanted} cannot be written ({error.strerror}); name another place: --sheet FILE"
    return f"training images as prepared (first column) and as the network is given them: {wanted}"


def _draw_sheet(
    dataset: Dataset, recipe: Recipe, training: PreparedSplit, prepared: PreparedSplit, augmentation: Augmentation
) -> bytes:
    chosen = spread_over_classes(dataset.train.labels, ROWS)
    names = [_cut(dataset.classes[label]) for label in dataset.train.labels[chosen]]
    images = torch.from_numpy(np.array(training.images[chosen]))
    labels = torch.from_numpy(training.labels[chosen])
    generator = torch.Generator().manual_seed(recipe.training.seed)
    return contact_sheet(
        names,
        np.array(prepared.images[chosen]),
        lambda: augmentation(images, labels, generator)[0],
        recipe.image.preprocessing(),
        is_random=augmentation.is_random,
    )


def spread_over_classes(labels: Int64Array, count: int) -> Int64Array:
    """Indices of at most `count` images, the first of each class in turn, then the second."""
    turns = np.empty(len(labels), np.int64)  # how many of its class come before each image
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        turns[places] = np.arange(len(places))
    return np.lexsort((labels, turns))[:count]


def _cut(name: str) -> str:
    name = printable(name)
    return name if len(name) <= 30 else f"{name[:27]}..."
