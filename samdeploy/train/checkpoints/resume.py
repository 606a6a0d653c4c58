"""Which run to go on with, and whether it may go on as it is."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samdeploy.bundle.names import RECIPE_FILE, RUN_FILE, WEIGHTS_FILE
from samdeploy.errors import BundleError, InputError, RecipeError, WeightsError
from samdeploy.files import expanded, write_atomic
from samdeploy.models.weights import read_state
from samdeploy.runs.record import RunRecord, open_run
from samdeploy.train.checkpoints.checkpoint import FOLDER, NEWEST_FIRST, Checkpoint, read_checkpoint
from samdeploy.train.recipe.checks import recipe_from_table
from samdeploy.train.recipe.dump import dump_recipe, recipe_table
from samdeploy.train.recipe.load import load_recipe
from samdeploy.train.recipe.recipe import NOT_THE_EXPERIMENT, Recipe
from samdeploy.train.run.folder import IN_USE, best_file, is_locked

_FREE = NOT_THE_EXPERIMENT | {"description", "changed"}


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run that may go on.

    Attributes:
        path: its folder.
        recipe: as it stands now.
        checkpoint: where it goes on.
        force: changed keys and data were allowed.
        changes: of the recipe that are so allowed: key -> in words.
    """

    path: Path
    recipe: Recipe
    checkpoint: Checkpoint
    force: bool
    changes: Mapping[str, str] = field(default_factory=dict)


def unfinished_runs(runs_root: Path) -> list[Path]:
    """Runs below `runs_root` with a checkpoint that no process is training and that did not diverge, newest first."""
    found = []
    for path in runs_root.glob("*"):
        times = [(path / FOLDER / name).stat().st_mtime_ns for name in NEWEST_FIRST if (path / FOLDER / name).is_file()]
        if times and not is_locked(path) and _status(path) in ("training", "interrupted"):
            found.append((max(times), path.name, path))
    return [path for _, _, path in sorted(found, reverse=True)]


def find_run(name: str | None, runs_root: Path) -> Path:
    """The run that a user named, by path or by its name below `runs_root`; the newest unfinished one for None.

    Raises:
        InputError: there is none, it is complete, another process is training it, or the folder is no run's.
    """
    if name is None:
        runs = unfinished_runs(runs_root)
        if not runs:
            cure = "name the folder of runs with --runs, or train one first: samdeploy train"
            if any(is_locked(path) for path in runs_root.glob("*")):
                cure = f"wait for the run that is being trained, or stop it first; or {cure}"
            raise InputError(
                f"no unfinished run with a checkpoint in {runs_root}/ (runs there: {_runs_found(runs_root)}); {cure}"
            )
        print(f"taking the newest unfinished run: {runs[0]}", file=sys.stderr)
        return runs[0]
    places = (expanded(name), runs_root / name)
    path = next((path for path in places if path.is_dir()), None)
    if path is None:
        recipe = next((path for path in places if path.is_file()), None)
        if recipe is not None:
            of_run = f", for example {recipe.parent}" if recipe.name == RECIPE_FILE else ""
            raise InputError(f"run {name}: a file found, the folder of a run expected{of_run}")
        names = ", ".join(str(run) for run in unfinished_runs(runs_root)[:5]) or "none"
        raise InputError(f"run {name}: no such folder; unfinished runs below {runs_root}/: {names}")
    if is_locked(path):
        raise InputError(f"run {path}: {IN_USE}")
    _check_is_run(path)
    status = _status(path)
    if status == "damaged" and not any((path / FOLDER / name).is_file() for name in NEWEST_FIRST):
        raise InputError(
            f"run {path}: its {RUN_FILE} is damaged, and there is no checkpoint to go on from; train anew: "
            f"samdeploy train {path / RECIPE_FILE}"
        )
    if status == "imported":
        raise InputError(
            f"run {path}: was imported, and no training goes on there; to start one from its weights: samdeploy train "
            f"FOLDER --set model.arch={open_run(path).arch} --set model.pretrained={path}"
        )
    if status == "complete":
        raise InputError(
            f"run {path}: is complete, nothing is left to resume; to train again: samdeploy train {path / RECIPE_FILE}"
        )
    return path


def _check_is_run(path: Path) -> None:
    """Refuse the folder above a run's, or below it."""
    if path.resolve().name == FOLDER and any((path / name).is_file() for name in NEWEST_FIRST):
        raise InputError(f"run {path}: a run's folder of checkpoints found, the run expected: {path.resolve().parent}")
    if any((path / name).exists() for name in (RUN_FILE, RECIPE_FILE, FOLDER)):
        return
    below = [inner for inner in path.glob("*") if (inner / RECIPE_FILE).is_file() or (inner / FOLDER).is_dir()]
    if below:
        raise InputError(
            f"run {path}: a folder of runs found, a run expected; to go on with its newest unfinished one: samdeploy "
            f"train --resume --runs {path}; found there: {_runs_found(path)}"
        )
    raise InputError(
        f"run {path}: a run's folder expected; neither {RUN_FILE}, {RECIPE_FILE} nor {FOLDER}/ found in it"
    )


