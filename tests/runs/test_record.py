"""The run directory: what is written is what is read, and everything else is refused."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from samdeploy.bundle.names import RUN_FILE, WEIGHTS_FILE
from samdeploy.bundle.spec import RESIZES, Preprocessing
from samdeploy.errors import BundleError, InputError
from samdeploy.runs.record import Leg, RunRecord, latest_run, open_run, write_run

COMPLETE = RunRecord(
    arch="sam-resnet18",
    options={"gate": "identity"},
    classes=("Löwe", "cat"),
    preprocessing=Preprocessing(
        32, 30, "center_crop", 36, (0.1, 0.2, 1 / 3), (0.4, 0.5, 0.6), RESIZES["bicubic"], "half-even"
    ),
    dataset="folder",
    data_options={"level": "variant", "cut": True, "n": 3, "x": 0.1},
    data_root="data",
    val_fraction=0.1,
    split_seed=7,
    counts={"train": 80, "val": 10, "test": 10},
    fingerprints={"train": "aa", "val": "bb", "test": "cc"},
    status="complete",
    best_epoch=3,
    best_val_top1=93.25,
    best_val_loss=0.1 + 0.2,  # 17 digits: nothing is rounded
    test_top1=90.0,
    test_correct=9,
    test_images=10,
    provenance={"torch": "2.9.0", "machine": "x86_64"},
    weights_sha256="ab" * 32,
    images_sha256={"val": "cd" * 32, "test": "ef" * 32},
    labelled_sha256={"val": "01" * 32, "test": "23" * 32},
    legs=(
        Leg(1, 0, "2026-01-02T03:04:05+00:00", 2),
        Leg(2, 3, "2026-01-03T03:04:05+00:00", 1, ("image.mean changed",)),
    ),
    license="Apache-2.0",
)
UNTESTED = dataclasses.replace(
    COMPLETE, status="interrupted", best_epoch=0, test_top1=None, test_correct=None, test_images=None
)


@pytest.mark.parametrize("record", [COMPLETE, UNTESTED], ids=["complete", "untested"])
def test_round_trip(record: RunRecord, tmp_path: Path) -> None:
    write_run(tmp_path, record)
    assert open_run(tmp_path) == record


def changed(folder: Path, **changes: Any) -> Path:
    """`folder` with a run.json in which some keys are changed, and those that are `...` removed."""
    write_run(folder, COMPLETE)
    values = json.loads((folder / RUN_FILE).read_text()) | changes
    (folder / RUN_FILE).write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))
    return folder


def test_a_run_without_a_crop_and_a_license_cuts_as_before(tmp_path: Path) -> None:
    values = json.loads((changed(tmp_path, license=...) / RUN_FILE).read_text())
    del values["preprocessing"]["crop"]
    (tmp_path / RUN_FILE).write_text(json.dumps(values))
    preprocessing = dataclasses.replace(COMPLETE.preprocessing, crop="floor")
    assert open_run(tmp_path) == dataclasses.replace(COMPLETE, preprocessing=preprocessing, license=None)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": 2}, "format version 2 found, this samdeploy reads up to 1; update samdeploy"),
        ({"version": 2, "surprise": 1}, "format version 2 found"),  # a newer file may have any key
        ({"version": 0}, "version 0 found, an integer of at least 1 expected"),
        ({"version": True}, "version True found, an integer of at least 1 expected"),
        ({"version": "1"}, "version '1' found"),
        ({"format": "samdeploy-bundle"}, "format 'samdeploy-bundle' found, 'samdeploy-run' expected"),
        ({"format": ...}, "format None found, 'samdeploy-run' expected"),
        (
            {"status": "done"},
            "status 'done' found, one of training, complete, interrupted, diverged, imported expected",
        ),
        ({"counts": {"test": "many"}}, "'counts' must map names to integers, text 'many' found at 'test'"),
        ({"data_options": {"a": [1]}}, "'data_options' must map names to texts, numbers and booleans, list [1] found"),
        ({"best_epoch": 1.5}, "'best_epoch' must be an integer, number 1.5 found"),
        ({"best_val_top1": True}, "'best_val_top1' must be a number, boolean True found"),
        ({"test_top1": "90"}, "'test_top1' must be a number, text '90' found"),
        ({"classes": "cat"}, "'classes' must be a list of texts, text 'cat' found"),
        ({"classes": ["cat", 1]}, "'classes' must be a list of texts"),
    ],
)
def test_refused(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        open_run(changed(tmp_path, **changes))
    assert str(caught.value).startswith(f"{tmp_path / RUN_FILE}: ")
    assert text in str(caught.value)


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    preprocessing = {"height": "32", "width": 30, "fit": "squeeze", "resize_shrt": None}
    changes = {"arch": ..., "clases": [], "status": "done", "test_images": 1.5, "preprocessing": preprocessing}
    with pytest.raises(BundleError) as caught:
        open_run(changed(tmp_path, **changes))
    problems = str(caught.value).removeprefix(f"{tmp_path / RUN_FILE}: ").split("; ")
    assert [problem for problem in problems if not problem.startswith("did you mean")] == [
        "'arch' is missing",
        "status 'done' found, one of training, complete, interrupted, diverged, imported expected",
        "'test_images' must be an integer, number 1.5 found",
        "unknown key 'clases'",
        "preprocessing: 'height' must be an integer, text '32' found",
        "preprocessing: 'resize_short' is missing",
        "preprocessing: 'mean' is missing",
        "preprocessing: 'std' is missing",
        "preprocessing: 'resize' is missing",
        "preprocessing: unknown key 'resize_shrt'",
    ]
    assert "unknown key 'clases'; did you mean 'classes'" in str(caught.value)
    assert "unknown key 'resize_shrt'; did you mean 'resize_short'" in str(caught.value)


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^run .*nowhere: no such folder; samdeploy train or samdeploy import makes"):
        open_run(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"^run .*: is an empty folder; a run's folder expected"):
        open_run(tmp_path)
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(BundleError, match=r"no epoch of its training has ended; go on with: samdeploy train --resume"):
        open_run(tmp_path)


# --- latest_run -------------------------------------------------------------------------------------------------------


def run_folder(root: Path, name: str, time: int, *, weights: bool = True) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    write_run(folder, COMPLETE)
    if weights:
        (folder / WEIGHTS_FILE).touch()
    os.utime(folder / RUN_FILE, (time, time))
    return folder


def test_latest_run_is_the_newest_that_has_weights(tmp_path: Path) -> None:
    run_folder(tmp_path, "z-old", 1_000)
    newest = run_folder(tmp_path, "a-new", 2_000)
    run_folder(tmp_path, "m-without-weights", 3_000, weights=False)
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").touch()
    assert latest_run(tmp_path) == newest


def test_of_runs_of_the_same_moment_the_last_name_counts(tmp_path: Path) -> None:
    for name in ("b", "c", "a"):
        run_folder(tmp_path, name, 1_000)
    assert latest_run(tmp_path).name == "c"


def test_no_run(tmp_path: Path) -> None:
    run_folder(tmp_path, "a", 1_000, weights=False)
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError) as caught:
            latest_run(root)
        assert str(caught.value) == f"no run with weights below {root}/; samdeploy train or samdeploy import makes one"
