"""The run directory: what training leaves behind and export reads.

::

    runs/<recipe>-<time>/
        run.json              this file's `RunRecord`
        recipe.toml           the recipe as resolved
        history.csv           one row per epoch
        weights.safetensors   the weights of the best epoch
        leaks.json            images that are in two splits, see `samdeploy.data.duplicates.leaks`
        hashes.npz            hashes of every image, see `samdeploy.data.duplicates.image_hashes`
        bundle/               written by export
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from samdeploy.bundle.annotations import Rules
from samdeploy.bundle.fields import check_format, read, to_json
from samdeploy.bundle.names import MANIFEST, RECIPE_FILE, RUN_FILE, WEIGHTS_FILE
from samdeploy.bundle.spec import OptionValue, Preprocessing
from samdeploy.errors import BundleError, InputError
from samdeploy.files import json_bytes, read_json, write_atomic

FORMAT = "samdeploy-run"
VERSION = 1

Status = Literal["training", "complete", "interrupted", "diverged", "imported"]
_OPTIONAL = Rules(optional=True)
_MOST_NAMED = 3  # other runs, in an error


@dataclass(frozen=True, slots=True)
class Leg:
    """One part of a training, from its start or from a checkpoint on.

    Attributes:
        epoch, step: where it begins; (1, 0) is the start.
        date: when, UTC, ISO 8601.
        processes: that train together.
        changed: what `--force` changed, in words.
    """

    epoch: int
    step: int
    date: str
    processes: int
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is known about one training run.

    Attributes:
        arch, options, classes, preprocessing: the model, as in `ModelSpec`.
        dataset: name of the data set.
        data_options: options it was opened with, such as {"level": "variant"}.
        data_root: folder of the data on the training machine.
        val_fraction, split_seed: how the validation split was taken out of train.
        counts: images per split.
        fingerprints: SHA-256 over the prepared images and labels, per split.
        status: "training" until the end was reached; anything but "complete" has no test accuracy.  "imported": the
            network was trained elsewhere, and `best_val_top1` and `best_val_loss` are of some of the images that
            were set aside: those that hashes.npz and `images_sha256` hold.
        best_epoch: counted from 1; 0 while no epoch has ended, and of imported networks.
        best_val_top1: in percent.
        best_val_loss: mean cross entropy, in nats.
        test_top1: in percent, over `test_images` images, of which `test_correct` were right; measured once.
        provenance: versions and machine.
        weights_sha256: of weights.safetensors; "" while no epoch has ended, and in runs that did not record it.
        images_sha256, labelled_sha256: of the prepared images of val and test as sets, without and with their labels;
            empty in runs that did not record it.
        license: of the weights, see `ModelSpec`.
        legs: the parts of the training, one more for each time that it was resumed; empty in runs that did not record
            them.
        warnings: what data or training do not support, for people; see `samdeploy.train.watch.cautions`.
    """

    arch: str
    options: Mapping[str, OptionValue]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    dataset: str
    data_options: Mapping[str, OptionValue]
    data_root: str
    val_fraction: float
    split_seed: int
    counts: Mapping[str, int]
    fingerprints: Mapping[str, str]
    status: Status
    best_epoch: int
    best_val_top1: float
    best_val_loss: float
    test_top1: float | None
    test_correct: int | None
    test_images: int | None
    provenance: Mapping[str, str]
    weights_sha256: str = field(default="", metadata=_OPTIONAL)
    images_sha256: Mapping[str, str] = field(default_factory=dict, metadata=_OPTIONAL)
    labelled_sha256: Mapping[str, str] = field(default_factory=dict, metadata=_OPTIONAL)
    license: str | None = field(default=None, metadata=_OPTIONAL)
    legs: tuple[Leg, ...] = field(default=(), metadata=_OPTIONAL)
    warnings: tuple[str, ...] = field(default=(), metadata=_OPTIONAL)


def write_run(run_dir: Path, record: RunRecord) -> None:
    """Write run.json, atomically."""
    write_atomic(run_dir / RUN_FILE, json_bytes({"format": FORMAT, "version": VERSION, **to_json(record)}))


