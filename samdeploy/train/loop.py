"""Training, from a recipe to a run directory."""

from __future__ import annotations

import math
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

import samdeploy
from samdeploy.data.picture_hashes import write_hashes
from samdeploy.errors import TrainingError
from samdeploy.files import json_bytes, write_atomic
from samdeploy.models import SamResNet, build_model, load_imagenet, load_weights
from samdeploy.models.graph import Normalize
from samdeploy.run import HASHES_FILE, LEAKS_FILE, WEIGHTS_FILE, RunRecord
from samdeploy.train.device import Autocast, autocast_dtype, device_name, precision_name, training_device
from samdeploy.train.epoch import diverged, train_epoch
from samdeploy.train.history import EpochRow
from samdeploy.train.measure import Measured, measure
from samdeploy.train.pictures import Pictures
from samdeploy.train.prepare import PreparedData, prepare_data
from samdeploy.train.recipe import Recipe
from samdeploy.train.run_folder import RunFolder
from samdeploy.train.step import Stepper


def train(recipe: Recipe, *, runs_root: Path) -> Path:
    """Train as the recipe says.

    The validation split chooses the epoch; the test split is measured once, at the end, with the weights of
    the best epoch.  On the CPU the same recipe on the same machine gives the same bytes of weights.

    Args:
        recipe: from `load_recipe`.
        runs_root: gets a new directory `<recipe>-<YYYYmmdd-HHMMSS>`; nothing is written before all data are
            loaded and found sound, and the directory goes again where not one epoch was finished.

    Returns:
        The run directory; see `samdeploy.run` for its files.

    Raises:
        BackendUnavailable: the device is not here.
        DatasetError: the data are missing or damaged.
        WeightsError: the ImageNet weights cannot be had.
        TrainingError: the loss is not finite, or the GPU's memory is too small.
        KeyboardInterrupt: passed on, after run.json has been brought up to date.
    """
    device = training_device(recipe.training.device)
    autocast = autocast_dtype(recipe.training.precision, device)
    data = prepare_data(recipe)
    # Training draws from torch's global generators (fresh weights, dropout); the caller's are left as they were.
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=True),  # enabled is False where it is not given
    ):
        torch.manual_seed(recipe.training.seed)
        model = _model(recipe, len(data.classes))
        run = RunFolder(runs_root, recipe, _record(recipe, data, device, autocast))
        _announce(run, data)
        try:
            write_atomic(run.path / LEAKS_FILE, json_bytes(data.leaks.to_json()))
            write_hashes(run.path / HASHES_FILE, data.hashes)
            model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            _fit(recipe, data, model, run, device, autocast)
            test = _test(recipe, data, model, run, device)
            run.complete(test)
        except TrainingError as error:
            raise TrainingError(f"{error}. {run.stop('diverged')}") from None
        except torch.OutOfMemoryError as error:
            half = max(2, recipe.training.batch_size // 2)
            raise TrainingError(
                f"the GPU's memory is too small for batches of {recipe.training.batch_size} ({_first_line(error)}); "
                f"take smaller ones: --set training.batch_size={half}. {run.stop('interrupted')}"
            ) from None
        except BaseException:
            print(run.stop("interrupted"), file=sys.stderr)
            raise
    print(
        f"test top-1 {test.top1:.2f} % ({test.correct} of {test.images} images), weights of epoch "
        f"{run.record.best_epoch} (val top-1 {run.record.best_val_top1:.2f} %): {run.path}",
        file=sys.stderr,
    )
    return run.path


def _fit(
    recipe: Recipe, data: PreparedData, model: SamResNet, run: RunFolder, device: torch.device, autocast: Autocast
) -> None:
    """All epochs, or fewer where the validation stops getting better."""
    training = recipe.training
    normalize = Normalize(recipe.image.preprocessing()).to(device)
    stepper = Stepper(model, normalize, training, device, autocast)
    pictures, val_pictures = Pictures(*data.splits["train"], device), Pictures(*data.splits["val"], device)
    # A generator of its own: the order of the images depends on the seed alone, not on the architecture's draws.
    shuffle = torch.Generator().manual_seed(training.seed)
    start = time.perf_counter()
    for epoch in range(1, training.epochs + 1):
        epoch_start = time.perf_counter()
        model.train()
        figures = train_epoch(stepper, pictures, recipe, epoch, torch.randperm(len(pictures), generator=shuffle))
        val = measure(model, normalize, val_pictures, training.batch_size, "val")
        if not math.isfinite(val.loss):
            raise diverged(f"the validation loss is {val.loss} after epoch {epoch}", recipe)
        row = EpochRow(
            epoch=epoch,
            learning_rate=figures.rate,
            train_loss=figures.loss,
            train_top1=figures.top1,
            val_loss=val.loss,
            val_top1=val.top1,
            images_per_s=figures.images_per_s,
            seconds=time.perf_counter() - epoch_start,
        )
        best = run.epoch(row, model)
        left = (time.perf_counter() - start) / epoch * (training.epochs - epoch)
        print(_summary(row, training.epochs, best, left), file=sys.stderr)
        if training.patience and epoch - run.record.best_epoch >= training.patience:
            print(f"stopped: no better validation in {training.patience} epochs", file=sys.stderr)
            return


def _test(recipe: Recipe, data: PreparedData, model: SamResNet, run: RunFolder, device: torch.device) -> Measured:
    """The one look at the test pictures, with the best weights as they are on disk."""
    load_weights(model, run.path / WEIGHTS_FILE)
    normalize = Normalize(recipe.image.preprocessing()).to(device)
    return measure(model, normalize, Pictures(*data.splits["test"], device), recipe.training.batch_size, "test")


def _model(recipe: Recipe, num_classes: int) -> SamResNet:
    model = build_model(recipe.model.arch, num_classes, recipe.model.gate)
    pretrained = recipe.model.pretrained
    if pretrained:
        path = Path(pretrained).expanduser() if isinstance(pretrained, str) else None
        load_imagenet(model, recipe.model.arch, path)
    return model


def _record(recipe: Recipe, data: PreparedData, device: torch.device, autocast: Autocast) -> RunRecord:
    return RunRecord(
        arch=recipe.model.arch,
        gate=recipe.model.gate,
        classes=data.classes,
        preprocessing=recipe.image.preprocessing(),
        dataset=recipe.data.name,
        data_options=recipe.data.options,
        data_root=str(Path(recipe.data.root).expanduser().absolute()),
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
            "device": device_name(device),
            "precision": precision_name(autocast),
            "samdeploy": samdeploy.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    )


def _announce(run: RunFolder, data: PreparedData) -> None:
    counts = ", ".join(f"{count:,} {name}" for name, count in data.counts().items())
    provenance = run.record.provenance
    print(
        f"training {run.record.arch} (gate {run.record.gate}) on {run.record.dataset}: {len(data.classes)} classes, "
        f"{counts} images; {provenance['device']}, {provenance['precision']}; into {run.path}",
        file=sys.stderr,
    )


def _summary(row: EpochRow, epochs: int, best: bool, seconds_left: float) -> str:
    minutes, seconds = divmod(round(seconds_left), 60)
    left = f", at most {minutes}:{seconds:02d} left" if row.epoch < epochs else ""
    return (
        f"epoch {row.epoch:{len(str(epochs))}d}/{epochs}  loss {row.train_loss:.4f}  top-1 {row.train_top1:.2f} %  "
        f"val loss {row.val_loss:.4f}  val top-1 {row.val_top1:.2f} %  {row.images_per_s:,.0f} images/s  "
        f"{row.seconds:.1f} s{left}{'  best' if best else ''}"
    )


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
