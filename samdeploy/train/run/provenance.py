"""What is known about a run from its start on: its record, when it was gone on with, and its first line."""

from __future__ import annotations

import platform
import sys
from dataclasses import replace
from datetime import UTC, datetime

import torch

import samdeploy
from samdeploy.bundle.spec import named_model
from samdeploy.files import expanded
from samdeploy.runs.record import Leg, RunRecord, processes_in_turn
from samdeploy.train.checkpoints.forced import forced_changes
from samdeploy.train.checkpoints.resume import Resumed, changed_splits
from samdeploy.train.device import Compute, device_name, precision_name
from samdeploy.train.distributed import Ranks
from samdeploy.train.prepare import PreparedData
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.run.folder import RunFolder


def resumed_record(resumed: Resumed, record: RunRecord) -> RunRecord:
    """The record of a run that goes on: with the parts of its training so far, and what is not found out anew."""
    facts = resumed.checkpoint.facts
    before = facts["provenance"]
    legs = [Leg(**{**leg, "changed": tuple(leg["changed"])}) for leg in facts.get("legs", ())]
    leg = replace(record.legs[0], epoch=facts["epoch"], step=facts["step"], changed=forced_changes(resumed, record))
    kept = {}
    if "test_measures" in before and not changed_splits(resumed, record):  # it knows what was trained on long ago
        kept["test_measures"] = before["test_measures"]
    if before.get("precision") == record.provenance["precision"] and "precision_choice" in before:
        kept["precision_choice"] = before["precision_choice"]
    return replace(record, legs=(*legs, leg), provenance={**record.provenance, **kept})


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
            "device": device_name(compute.device),
            "precision": precision_name(compute.autocast),
            "precision_choice": why,
            "test_measures": data.test_measures,
            "samdeploy": samdeploy.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        images_sha256={name: images for name, (images, _) in sets.items()},
        labelled_sha256={name: labelled for name, (_, labelled) in sets.items()},
        legs=(Leg(1, 0, datetime.now(UTC).isoformat(timespec="seconds"), compute.ranks.world),),
    )


def announce(run: RunFolder, data: PreparedData, ranks: Ranks) -> None:
    """The first line of a training, on standard error."""
    counts = ", ".join(f"{count:,} {name}" for name, count in data.counts().items())
    provenance, legs = run.record.provenance, run.record.legs
    *before, _ = processes_in_turn(legs)
    several = f" in {ranks.world} process{'es' if ranks.world > 1 else ''}" if ranks.world > 1 or before else ""
    if before:
        several += (
            f" (before: {', then '.join(map(str, before))}; the weights are not those of an undisturbed training)"
        )
    going_on = f", going on at epoch {legs[-1].epoch} step {legs[-1].step}" if len(legs) > 1 else ""
    print(
        f"training {named_model(run.record.arch, run.record.options)} on {run.record.dataset}: "
        f"{len(data.classes)} classes, "
        f"{counts} images; {provenance['device']}{several}, {provenance['precision']}; into {run.path}"
        f"{going_on}",
        file=sys.stderr,
    )