def open_run(run_dir: Path) -> RunRecord:
    """Read run.json.

    Raises:
        BundleError: missing, damaged, or written by a newer samdeploy.
    """
    path = run_dir / RUN_FILE
    if not run_dir.exists():
        cure = f"a network is imported first: samdeploy import {run_dir}" if ":" in str(run_dir) else _others(run_dir)
        raise BundleError(f"run {run_dir}: no such folder; {cure}")
    if not path.exists() and (run_dir / RECIPE_FILE).is_file():
        raise BundleError(
            f"run {run_dir}: no epoch of its training has ended; go on with: samdeploy train --resume {run_dir}"
        )
    if not path.exists() and (run_dir / MANIFEST).is_file():
        run = run_dir.resolve().parent
        cure = f": samdeploy export {run}" if (run / RUN_FILE).is_file() else ""
        raise BundleError(f"run {run_dir}: is a bundle; name the run that it was exported from{cure}")
    if not path.exists():
        from samdeploy.bundle.path_kind import a, path_kind  # late: it needs this file

        kind = path_kind(run_dir)
        cure = {
            "folder of images": f"to train on it: samdeploy train {run_dir}",
            "weight file": f"import it first: samdeploy import {shlex.quote(str(run_dir))} --arch timm:NAME",
            "ONNX graph": f"import it first: samdeploy import {shlex.quote(str(run_dir))}",
            "folder of runs": f"name one of them, or take the newest: --runs {run_dir}",
        }.get(kind, "a run's folder expected, which samdeploy train makes")
        raise BundleError(f"run {run_dir}: is {a(kind)}; {cure}")
    values = read_json(path, "run")
    check_format(values, FORMAT, VERSION, str(path))
    del values["format"], values["version"]
    if "gate" in values:  # development versions wrote the one option of the one family
        values["options"] = {"gate": values.pop("gate")}
    if isinstance(values.get("preprocessing"), dict):
        values["preprocessing"].setdefault("crop", "floor")  # which development versions did not write
    return read(RunRecord, values, str(path), BundleError)


def _others(run_dir: Path) -> str:
    """What to name in place of a run that is not there."""
    parent = run_dir.parent if run_dir.parent != Path() else Path("runs")
    found = sorted((path.parent for path in parent.glob(f"*/{RUN_FILE}")), key=_age, reverse=True)
    if not found:
        return "samdeploy train or samdeploy import makes one"
    return f"the newest runs: {', '.join(map(str, found[:_MOST_NAMED]))}"


def _age(run_dir: Path) -> tuple[int, str]:
    return (run_dir / RUN_FILE).stat().st_mtime_ns, run_dir.name


def latest_run(runs_root: Path) -> Path:
    """The newest run below `runs_root` that holds weights.

    Raises:
        InputError: there is none.
    """
    found = [path.parent for path in runs_root.glob(f"*/{RUN_FILE}") if (path.parent / WEIGHTS_FILE).is_file()]
    if not found:
        raise InputError(f"no run with weights below {runs_root}/; samdeploy train or samdeploy import makes one")
    return max(found, key=_age)


def processes_in_turn(legs: Sequence[Leg]) -> list[int]:
    """How many processes trained, one number for each time that it changed."""
    return [count for count, _ in itertools.groupby(leg.processes for leg in legs)]


def legs_in_words(legs: Sequence[Leg]) -> dict[str, str]:
    """When a training began, and where and how it was resumed, for the provenance of a bundle."""
    if not legs:
        return {}
    first, *others = legs
    resumed = [f"epoch {leg.epoch} step {leg.step} on {leg.date}" for leg in others]
    changed = [f"at epoch {leg.epoch} step {leg.step}: {'; '.join(leg.changed)}" for leg in others if leg.changed]
    return {
        "started": first.date,
        "processes": ", then ".join(map(str, processes_in_turn(legs))),
        **({"resumed": "; ".join(resumed)} if resumed else {}),
        **({"changed_by_force": " | ".join(changed)} if changed else {}),
    }
