"""Recipes: one TOML file is one experiment.

A key's default is its value in `recipes/folder.toml`.  This file imports no torch, so that listing recipes is quick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar, Unpack

from samdeploy.bundle.annotations import Rules
from samdeploy.bundle.spec import IMAGENET_MEAN, IMAGENET_STD, RESIZES, Crop, Filter, Fit, OptionValue, Preprocessing

Precision = Literal["auto", "fp32", "bf16", "fp16"]

# Keys that change neither the network nor what it learns: where the data lie, and what is written when.
NOT_THE_EXPERIMENT = frozenset(
    {
        "data.root",
        "data.download",
        "data.cache",
        "training.checkpoint_minutes",
        "training.tensorboard",
        "training.mlflow",
    }
)

_NUMBER = "a finite number such as 0.001"
_NAME = Rules(
    pattern=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    expected="a name of letters, digits, '.', '_' and '-' (the run's folder is called so)",
)

T = TypeVar("T")


def _ruled(default: T, **rules: Unpack[Rules]) -> T:
    """A field with rules for its value."""
    return field(default=default, metadata=rules)


@dataclass(frozen=True, slots=True)
class DataSection:
    """Which images, and how they are split.

    Attributes:
        name: one of `samdeploy.data.DATASETS`.
        root: folder that holds the data, relative to where the command runs.
        val_fraction: part of the training images that is kept aside to choose weights on.
        split_seed: seed of that split; stays the same while `training.seed` varies over repeated runs.
        download: fetch the data set into `root` where it is not there yet.
        leaks: what to do about images that stand in two splits: "refuse" does not train where they are more than
            `samdeploy.data.duplicates.leaks.MAX_EXACT_PERCENT` of a split; "report" says so and trains.
        class_weights: of the training loss: "balanced", one over the images of the class, or "effective", one over
            their effective number (Cui et al. 2019, arXiv:1901.05555, equation 2 with a beta of 0.999); their mean over
            the training images is 1.
        sampling: images of an epoch, as many as there are: each once ("natural"), as many of each class ("balanced"),
            or as the square root of the class's images ("square_root").
        cache: keep the prepared images on disk for the next run (see `samdeploy.data.cache`).
        options: what this data set offers beyond that, for example `level` of aircraft; and `protocol` of every set.
    """

    name: str = "folder"
    root: str = _ruled("data", pattern=r"[^\0]+", expected="a folder")
    val_fraction: float = _ruled(0.1, above=0, below=1)
    split_seed: int = _ruled(0, at_least=0, at_most=2**32 - 1)
    download: bool = False
    leaks: Literal["refuse", "report"] = "refuse"
    class_weights: Literal["none", "balanced", "effective"] = "none"
    sampling: Literal["natural", "balanced", "square_root"] = "natural"
    cache: bool = True
    options: Mapping[str, OptionValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelSection:
    """The network and its start.

    Attributes:
        arch: an architecture of one of `samdeploy.models.registry.FAMILIES`.
        pretrained: true fetches published weights; a string is the path of what to start from: a state dict, a run or
            a bundle.
        options: all options of the architecture's family; in a recipe, keys beside the two above.
    """

    arch: str = "sam-resnet50"
    pretrained: bool | str = _ruled(True, pattern=r"[^\0]+", expected="true, false or a path as a string")
    options: Mapping[str, OptionValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageSection:
    """From a decoded image to the network's input; see `samdeploy.bundle.spec.Preprocessing`.

    Attributes:
        resize_short: length of the shorter side before the crop in pixels; 0 with fit "squeeze".
        crop: rounding of half of the crop's margin; without effect with fit "squeeze".
        filter: of the resize.
    """

    height: int = _ruled(192, at_least=1, at_most=4096)
    width: int = _ruled(192, at_least=1, at_most=4096)
    fit: Fit = "squeeze"
    resize_short: int = _ruled(0, at_least=0, at_most=8192)
    crop: Crop = "floor"
    filter: Filter = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @classmethod
    def of(cls, record: Preprocessing) -> ImageSection:
        """The section for a contract that travels with weights."""
        filters = {name: filter_ for filter_, name in RESIZES.items()}
        return cls(
            record.height, record.width, record.fit, record.resize_short or 0, record.crop, filters[record.resize],
            record.mean, record.std,
        )  # fmt: skip

    def preprocessing(self) -> Preprocessing:
        """The same as the contract that travels with the weights.

        Raises:
            BundleError: the values contradict one another.
        """
        return Preprocessing(
            self.height, self.width, self.fit, self.resize_short or None, self.mean, self.std, RESIZES[self.filter],
            self.crop,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AugmentSection:
    """What is done to the training images, each time they come by.

    Attributes:
        flip: mirror every other image, left to right.
        crop_padding: pixels of black around the image, of which the old size (or train_size) is cut at random; 0 does
            not.
        crop_scale: smallest share of the area that a random crop keeps (its sides 3:4 to 4:3, resized to the full
            size); 1 does not crop.
        policy: "trivial" is TrivialAugment, one random operation per image (Müller and Hutter 2021, arXiv:2103.10158);
            "rand" is RandAugment, two of medium size (Cubuk et al. 2020, arXiv:1909.13719).
        mixup, cutmix: alpha of the Beta distribution by which images (Zhang et al. 2018, arXiv:1710.09412) or parts of
            them (Yun et al. 2019, arXiv:1905.04899) are mixed within a batch; 0 does not.  With both, each batch takes
            one of the two.
        train_size: side of the training images in pixels; 0 is that of the image section.  A network is often best
            at images somewhat larger than those it was trained on (H. Touvron et al., 2019, arXiv:1906.06423).
        whole_epochs: so many epochs at the end see images of the image section's size instead, as the same paper
            tunes at the size of test.
        oversize: keep the training images this many times as large in each direction, so that crops need not be
            enlarged; only with crop_scale below 1.
        group: images that share one draw of crop and policy; 0 is 1 on the CPU and 8 on a GPU.
    """

    flip: bool = True
    crop_padding: int = _ruled(0, at_least=0, at_most=1024)
    crop_scale: float = _ruled(0.5, above=0, at_most=1)
    policy: Literal["none", "trivial", "rand"] = "trivial"
    mixup: float = _ruled(0.0, at_least=0)
    cutmix: float = _ruled(0.0, at_least=0)
    train_size: int = _ruled(0, at_least=0, at_most=4096)
    whole_epochs: int = _ruled(0, at_least=0)
    oversize: float = _ruled(1.0, at_least=1, at_most=4)
    group: int = _ruled(0, at_least=0)


@dataclass(frozen=True, slots=True)
class TrainingSection:
    """Optimiser, schedule and machine.

    Attributes:
        epochs: at most this many.
        batch_size: images per step; a last batch of one image joins the batch before it.
        optimizer: "adamw", "adam", or "sgd" with Nesterov's momentum of 0.9.
        learning_rate: at its peak, of the head.
        layer_decay: each part of the network learns this many times as fast as the one behind it (Clark et al. 2020,
            arXiv:2003.10555, section 3); 1 is as fast.
        schedule: "constant", or "cosine" down to zero over all steps after the warm-up.
        warmup_epochs: epochs of a linear rise from zero (Goyal et al. 2017, arXiv:1706.02677, section 2.2).
        weight_decay: on weights with two or more axes; decoupled in AdamW.
        label_smoothing: of the training loss (Szegedy et al. 2016, arXiv:1512.00567, section 7); 0 is plain cross
            entropy.
        patience: stop after this many epochs without better validation; 0 never stops early.
        precision: "auto" is bf16 (else fp16) on a GPU; on a CPU that multiplies bf16 it is tried which of fp32 and bf16
            is faster, so name one where every run must give the same bytes. Evaluation is always fp32.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
        seed: of the fresh weights, dropout and the order of the images.
        monitor: what chooses the epoch, measured on validation; where it is equal, the loss.
        freeze: what stays as it was loaded: "trunk", all but the head; or a part, such as "layer2", and all before it.
        freeze_epochs: of how many epochs, the first; 0: all.
        clip_norm: largest norm of the gradient over all weights (Pascanu et al. 2013, arXiv:1211.5063); 0 does not.
        ema_decay: validate and keep an exponential mean of the weights that forgets this slowly (0.9999 for long
            trainings); 0 keeps the weights themselves.
        accumulate: pieces that each batch is cut into, one after the other on the device; the step is the same but
            for batch norm, which sees the pieces, and needs as much less memory.
        compile: torch.compile; "auto" tries it on a GPU where the training is long enough, and keeps what is faster.
        sync_batch_norm: on several GPUs, batch norm over the whole batch instead of each GPU's share.
        checkpoint_minutes: write a checkpoint at least this often, besides those at the ends of epochs.
        tensorboard: also write TensorBoard's event file into the run (the extra `tensorboard`).
        mlflow: also log to MLflow (the extra `mlflow`), where MLFLOW_TRACKING_URI says.
    """

    epochs: int = _ruled(45, at_least=1)
    batch_size: int = _ruled(32, at_least=2)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = _ruled(1e-4, above=0, expected=_NUMBER)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_epochs: int = _ruled(1, at_least=0)
    weight_decay: float = _ruled(0.02, at_least=0, expected=_NUMBER)
    layer_decay: float = _ruled(1.0, above=0, at_most=1)
    label_smoothing: float = _ruled(0.1, at_least=0, below=1)
    patience: int = _ruled(0, at_least=0)
    precision: Precision = "auto"
    device: str = _ruled("auto", pattern=r"auto|cpu|cuda(:\d+)?", expected="'auto', 'cpu', 'cuda' or 'cuda:N'")
    seed: int = _ruled(0, at_least=0, at_most=2**32 - 1)
    monitor: Literal["top1", "loss", "balanced_accuracy", "macro_f1"] = "top1"
    freeze: str = _ruled("none", pattern=r"[\w.]+", expected="'none', 'trunk' or a part of the network")
    freeze_epochs: int = _ruled(0, at_least=0)
    clip_norm: float = _ruled(1.0, at_least=0)
    ema_decay: float = _ruled(0.998, at_least=0, below=1)
    accumulate: int = _ruled(1, at_least=1)
    compile: Literal["auto", "on", "off"] = "auto"
    sync_batch_norm: bool = False
    checkpoint_minutes: float = _ruled(10.0, above=0)
    tensorboard: bool = False
    mlflow: bool = False


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole experiment.  Made by `load_recipe`, which checks it.

    Attributes:
        changed: keys that are no longer as the description says.
        texts: the file that it was read from, and those that this one extends; `dump_recipe` keeps their comments.
    """

    name: str = field(metadata=_NAME)
    description: str = ""
    changed: tuple[str, ...] = ()
    data: DataSection = field(default_factory=DataSection)
    model: ModelSection = field(default_factory=ModelSection)
    image: ImageSection = field(default_factory=ImageSection)
    augment: AugmentSection = field(default_factory=AugmentSection)
    training: TrainingSection = field(default_factory=TrainingSection)
    texts: tuple[str, ...] = field(default=(), compare=False, repr=False, metadata=Rules(in_memory=True))