def open_resumed(path: Path, overrides: Sequence[str], *, force: bool) -> Resumed:
    """Read a run's recipe and its newest whole checkpoint, and compare the two.

    Args:
        overrides: as for `load_recipe`, on top of the run's own recipe.
        force: allow changed keys.

    Raises:
        RecipeError: keys changed; lists them.
        WeightsError: no whole checkpoint, or one of another network; or the best weights so far are damaged or gone.
    """
    checkpoint = read_checkpoint(path / FOLDER, lambda text: print(text, file=sys.stderr))
    before = recipe_from_table(checkpoint.facts["recipe"], f"checkpoint {path / FOLDER}")
    if not (path / RECIPE_FILE).exists():
        write_atomic(path / RECIPE_FILE, dump_recipe(before).encode())
        print(f"{path / RECIPE_FILE}: was gone; written anew from the checkpoint, which holds it too", file=sys.stderr)
    recipe = load_recipe(path / RECIPE_FILE, overrides)
    changes = changed_keys(before, recipe)
    # All of [model] but the start makes another network, into which the weights do not fit.
    other = [change for key, change in changes.items() if key.startswith("model.") and key != "model.pretrained"]
    if other:
        raise WeightsError(
            f"run {path}: its checkpoint is of another network ({'; '.join(other)}), whose weights do not fit; take "
            f"back the change, or train anew: samdeploy train {path / RECIPE_FILE}"
        )
    serious = {key: change for key, change in changes.items() if key not in _FREE}
    words = "; ".join(serious.values())
    if serious and not force:
        raise RecipeError(
            f"run {path}: the recipe is not the one that the checkpoint was trained with: {words}; take "
            "back the change, or go on with it: --force"
        )
    if serious:
        print(f"going on with a changed recipe: {words}", file=sys.stderr)
    _check_best(path, checkpoint.facts["best"][0])
    return Resumed(path, recipe, checkpoint, force, serious)


def _check_best(path: Path, epoch: int) -> None:
    """See that the best weights so far are whole, before they take the place of the run's; mend them from those.

    Raises:
        WeightsError: they are not, and the run's weights are damaged or another epoch's.
    """
    if not epoch:
        return
    best, copy = best_file(path / FOLDER, epoch), path / WEIGHTS_FILE
    try:
        read_state(best)
        return
    except WeightsError as error:
        problem = str(error)
    try:
        is_copy = open_run(path).best_epoch == epoch
        read_state(copy)
    except (BundleError, WeightsError):
        is_copy = False
    if not is_copy:
        raise WeightsError(
            f"{problem}. They are the best weights so far, which the checkpoint of run {path} names, and there is no "
            f"other copy; put the file back, or train anew: samdeploy train {path / RECIPE_FILE}"
        )
    write_atomic(best, copy.read_bytes())
    print(f"{problem}; taken from {copy}, which holds the same weights", file=sys.stderr)


def changed_keys(before: Recipe, now: Recipe) -> dict[str, str]:
    """By dotted key, "training.epochs 12 -> 20" for every value that differs."""
    old, new = _flat(recipe_table(before)), _flat(recipe_table(now))
    keys = dict.fromkeys((*old, *new))
    return {key: f"{key} {old.get(key)!r} -> {new.get(key)!r}" for key in keys if old.get(key) != new.get(key)}


def check_classes(resumed: Resumed, record: RunRecord) -> None:
    """Refuse classes into which the checkpoint's head does not fit.

    Raises:
        WeightsError: names them.
    """
    facts = resumed.checkpoint.facts
    if tuple(facts["classes"]) != record.classes:
        raise WeightsError(
            f"run {resumed.path}: its checkpoint knows {len(facts['classes'])} classes, the data set has "
            f"{len(record.classes)} ({_other_classes(facts['classes'], record.classes)}); restore the data set, or "
            f"train anew: samdeploy train {resumed.path / RECIPE_FILE}"
        )


def _other_classes(before: Sequence[str], now: Sequence[str]) -> str:
    parts = []
    for word, names in (("gone", [name for name in before if name not in now]),
                        ("new", [name for name in now if name not in before])):  # fmt: skip
        if names:
            parts.append(f"{word}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}")
    return "; ".join(parts) or "the same in another order"


def changed_splits(resumed: Resumed, record: RunRecord) -> list[str]:
    """Those whose images or labels are not the checkpoint's."""
    before = resumed.checkpoint.facts["fingerprints"]
    return [split for split, found in record.fingerprints.items() if before.get(split) != found]


def _runs_found(runs_root: Path) -> str:
    """How many runs there are of each kind."""
    folders = [path for path in runs_root.glob("*") if (path / RECIPE_FILE).is_file() or (path / FOLDER).is_dir()]
    counts = Counter(_kind(path) for path in folders)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"


def _kind(path: Path) -> str:
    """A run's state, in words."""
    if is_locked(path):
        return "being trained"
    words = {"training": "killed", "interrupted": "stopped"}
    status = _status(path)
    word = words.get(status, status)
    has_checkpoint = any((path / FOLDER / name).is_file() for name in NEWEST_FIRST)
    return word if has_checkpoint or word == status else f"{word} before its first checkpoint"


def _status(path: Path) -> str:
    if not (path / RUN_FILE).is_file():
        return "training"
    try:
        return open_run(path).status
    except BundleError:
        return "damaged"


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat
