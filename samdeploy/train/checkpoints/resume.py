"""Which run to go on with, and whether it may go on as it is."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samdeploy.errors import BundleError, DatasetError, InputError, RecipeError, WeightsError
from samdeploy.files import write_atomic
from samdeploy.models.weights import read_state
from samdeploy.run import RECIPE_FILE, RUN_FILE, WEIGHTS_FILE, RunRecord, open_run
from samdeploy.train.checkpoints.checkpoint import FOLDER, NEWEST_FIRST, Checkpoint, read_checkpoint
from samdeploy.train.recipe import NOT_THE_EXPERIMENT, Recipe, load_recipe, recipe_table
from samdeploy.train.recipe_checks import recipe_from_table
from samdeploy.train.run_folder import best_file, is_locked

_FREE = NOT_THE_EXPERIMENT | {"description"}
# Keys that make it another network, into which the weights do not fit.
_NETWORK = {"model.arch", "model.gate"}


@dataclass(frozen=True, slots=True)
class Resumed:
    """A run that may go on.

    Attributes:
        path: its folder.
        recipe: as it stands now.
        checkpoint: where it goes on.
        force: changed keys and data were allowed.
        changes: of the recipe, in words, that are so allowed.
    """

    path: Path
    recipe: Recipe
    checkpoint: Checkpoint
    force: bool
    changes: tuple[str, ...] = ()


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
        InputError: there is none, or it is complete.
    """
    if name is None:
        runs = unfinished_runs(runs_root)
        if not runs:
            raise InputError(
                f"no unfinished run with a checkpoint below {runs_root}/ (found there: {_runs_found(runs_root)}); name "
                "the folder of runs with --runs, or train one first: samdeploy train"
            )
        print(f"taking the newest unfinished run: {runs[0]}", file=sys.stderr)
        return runs[0]
    places = (Path(name).expanduser(), runs_root / name)
    path = next((path for path in places if path.is_dir()), None)
    if path is None:
        recipe = next((path for path in places if path.is_file()), None)
        if recipe is not None:
            of_run = f", for example {recipe.parent}" if recipe.name == RECIPE_FILE else ""
            raise InputError(f"run {name}: a file found, the folder of a run expected{of_run}")
        names = ", ".join(str(run) for run in unfinished_runs(runs_root)[:5]) or "none"
        raise InputError(f"run {name}: no such folder; unfinished runs below {runs_root}/: {names}")
    status = _status(path)
    if status == "damaged" and not any((path / FOLDER / name).is_file() for name in NEWEST_FIRST):
        raise InputError(
            f"run {path}: its {RUN_FILE} is damaged, and there is no checkpoint to go on from; train anew: "
            f"samdeploy train {path / RECIPE_FILE}"
        )
    if status == "complete":
        raise InputError(
            f"run {path}: is complete, and a complete run keeps no checkpoint to go on from; train anew: "
            f"samdeploy train {path / RECIPE_FILE}"
        )
    return path


def open_resumed(path: Path, overrides: Sequence[str], *, force: bool) -> Resumed:
    """Read a run's recipe and its newest whole checkpoint, and compare the two.

    Args:
        overrides: as for `load_recipe`, on top of the run's own recipe.
        force: allow changed keys.

    Raises:
        RecipeError: keys changed; lists them.
        WeightsError: no whole checkpoint, or one of another network; or the best weights so far are damaged or gone.
        InputError: the run has no recipe.
    """
    checkpoint = read_checkpoint(path / FOLDER, lambda text: print(text, file=sys.stderr))
    recipe = load_recipe(path / RECIPE_FILE, overrides)
    before = recipe_from_table(checkpoint.facts["recipe"], f"checkpoint {path / FOLDER}")
    changes = changed_keys(before, recipe)
    other = [change for key, change in changes.items() if key in _NETWORK]
    if other:
        raise WeightsError(
            f"run {path}: its checkpoint is of another network ({'; '.join(other)}), whose weights do not fit; take "
            f"back the change, or train anew: samdeploy train {path / RECIPE_FILE}"
        )
    serious = [change for key, change in changes.items() if key not in _FREE]
    if serious and not force:
        raise RecipeError(
            f"run {path}: the recipe is not the one that the checkpoint was trained with: {'; '.join(serious)}; take "
            "back the change, or go on with it: --force"
        )
    if serious:
        print(f"going on with a changed recipe: {'; '.join(serious)}", file=sys.stderr)
    _check_best(path, checkpoint.facts["best"][0])
    return Resumed(path, recipe, checkpoint, force, tuple(serious))


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


def check_data(resumed: Resumed, record: RunRecord) -> str:
    """Compare the pictures of today with those that the checkpoint was trained on.

    Returns:
        What changed and was forced, in words; "" where nothing did.

    Raises:
        WeightsError: other classes, so that the head does not fit.
        DatasetError: other pictures or labels; with force that is said and allowed.
    """
    facts = resumed.checkpoint.facts
    if tuple(facts["classes"]) != record.classes:
        raise WeightsError(
            f"run {resumed.path}: its checkpoint knows {len(facts['classes'])} classes, the data set has "
            f"{len(record.classes)} ({_other_classes(facts['classes'], record.classes)}); restore the data set, or "
            f"train anew: samdeploy train {resumed.path / RECIPE_FILE}"
        )
    other = changed_splits(resumed, record)
    if not other:
        return ""
    text = f"run {resumed.path}: the data set changed since the checkpoint was written ({', '.join(other)} differ)"
    if not resumed.force:
        raise DatasetError(f"{text}; restore the pictures, or go on with the new ones: --force")
    return f"{text}; going on with the new pictures"


def _other_classes(before: Sequence[str], now: Sequence[str]) -> str:
    parts = []
    for word, names in (("gone", [name for name in before if name not in now]),
                        ("new", [name for name in now if name not in before])):  # fmt: skip
        if names:
            parts.append(f"{word}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}")
    return "; ".join(parts) or "the same in another order"


def changed_splits(resumed: Resumed, record: RunRecord) -> list[str]:
    """Those whose pictures or labels are not the checkpoint's."""
    before = resumed.checkpoint.facts["fingerprints"]
    return [split for split, found in record.fingerprints.items() if before.get(split) != found]


def _runs_found(runs_root: Path) -> str:
    """How many runs there are of each kind."""
    folders = [path for path in runs_root.glob("*") if (path / RECIPE_FILE).is_file()]
    kinds = ["being trained" if is_locked(path) else _status(path) for path in folders]
    # One without a checkpoint that nobody trains was killed before it wrote its first.
    words = {"training": "killed before its first checkpoint", "interrupted": "stopped before its first checkpoint"}
    counts = Counter(words.get(kind, kind) for kind in kinds)
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "no run"


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
