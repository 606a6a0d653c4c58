"""Training, from a recipe to a run directory."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from samdeploy.bundle.names import BUNDLE_FOLDER, HASHES_FILE, LEAKS_FILE
from samdeploy.data.duplicates.image_hashes import write_hashes
from samdeploy.data.protocol import HONEST, PROTOCOLS
from samdeploy.errors import RecipeError, WeightsError, first_line
from samdeploy.files import expanded
from samdeploy.models import Pretrained, build_model, load_pretrained, read_pretrained
from samdeploy.models.graph import Normalize
from samdeploy.models.layout import channels_last
from samdeploy.models.memory import is_out_of_memory
from samdeploy.models.pretrained import sketched
from samdeploy.runs.new_folder import check_runs_root
from samdeploy.runs.record import RunRecord
from samdeploy.train.augment import augmentations
from samdeploy.train.checkpoints.forced import check_images, is_best_of_other_images
from samdeploy.train.checkpoints.resume import Resumed, changed_splits, check_classes, open_resumed
from samdeploy.train.checkpoints.saver import check_room
from samdeploy.train.checkpoints.state import TrainState
from samdeploy.train.choices.precision_probe import settle_precision
from samdeploy.train.device import Compute, autocast_dtype, training_device
from samdeploy.train.distributed import Ranks, check_shares, check_sync_batch_norm, joined
from samdeploy.train.loop.balance import class_shares, class_weights
from samdeploy.train.loop.batches import StoredImages
from samdeploy.train.loop.epoch import Stopped
from samdeploy.train.loop.fit import Splits, fit, measure_test, remeasure_best
from samdeploy.train.loop.frozen import freeze, frozen_weights, training_mode
from samdeploy.train.loop.host_memory import freed_memory_kept
from samdeploy.train.loop.measure import Measured, Split
from samdeploy.train.loop.step import Stepper
from samdeploy.train.prepare import PreparedData, check_counts, open_recipe_data, prepare_data
from samdeploy.train.recipe.recipe import Recipe
from samdeploy.train.run.folder import RunFolder
from samdeploy.train.run.provenance import announce, new_record, resumed_record
from samdeploy.train.surroundings import Surroundings, surroundings
from samdeploy.train.watch.cautions import data_cautions, training_cautions
from samdeploy.train.watch.loggers import loggers_of


def train(recipe: Recipe, *, runs_root: Path, resumable: bool = True) -> Path:
    """Train as the recipe says.

    The validation split chooses the epoch; the test split is measured once, at the end, with the weights of
    the best epoch.  On the CPU the same recipe in the same precision (which "auto" chooses by measuring) gives the
    same bytes of weights on the same machine, also where the training was stopped and resumed in between.

    Args:
        recipe: from `load_recipe`.
        runs_root: gets a new directory `<recipe>-<YYYYmmdd-HHMMSS>`; nothing is written before all data are
            loaded and found sound, and the directory goes again where there is nothing to go on from.
        resumable: save and say how to go on when it is stopped; else the caller removes what was written.

    Returns:
        The run directory; see `samdeploy.runs.record` for its files.

    Raises:
        BackendUnavailable: the device is not here.
        DatasetError: the data are missing or damaged.
        RecipeError: the recipe does not suit device, data or number of processes.
        WeightsError: the ImageNet weights cannot be had.
        TrainingError: the loss is not finite, the memory is too small, or the disk is full.
        KeyboardInterrupt: Ctrl-C; the training was saved.
        SystemExit: SIGTERM, code 143, or SIGHUP, code 129; the training was saved.
    """
    with joined() as ranks:
        ranks.first(check_runs_root, runs_root)  # before minutes of decoding and measuring
        return _train(recipe, runs_root, None, ranks, resumable)


def resume(run: Path, *, overrides: Sequence[str] = (), force: bool = False) -> Path:
    """Go on with an unfinished run, at the very step where its newest checkpoint was written.

    Args:
        run: its folder.
        overrides: as for `load_recipe`.
        force: allow a changed recipe, or changed images.

    Returns:
        `run`.

    Raises:
        InputError: another process is training it.
        SamdeployError: as `open_resumed`, `check_classes`, `check_images` and `train`.
    """
    with joined() as ranks:
        resumed = ranks.first(open_resumed, run, overrides, force=force)
        return _train(resumed.recipe, run.parent, resumed, ranks)


def _train(recipe: Recipe, runs_root: Path, resumed: Resumed | None, ranks: Ranks, resumable: bool = True) -> Path:
    # Ranks other than 0, and trainings that are resumed, get their weights elsewhere.
    device, data, start = ranks.all(_prepare, recipe, ranks, starts=ranks.main and resumed is None)
    # Training draws from torch's global generators (fresh weights, dropout); the caller's are left as they were.
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=True),  # enabled is False where it is not given
        freed_memory_kept() if device.type == "cpu" else contextlib.nullcontext(),
    ):
        torch.manual_seed(recipe.training.seed)
        model = ranks.all(_network, recipe, data.classes, start)
        start = None  # a copy of all weights
        kept = None if resumed is None else resumed.checkpoint.facts["provenance"]["precision"]
        shape = data.training[0].shape[:3]
        autocast, why = ranks.first(settle_precision, recipe, model, device, shape, kept)
        compute = Compute(device, autocast, ranks)
        record = new_record(recipe, data, compute, why)
        if resumed is not None:
            data = ranks.alone(_with_history, data, resumed, record) or data  # rank 0 writes hashes and leaks
            facts = {**record.provenance, "test_measures": data.test_measures}
            record = dataclasses.replace(record, provenance=facts)
        run = _open_run(recipe, runs_root, resumed, record, ranks)
        around = surroundings(recipe, compute, run, len(data.training[0]), resumed, resumable)
        test = around.ending.guard(_learn, around, data, model, resumed)
    _say_result(run, data, test)
    if ranks.main and (run.path / BUNDLE_FOLDER).is_dir():
        print(
            f"{run.path / BUNDLE_FOLDER} is of earlier weights; make it again: samdeploy export {run.path}",
            file=sys.stderr,
        )
    return run.path


def _learn(around: Surroundings, data: PreparedData, model: nn.Module, resumed: Resumed | None) -> Measured:
    """All epochs and the test; `around.ending` looks after what stops them."""
    run, ranks, ending = around.run, around.ranks, around.ending
    announce(run, data, ranks)
    counts = {name: np.bincount(labels, minlength=len(data.classes)) for name, (_, labels) in data.splits.items()}
    run.warn(data_cautions(counts, data.classes))
    if resumed is None or changed_splits(resumed, run.record):
        run.write(LEAKS_FILE, {**data.leaks.to_json(), "two_labels": data.two_labels.to_json()})
        if ranks.main:
            write_hashes(run.path / HASHES_FILE, data.hashes)
    channels_last(model.to(around.compute.device))
    state, splits = _state(around.recipe, around.compute, data, model)
    ending.state = state
    if resumed is not None:
        state.restore(resumed.checkpoint, f"checkpoint of {run.path}")
        run.restore(resumed.checkpoint.facts, state.rows, state.gate_rows)
    if ranks.main:
        check_room(run.path, state)
    with around.stop:
        try:
            around.choice.begin(state)
            if resumed is not None and is_best_of_other_images(resumed, run.record):
                remeasure_best(model, splits, around)
            fit(state, splits, around)
            test = measure_test(model, splits, around)
        except Stopped as stopped:
            raise ending.stopped(stopped.number) from None
    if data.protocol != HONEST:
        figures = {**run.record.provenance, "last_batch_top1": _last_batch(test)}
        run.record = dataclasses.replace(run.record, provenance=figures)
    best = next((row for row in state.rows if row.epoch == run.record.best_epoch), None)
    if best is not None:
        run.warn(training_cautions(best, test, counts["test"], data.classes, len(state.rows)))
    run.complete(test)
    if ranks.main:
        final = {"test_top1": test.top1, "test_balanced_accuracy": test.score("balanced_accuracy")}
        around.curves.after_test(state.rows, state.gate_rows, {**final, "test_macro_f1": test.score("macro_f1")})
    return test


def _say_result(run: RunFolder, data: PreparedData, test: Measured) -> None:
    measures = run.record.provenance["test_measures"]
    note = "" if measures == PROTOCOLS[HONEST] else f"; this is {measures}"
    if data.protocol != HONEST:
        note += f"; {_last_batch(test)}"
    print(
        f"test top-1 {test.top1:.2f} % ({test.correct} of {test.images} images), weights of epoch "
        f"{run.record.best_epoch} (val top-1 {run.record.best_val_top1:.2f} %): {run.path}{note}",
        file=sys.stderr,
    )


def _pretrained(recipe: Recipe) -> Pretrained | None:
    """The weights to start from; None where they are fresh."""
    pretrained = recipe.model.pretrained
    if pretrained is True:
        return read_pretrained(recipe.model.arch)
    if not pretrained:
        if recipe.training.freeze != "none":
            raise RecipeError(
                f"training.freeze: {recipe.training.freeze!r} found, but the network starts from random weights, which "
                "would stay so; give it trained ones: --set model.pretrained=FILE"
            )
        return None
    path = expanded(pretrained)
    if not path.exists():
        raise WeightsError(
            f"model.pretrained: {pretrained!r} found, no such file; true, false, or a file of weights expected"
        )
    return read_pretrained(recipe.model.arch, path)


def _last_batch(test: Measured) -> str:
    """What the original work's script would have reported."""
    share = 100 * test.last_correct / test.last_images
    return (
        f"of the last batch alone, as the published script reported it: {share:.2f} % "
        f"({test.last_correct} of {test.last_images} images)"
    )


