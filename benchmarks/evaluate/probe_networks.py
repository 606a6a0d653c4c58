"""Small fresh networks for probe_limits.py: trained a little or random, some with logits that explode."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from samdeploy.bundle.names import WEIGHTS_FILE
from samdeploy.bundle.spec import model_spec
from samdeploy.data import load_images, open_dataset
from samdeploy.data.dataset import Dataset, Samples
from samdeploy.models import Exported, build_model, load_weights
from samdeploy.models.weights import save_weights
from samdeploy.runs.record import open_run, write_run
from samdeploy.train.loop.train import train
from samdeploy.train.recipe.load import load_recipe

TRAIN_IMAGES, TEST_IMAGES = 240, 100
# About 12 steps of 16 images each.
EPOCHS = 3
# Standard deviation of random gate weights, times the square root of their inputs.  The gate "original" makes the
# logits of many probes explode at 0.5 with 18 layers, at 0.3 with 34, and not those of the median training image.
USUAL_GATE = 0.1


@dataclass(frozen=True, slots=True)
class Network:
    """What is made.

    Attributes:
        data: "digits", "fashion-mnist" or "cifar".
        size: height and width in pixels.
        classes: 3: the first three; 100: each of the ten classes in ten parts at random.
        gate_scale: of random weights, see `USUAL_GATE`; 0: the weights are trained.
    """

    data: str
    arch: str
    gate: str
    size: tuple[int, int]
    classes: int
    seed: int
    gate_scale: float = 0.0

    @property
    def name(self) -> str:
        kind = f"random, gates {self.gate_scale:g}" if self.gate_scale else "trained"
        height, width = self.size
        return f"{self.data} {self.arch} {self.gate} {height}x{width} {self.classes} classes, {kind}, seed {self.seed}"


NETWORKS = (
    Network("digits", "sam-resnet18", "original", (32, 32), 10, 101),
    Network("digits", "sam-resnet18", "none", (64, 32), 10, 102),
    Network("digits", "sam-resnet18", "identity", (48, 48), 3, 103),
    Network("digits", "sam-resnet34", "original", (32, 32), 10, 104, gate_scale=0.3),
    Network("fashion-mnist", "sam-resnet18", "identity", (32, 32), 10, 105),
    Network("fashion-mnist", "sam-resnet34", "original", (48, 48), 10, 106),
    Network("fashion-mnist", "sam-resnet18", "original", (48, 48), 3, 107, gate_scale=0.5),
    Network("fashion-mnist", "sam-resnet50", "none", (32, 32), 100, 108, gate_scale=USUAL_GATE),
    Network("cifar", "sam-resnet18", "original", (32, 32), 10, 109),
    Network("cifar", "sam-resnet34", "identity", (48, 48), 10, 110),
    Network("cifar", "sam-resnet50", "identity", (32, 32), 10, 111),
    Network("cifar", "sam-resnet18", "none", (96, 96), 100, 112, gate_scale=USUAL_GATE),
    Network("cifar", "sam-resnet34", "original", (64, 64), 10, 113, gate_scale=USUAL_GATE),
)


def make_run(network: Network, folder: Path, cifar: Path | None) -> Path:
    """A run as training leaves it, below `folder`; `cifar`: folder of CIFAR-10 images."""
    images = folder / "images"
    dataset = _source(network.data, cifar)
    random = np.random.default_rng(network.seed)
    _write(dataset.train, images / "train", network.classes, TRAIN_IMAGES, random)
    _write(dataset.test, images / "test", network.classes, TEST_IMAGES, random)
    height, width = network.size
    settings = [
        *(f"model.arch={network.arch}", f"model.gate={network.gate}", "model.pretrained=false"),
        *(f"image.height={height}", f"image.width={width}", f"training.seed={network.seed}"),
        *("data.val_fraction=0.25", "data.leaks=report", "data.cache=false"),
        *("training.device=cpu", "training.precision=fp32", "training.compile=off", "training.batch_size=16"),
    ]
    # Random weights need a run all the same: one epoch that hardly moves them.
    settings += (
        ["training.epochs=1", "training.learning_rate=1e-9"]
        if network.gate_scale
        else [f"training.epochs={EPOCHS}", "training.learning_rate=5e-4"]
    )
    run = train(load_recipe(images, settings), runs_root=folder)
    if network.gate_scale:
        _randomise(run, network)
    return run


@cache
def _source(name: str, cifar: Path | None) -> Dataset:
    if name == "cifar":
        assert cifar is not None
        return open_dataset("folder", cifar, val_fraction=0.1, seed=0)
    return open_dataset(name, val_fraction=0.1, seed=0)


def _write(samples: Samples, folder: Path, classes: int, count: int, random: np.random.Generator) -> None:
    """As PNG, a folder for each class; at least four images each for training and one for the test."""
    labels = samples.labels.copy()
    if classes > labels.max() + 1:
        parts = classes // int(labels.max() + 1)
        labels = labels * parts + random.integers(parts, size=len(labels))
    each = max(count // classes, 4 if count == TRAIN_IMAGES else 1)
    for label in range(classes):
        into = folder / f"class{label:02}"
        into.mkdir(parents=True)
        for index in random.choice(np.flatnonzero(labels == label), each, replace=False):
            Image.fromarray(samples.load(int(index))).save(into / f"{index}.png")


@torch.no_grad()
def _randomise(run: Path, network: Network) -> None:
    """Random gates and head, batch-norm statistics of the training images, in the run's weights."""
    record = open_run(run)
    spec = model_spec(record.arch, record.options, record.classes, record.preprocessing)
    dataset = open_dataset("folder", Path(record.data_root), val_fraction=record.val_fraction, seed=record.split_seed)
    images, _ = load_images(dataset.train, spec.preprocessing, description="training images")
    model = build_model(spec.arch, len(spec.classes), spec.options)
    load_weights(model, run / WEIGHTS_FILE)
    generator = torch.Generator().manual_seed(network.seed)
    for name, parameter in model.named_parameters():
        if ".sl." in name:
            parameter.normal_(std=network.gate_scale / parameter.shape[1] ** 0.5, generator=generator)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
    exported = Exported(model.train(), spec)
    for start in range(0, len(images) - 15, 16):
        exported(torch.from_numpy(images[start : start + 16]))
    save_weights(model.eval(), run / WEIGHTS_FILE)
    digest = hashlib.sha256((run / WEIGHTS_FILE).read_bytes()).hexdigest()
    write_run(run, dataclasses.replace(record, weights_sha256=digest))
