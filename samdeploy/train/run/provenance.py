"""What is known about a run from its start on: its record, when it was gone on with, and its first line."""

from __future__ import annotations

import platform
import sys
from datetime import UTC, datetime

import torch

import samdeploy
from samdeploy.bundle.spec import named_model
from samdeploy.files import expanded
from samdeploy.runs.record import RunRecord
from samdeploy.train.checkpoints.forced import forced_changes
from samdeploy.train.checkpoints.resume import Resumed, changed_splits
from samdeploy.train.device import Compute, device_name, precision_name
from samdeploy.train.distributed import Ranks
from samdeploy.train.prepare import PreparedData
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.run.folder import RunFolder


def resumed_provenance(resumed: Resumed, record: RunRecord) -> dict[str, str]:
    """When the run began, and where it was gone on with."""
    facts = resumed.checkpoint.facts
    before = facts["provenance"]
    where = f"epoch {facts['epoch']} step {facts['step']} on {datetime.now(UTC).isoformat(timespec='seconds')}"
    times = "; ".join(filter(None, (before.get("resumed"), where)))
    kept = {"started": before.get("started", ""), "resumed": times}
    changes = forced_changes(resumed, record)
    if changes:
        changes = f"at epoch {facts['epoch']} step {facts['step']}: {changes}"
    forced = " | ".join(filter(None, (before.get("changed_by_force"), changes)))
    if forced:
        kept["changed_by_force"] = forced
    processes = before.get("processes", record.provenance["processes"])
    if processes.rpartition(", then ")[2] != record.provenance["processes"]:
        kept["processes"] = f"{processes}, then {record.provenance['processes']}"
    else:
        kept["processes"] = processes
    if "test_measures" in before and not changed_splits(resumed, record):  # it knows what was trained on long ago
        kept["test_measures"] = before["test_measures"]
    if before.get("precision") == record.provenance["precision"] and "precision_choice" in before:
        kept["precision_choice"] = before["precision_choice"]
    return {**record.provenance, **kept}


def new_record(recipe: Recipe, data: PreparedData, compute: Compute, why: str) -> RunRecord:
    """What run.json will say, before anything is trained.

    Args:
        why: this precision, as `samdeploy.train.choices.precision_probe` gave it.
    """
    sets = data.set_hashes()
    return RunRecord(
        arch=recipe.model.arch,
        options=recipe.model.options,
        classes=data.classes,
        preprocessing=recipe.image.preprocessing(),
        dataset=recipe.data.name,
        data_options=recipe.data.options,
        data_root=str(expanded(recipe.data.root).absolute()),
        val_fraction=recipe.data.val_fraction,
        split_seed=recipe.data.split_seed,
        counts=data.counts(),
        fingerprints=data.fingerprints,
        status="training",
        best_epoch=0,
        best_val_top1=0.0,
        best_val_loss=0.0,
        test_top1=None,
        test_correct=None,
        test_images=None,
        provenance={
            "recipe": recipe.name,
            "seed": str(recipe.training.seed),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": device_name(compute.device),
            "processes": str(compute.ranks.world),
            "precision": precision_name(compute.autocast),
            "precision_choice": why,
            "test_measures": data.test_measures,
            "samdeploy": samdeploy.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        images_sha256={name: images for name, (images, _) in sets.items()},
        labelled_sha256={name: labelled for name, (_, labelled) in sets.items()},
    )


def announce(run: RunFolder, data: PreparedData, ranks: Ranks) -> None:
    """The first line of a training, on standard error."""
    counts = ", ".join(f"{count:,} {name}" for name, count in data.counts().items())
    provenance = run.record.provenance
    before = provenance["processes"].rpartition(", then ")[0]
    several = f" in {ranks.world} process{'es' if ranks.world > 1 else ''}" if ranks.world > 1 or before else ""
    if before:
        several += f" (before: {before}; the weights are not those of an undisturbed training)"
    resumed = provenance.get("resumed", "").rpartition("; ")[2].partition(" on ")[0]
    print(
        f"training {named_model(run.record.arch, run.record.options)} on {run.record.dataset}: "
        f"{len(data.classes)} classes, "
        f"{counts} images; {provenance['device']}{several}, {provenance['precision']}; into {run.path}"
        f"{f', going on at {resumed}' if resumed else ''}",
        file=sys.stderr,
    )