def _prepare(recipe: Recipe, ranks: Ranks, *, starts: bool) -> tuple[torch.device, PreparedData, Pretrained | None]:
    """Everything that may be refused before anything is written.

    Args:
        starts: read the weights to start from, too; None where they are fresh.
    """
    training = recipe.training
    device = training_device(training.device, ranks)
    autocast_dtype(training.precision, device)  # refuses what the device does not have
    check_sync_batch_norm(training.sync_batch_norm, device)
    for logger in loggers_of(training):
        logger.require()
    dataset = open_recipe_data(recipe)
    check_counts(dataset)
    if training.freeze != "none":
        arch = recipe.model.arch
        frozen_weights(sketched(arch, 2, recipe.model.options), arch, training, epoch=1)
    start = _pretrained(recipe) if starts else None  # before all images are decoded, which takes long
    data = prepare_data(recipe, dataset)
    check_shares(training.batch_size, len(data.training[1]), ranks.world, training.accumulate)
    return device, data, start


def _network(recipe: Recipe, classes: Sequence[str], start: Pretrained | None) -> nn.Module:
    """The network with the weights that it starts from.

    Raises:
        RecipeError: it does not take images of the recipe's size.
    """
    wanted = recipe.model
    model = build_model(wanted.arch, len(classes), wanted.options)
    if start is not None:
        print(load_pretrained(model, start, classes, wanted.options), file=sys.stderr)
    side = recipe.augment.train_size
    for height, width in {(recipe.image.height, recipe.image.width), (side, side)} - {(0, 0)}:
        try:
            with torch.no_grad():
                model.eval()(torch.zeros(1, 3, height, width))
        except (RuntimeError, ValueError, AssertionError) as error:
            if is_out_of_memory(error):
                raise
            raise RecipeError(
                f"image: {height}x{width} pixels found, which {wanted.arch} does not take ({first_line(error)}); "
                "another size expected: --size PIXELS"
            ) from None
    freeze(model, frozen_weights(model, wanted.arch, recipe.training, epoch=1))
    return training_mode(model)


