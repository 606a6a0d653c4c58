"""`samdeploy reproduce RECIPE --runs 10`: the same training with ten seeds, as the original work did it.

::

    runs/reproduce-<recipe>/
        recipe.toml           the recipe of all runs, but for the seed
        seed-0/<run>/         a run directory for each seed
        reproduce.json        what `Reproduction` holds
        reproduce.png         the same as a plot

Started again, it skips the runs that are complete and goes on with the one that is not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from samdeploy.bundle.names import RECIPE_FILE, RUN_FILE
from samdeploy.data.protocol import PROTOCOLS
from samdeploy.errors import BundleError, Diverged, InputError, RecipeError
from samdeploy.files import write_atomic
from samdeploy.runs.record import RunRecord, open_run
from samdeploy.train.checkpoints.resume import changed_keys, unfinished_runs
from samdeploy.train.loop.train import resume, train
from samdeploy.train.recipe.dump import dump_recipe
from samdeploy.train.recipe.load import load_recipe
from samdeploy.train.recipe.recipe import NOT_THE_EXPERIMENT, Precision, Recipe
from samdeploy.train.reproduction import (
    FinishedRun,
    Published,
    Reproduction,
    reproduction_png,
    reproduction_table,
    write_reproduction,
)

JSON_FILE, PLOT_FILE = "reproduce.json", "reproduce.png"

# What the original work claims for SAM-ResNet-50, by data set; and what its figures are, in words.
PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "cifar10": Published(89.45, PROTOCOLS["chosen-on-test"]),
        "cifar100": Published(70.19, PROTOCOLS["chosen-on-test"]),
        "aircraft": Published(97.27, f"{PROTOCOLS['tested-on-train']}; the same text also says 99.7"),
    }
)
# Keys that may differ between one start and the next.
_FREE = NOT_THE_EXPERIMENT | {"training.seed", "description", "changed"}


def reproduce(recipe: Recipe, *, count: int, folder: Path) -> Reproduction:
    """Train with `count` seeds, from the recipe's own on, and write table, JSON and plot after each run.

    Raises:
        RecipeError: `folder` holds runs of another recipe.
        InputError: `count` is below 1, or `folder` cannot be written to.
        TrainingError, DatasetError, ...: as `samdeploy.train.loop.train.train`; a run that diverges is counted, and the
            others go on.
    """
    if count < 1:
        raise InputError(f"--runs {count} found, at least 1 expected")
    _claim(folder, recipe)
    first = recipe.training.seed
    found = Reproduction(recipe.name, "", (), PUBLISHED.get(recipe.data.name))
    for number in range(count):
        seed = first + number
        print(f"run {number + 1} of {count}, seed {seed}", file=sys.stderr)
        training = dataclasses.replace(recipe.training, seed=seed, precision=_precision(recipe, found))
        one = dataclasses.replace(recipe, training=training)
        try:
            run = _one_run(one, folder / f"seed-{seed}")
        except (KeyboardInterrupt, SystemExit):
            print("the runs so far are kept; the same samdeploy reproduce command goes on", file=sys.stderr)
            raise
        found = _with_run(found, seed, run)
        write_reproduction(folder / JSON_FILE, found)
        try:
            write_atomic(folder / PLOT_FILE, reproduction_png(found))
        except ImportError as error:
            print(f"no plot ({error.name} is missing: pip install 'samdeploy[plots]')", file=sys.stderr)
    print(reproduction_table(found))
    others = _other_seeds(folder, {str(run.seed) for run in found.runs})
    if others:
        seeds = ", ".join(others)
        print(f"not counted, though complete in {folder}: seed {seeds}; with more --runs they count", file=sys.stderr)
    return found


def _other_seeds(folder: Path, counted: set[str]) -> list[str]:
    """Seeds of complete runs of an earlier, longer call."""
    found = set()
    for path in folder.glob(f"*/*/{RUN_FILE}"):
        with contextlib.suppress(BundleError):
            record = open_run(path.parent)
            found |= {record.provenance["seed"]} - counted if record.status == "complete" else set()
    return sorted(found, key=int)


def _precision(recipe: Recipe, found: Reproduction) -> Precision:
    """The recipe's; what "auto" measured for the first run holds for all: a clock must not add to their spread."""
    path = next((run.path for run in found.runs if run.path is not None), None)
    first = open_run(Path(path)).provenance.get("precision") if path is not None else None
    if recipe.training.precision != "auto" or first not in ("fp32", "bf16"):
        return recipe.training.precision
    return "bf16" if first == "bf16" else "fp32"


def _claim(folder: Path, recipe: Recipe) -> None:
    """Make the folder for this recipe, or find out that it is."""
    path = folder / RECIPE_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            changes = {key: text for key, text in changed_keys(load_recipe(path), recipe).items() if key not in _FREE}
            if changes:
                raise RecipeError(
                    f"{folder} holds runs of another recipe: {'; '.join(changes.values())}; take back the change, or "
                    "name another folder: --into DIR"
                )
        else:
            write_atomic(path, dump_recipe(recipe).encode())
    except OSError as error:
        raise InputError(f"--into {folder}: cannot be written to ({error.strerror})") from None


def _one_run(recipe: Recipe, folder: Path) -> Path | None:
    """The run of one seed, finished now or earlier; None where it diverged and left nothing."""
    for path in sorted(folder.glob(f"*/{RUN_FILE}")):
        try:
            status = open_run(path.parent).status
        except BundleError:
            continue  # damaged; a new one is trained beside it
        if status in ("complete", "diverged"):
            print(f"seed {recipe.training.seed}: {status} already, in {path.parent}", file=sys.stderr)
            return path.parent
    unfinished = unfinished_runs(folder)
    try:
        return resume(unfinished[0]) if unfinished else train(recipe, runs_root=folder)
    except Diverged as error:  # but not where the disk is full or the memory too small: the others would fail alike
        diverged = [path.parent for path in folder.glob(f"*/{RUN_FILE}") if open_run(path.parent).status == "diverged"]
        print(f"seed {recipe.training.seed}: {error}", file=sys.stderr)
        return diverged[0] if diverged else None  # None: it did not finish an epoch, and nothing is left of it


def _with_run(found: Reproduction, seed: int, path: Path | None) -> Reproduction:
    if path is None:
        return dataclasses.replace(found, runs=(*found.runs, FinishedRun(seed, None, None, None, None, 0.0, 0, None)))
    record = open_run(path)
    if found.fingerprint and found.fingerprint != record.fingerprints["test"]:
        raise InputError(
            f"{path}: its test images are not those of the other runs; restore the data set, or name another folder: "
            "--into DIR"
        )
    run = FinishedRun(
        seed=seed,
        path=str(path),
        test_top1=record.test_top1,
        test_correct=record.test_correct,
        test_images=record.test_images,
        val_top1=record.best_val_top1,
        best_epoch=record.best_epoch,
        last_batch=record.provenance.get("last_batch_top1"),
    )
    return dataclasses.replace(
        found,
        runs=(*found.runs, run),
        fingerprint=record.fingerprints["test"],
        measures=record.provenance.get("test_measures", ""),
        machine=_machine(record),
    )


def _machine(record: RunRecord) -> str:
    names = ("device", "precision", "samdeploy", "torch", "python")
    return ", ".join(f"{name} {record.provenance[name]}" for name in names if name in record.provenance)
