"""What a model takes and gives, as plain data: the contract between training, export and runtimes."""

# Annotations are types and not texts here: the reader looks at them, and that is quicker.

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

from samdeploy.errors import BundleError

Fit = Literal["squeeze", "center_crop"]
Crop = Literal["floor", "half-even"]
Filter = Literal["bilinear", "bicubic"]
# The whole of the algorithm in samdeploy.images.resize; another one will get another name.
Resize = Literal["bilinear-antialias-vertical-first-q22", "bicubic-antialias-vertical-first-q22"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
# Of a data set or a family of networks.
OptionValue = str | int | float | bool

FITS: tuple[str, ...] = get_args(Fit)
CROPS: tuple[str, ...] = get_args(Crop)
RESIZES: Mapping[Filter, Resize] = MappingProxyType(dict(zip(get_args(Filter), get_args(Resize), strict=True)))
PRECISIONS: tuple[str, ...] = get_args(Precision)
# Where an engine may be asked to run.
DEVICES = ("auto", "cpu", "cuda")
# What `export` can be asked to build.
ENGINES = ("trt", "trt-rtx", "onnxruntime", "openvino", "all")

# Of torchvision's ImageNet training references; the original protocol uses them for every data set.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Output of a graph of class activation maps, and its axes of a size that is the graph's own.
CAM = "cam"
CAM_AXES = ("h", "w")

# Most pixels of an image that are decoded, and most bytes of one that are read, unless a caller says otherwise.
MAX_PIXELS = 178_956_970
MAX_BYTES = 64 << 20

# Longest side of an input, in pixels, that docs/bundle.md allows.
LONGEST_SIDE = 65536


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type and shape of one tensor; a `str` in `shape` is a symbolic axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a decoded image becomes the model's input.

    The resize (`samdeploy.images.resize`) happens outside the graph, on uint8 RGB; `mean` and `std` refer to
    RGB in [0, 1] and are applied inside the graph.

    Attributes:
        height: rows of the model's input, in pixels.
        width: columns of the model's input, in pixels.
        fit: "squeeze" resizes to height x width and ignores the aspect ratio; "center_crop" resizes the
            shorter side to `resize_short` and cuts the middle.
        resize_short: length of the shorter side before the crop, in pixels; None with "squeeze".
        mean: per channel, R G B.
        std: per channel, R G B.
        resize: one of `RESIZES`.
        crop: how half of an odd margin is rounded to what "center_crop" cuts off above or left: "floor", or
            "half-even" as torchvision does; "squeeze" cuts nothing.
    """

    height: int
    width: int
    fit: Fit = "squeeze"
    resize_short: int | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    resize: Resize = RESIZES["bilinear"]
    crop: Crop = "floor"

    def __post_init__(self) -> None:
        for name, side in (("height", self.height), ("width", self.width), ("resize_short", self.resize_short or 1)):
            if not isinstance(side, int):
                raise BundleError(f"preprocessing: {name} {side!r} found, a whole number of pixels expected")
        if self.height < 1 or self.width < 1:
            raise BundleError(f"preprocessing: size {self.height}x{self.width} found, both sides must be at least 1")
        longest = max(self.height, self.width, self.resize_short or 0)
        if longest > LONGEST_SIDE:
            raise BundleError(f"preprocessing: a side of {longest} pixels found, at most {LONGEST_SIDE} expected")
        if self.fit not in FITS:
            raise BundleError(f"preprocessing: fit {self.fit!r} found, one of {', '.join(FITS)} expected")
        if (self.fit == "center_crop") != (self.resize_short is not None):
            raise BundleError("preprocessing: resize_short belongs to fit 'center_crop' and to no other")
        if self.resize_short is not None and self.resize_short < max(self.height, self.width):
            raise BundleError(
                f"preprocessing: resize_short {self.resize_short} is smaller than the crop {self.height}x{self.width}"
            )
        if min(self.std) <= 0:
            raise BundleError(f"preprocessing: std {self.std} found, every value must be above 0")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A classifier: architecture, classes, tensors and preprocessing.

    Attributes:
        arch: for example "sam-resnet50".
        options: of the architecture's family, such as {"gate": "identity"}.
        classes: names; the index is the logit's column.
        input: ("image", "uint8", ("N", H, W, 3)), RGB.
        output: ("logits", "float32", ("N", K)).
        preprocessing: from a decoded image to the input.
        license: of the weights, as their own record names it; None if there is none.
    """

    arch: str
    options: Mapping[str, OptionValue]
    classes: tuple[str, ...]
    input: TensorSpec
    output: TensorSpec
    preprocessing: Preprocessing
    license: str | None = None


def model_spec(
    arch: str,
    options: Mapping[str, OptionValue],
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    license: str | None = None,
) -> ModelSpec:
    """The spec of every model that samdeploy exports: uint8 NHWC in, float32 logits out."""
    return ModelSpec(
        arch=arch,
        options=options,
        classes=classes,
        input=TensorSpec("image", "uint8", ("N", preprocessing.height, preprocessing.width, 3)),
        output=TensorSpec("logits", "float32", ("N", len(classes))),
        preprocessing=preprocessing,
        license=license,
    )


def cam_spec(spec: ModelSpec) -> TensorSpec:
    """The class activation maps of a model, one map per class: (`CAM`, "float32", ("N", K, "h", "w"))."""
    return TensorSpec(CAM, "float32", ("N", len(spec.classes), *CAM_AXES))


def named_model(arch: str, options: Mapping[str, OptionValue]) -> str:
    """Architecture and options for people: "sam-resnet18 (gate identity)"."""
    listed = ", ".join(f"{name} {value}" for name, value in options.items() if value != "")
    return f"{arch} ({listed})" if listed else arch