def _state(recipe: Recipe, compute: Compute, data: PreparedData, model: nn.Module) -> tuple[TrainState, Splits]:
    classes = len(data.classes)
    normalize = Normalize(recipe.image.preprocessing()).to(compute.device)
    train, val, test = (
        StoredImages(*split, compute.device) for split in (data.training, data.splits["val"], data.splits["test"])
    )
    batch_size = recipe.training.batch_size
    splits = Splits(
        train,
        Split("val", val, normalize, classes, batch_size),
        Split("test", test, normalize, classes, batch_size),
    )
    augment_in = augmentations(recipe, classes, compute.device)
    counts = np.bincount(data.training[1], minlength=classes)
    weights, shares = class_weights(recipe.data, counts), class_shares(recipe.data, counts)
    stepper = Stepper(model, train, augment_in, recipe.training, compute, arch=recipe.model.arch, class_weights=weights)
    return TrainState(model, stepper, train, recipe.training, shares), splits


def _with_history(data: PreparedData, resumed: Resumed, record: RunRecord) -> PreparedData:
    """The data with hashes and leaks of all images that the weights have learnt from."""
    check_classes(resumed, record)
    if not changed_splits(resumed, record):
        return data
    hashes, leaks, changed = check_images(resumed, record, data.hashes)
    for line in (changed, *(line for line in leaks.lines() if line not in data.leaks.lines())):
        print(line, file=sys.stderr)
    return dataclasses.replace(data, hashes=hashes, leaks=leaks)


def _open_run(recipe: Recipe, runs_root: Path, resumed: Resumed | None, record: RunRecord, ranks: Ranks) -> RunFolder:
    """The run's folder, new or known; rank 0 alone makes or locks it."""
    if resumed is None:
        run = ranks.alone(RunFolder.create, runs_root, recipe, record)
    else:
        record = resumed_record(resumed, record)
        run = ranks.alone(RunFolder.known, resumed.path, recipe, record)
    path = ranks.tell(Path() if run is None else run.path)
    return run or RunFolder(path, recipe, record, writes=False)
