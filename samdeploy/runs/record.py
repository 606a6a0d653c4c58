"""The run directory: what training leaves behind and export reads.

::

    runs/<recipe>-<time>/
        run.json              this file's `RunRecord`
        recipe.toml           the recipe as resolved
        history.csv           one row per epoch
        weights.safetensors   the weights of the best epoch
        leaks.json            pictures that stand in two splits, see `samdeploy.data.duplicates.leaks`
        hashes.npz            what every picture is known by, see `samdeploy.data.duplicates.image_hashes`
        bundle/               written by export
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from samdeploy.bundle.fields import Fields, check_format, short
from samdeploy.bundle.names import MANIFEST, RECIPE_FILE, RUN_FILE, WEIGHTS_FILE
from samdeploy.bundle.spec import OptionValue, Preprocessing
from samdeploy.bundle.spec_json import preprocessing_from_fields, preprocessing_to_json
from samdeploy.errors import BundleError, InputError
from samdeploy.files import json_bytes, read_json, write_atomic

FORMAT = "samdeploy-run"
VERSION = 1

Status = Literal["training", "complete", "interrupted", "diverged"]


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is known about one training run.

    Attributes:
        arch, options, classes, preprocessing: the model, as in `ModelSpec`.
        dataset: name of the data set.
        data_options: options it was opened with, such as {"level": "variant"}.
        data_root: folder of the data on the training machine.
        val_fraction, split_seed: how the validation split was taken out of train.
        counts: pictures per split.
        fingerprints: SHA-256 over the prepared pictures and labels, per split.
        status: "training" until the end was reached; anything but "complete" has no test accuracy.
        best_epoch: counted from 1; 0 while no epoch has ended.
        best_val_top1: in percent.
        best_val_loss: mean cross entropy, in nats.
        test_top1: in percent, over `test_images` pictures, of which `test_correct` were right; measured once.
        provenance: versions and machine.
        weights_sha256: of weights.safetensors; "" while no epoch has ended, and in runs that did not record it.
        images_sha256, labelled_sha256: of the prepared images of val and test as sets, without and with their labels;
            empty in runs that did not record it.
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
    weights_sha256: str = ""
    images_sha256: Mapping[str, str] = field(default_factory=dict)
    labelled_sha256: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def write_run(run_dir: Path, record: RunRecord) -> None:
    """Write run.json, atomically."""
    write_atomic(run_dir / RUN_FILE, json_bytes(_to_json(record)))


def open_run(run_dir: Path) -> RunRecord:
    """Read run.json.

    Raises:
        BundleError: missing, damaged, or written by a newer samdeploy.
    """
    path = run_dir / RUN_FILE
    if not run_dir.exists():
        raise BundleError(f"run {run_dir}: no such folder")
    if not path.exists() and (run_dir / RECIPE_FILE).is_file():
        raise BundleError(
            f"run {run_dir}: no epoch of its training has ended; go on with: samdeploy train --resume {run_dir}"
        )
    if not path.exists() and (run_dir / MANIFEST).is_file():
        raise BundleError(f"run {run_dir}: is a bundle; expected the run that it was exported from")
    if not path.exists():
        from samdeploy.bundle.path_kind import a, path_kind  # late: it needs this file

        kind = path_kind(run_dir)
        cure = {
            "folder of images": f"to train on it: samdeploy train {run_dir}",
            "folder of runs": f"name one of them, or take the newest: --runs {run_dir}",
        }.get(kind, "a run's folder expected, which samdeploy train makes")
        raise BundleError(f"run {run_dir}: is {a(kind)}; {cure}")
    values = read_json(path, "run")
    check_format(values, FORMAT, VERSION, str(path))
    fields = Fields(values, str(path), BundleError)
    fields.text("format"), fields.integer("version")
    record = RunRecord(
        arch=fields.text("arch"),
        # Development versions wrote the one option of the one family.
        options={"gate": fields.text("gate")} if fields.has("gate") else fields.scalar_map("options"),
        classes=fields.texts("classes"),
        preprocessing=preprocessing_from_fields(fields.section("preprocessing")),
        dataset=fields.text("dataset"),
        data_options=fields.scalar_map("data_options"),
        data_root=fields.text("data_root"),
        val_fraction=fields.number("val_fraction"),
        split_seed=fields.integer("split_seed"),
        counts=fields.integer_map("counts"),
        fingerprints=fields.text_map("fingerprints"),
        status=_status(fields),
        best_epoch=fields.integer("best_epoch"),
        best_val_top1=fields.number("best_val_top1"),
        best_val_loss=fields.number("best_val_loss"),
        test_top1=fields.number_or_none("test_top1"),
        test_correct=fields.integer_or_none("test_correct"),
        test_images=fields.integer_or_none("test_images"),
        provenance=fields.text_map("provenance"),
        weights_sha256=fields.text("weights_sha256") if fields.has("weights_sha256") else "",
        images_sha256=fields.text_map("images_sha256") if fields.has("images_sha256") else {},
        labelled_sha256=fields.text_map("labelled_sha256") if fields.has("labelled_sha256") else {},
        warnings=fields.texts("warnings") if fields.has("warnings") else (),
    )
    fields.close()
    return record


def latest_run(runs_root: Path) -> Path:
    """The newest run below `runs_root` that holds weights.

    Raises:
        InputError: there is none.
    """
    found = [path.parent for path in runs_root.glob(f"*/{RUN_FILE}") if (path.parent / WEIGHTS_FILE).is_file()]
    if not found:
        raise InputError(f"no run with weights below {runs_root}/; train one first: samdeploy train")
    return max(found, key=lambda path: ((path / RUN_FILE).stat().st_mtime_ns, path.name))


def _to_json(record: RunRecord) -> dict[str, Any]:
    values: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    for name in RunRecord.__slots__:
        value = getattr(record, name)
        if isinstance(value, Preprocessing):
            value = preprocessing_to_json(value)
        elif isinstance(value, tuple):
            value = list(value)
        elif isinstance(value, Mapping):
            value = dict(value)
        values[name] = value
    return values


def _status(fields: Fields) -> Status:
    text = fields.text("status")
    for status in get_args(Status):
        if text == status:
            return status  # type: ignore[no-any-return]
    if text:  # else it is missing, which is reported already
        fields.report(f"status {short(text)} found, one of {', '.join(get_args(Status))} expected")
    return "training"
