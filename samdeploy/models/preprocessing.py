"""From a decoded image to the network's input: what the weights' own record says, and what the user changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from samdeploy.bundle.spec import IMAGENET_MEAN, IMAGENET_STD, RESIZES, Crop, Filter, Fit, OptionValue, Preprocessing
from samdeploy.errors import InputError
from samdeploy.models.family import family_of, known_arch

# Divided by less, the rounding of float32 is all that is left of an image.
_LEAST_STD = 1e-4


@dataclass(frozen=True, slots=True)
class Given:
    """What the user says of the preprocessing; None is left to the record.

    Attributes:
        like: an architecture whose record is taken.
        height, width: of the network's input, in pixels.
        resize_short: the shorter side before the crop, in pixels.
        fit, filter, crop, mean, std: as in `Preprocessing`.

    Raises:
        InputError: mean or std cannot be of RGB in 0 to 1, or an image is to be squeezed and cut.
    """

    like: str | None = None
    height: int | None = None
    width: int | None = None
    resize_short: int | None = None
    fit: Fit | None = None
    filter: Filter | None = None
    crop: Crop | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        _check_colours("--mean", self.mean, -1)
        _check_colours("--std", self.std, _LEAST_STD)
        if self.fit == "squeeze" and self.resize_short is not None:
            raise InputError(
                f"--resize {self.resize_short}: is the shorter side before the crop, and --fit squeeze cuts nothing; "
                "leave one of them out"
            )


def _check_colours(option: str, values: tuple[float, float, float] | None, least: float) -> None:
    """Refuse what cannot be of RGB in 0 to 1.

    Raises:
        InputError: a value is not finite, above 1 or below `least`.
    """
    if values is not None and not all(least <= value <= 1 for value in values):  # NaN is not, either
        found = ",".join(f"{value:g}" for value in values)
        hint = "; divide by 255" if all(1 < value <= 255 for value in values) else ""
        raise InputError(f"{option}: {found} found, {least:g} to 1 expected: they are of RGB in 0 to 1{hint}")


def preprocessing_for(arch: str, options: Mapping[str, OptionValue], given: Given) -> Preprocessing:
    """The record of `arch`, or of `given.like`, with what is given in its place.

    A size that is given alone keeps the crop's share of the record.

    Raises:
        InputError: there is no record and no size; or a record asks for what a bundle cannot express.
    """
    source = given.like or arch
    if given.like is not None:
        known_arch(given.like)
    record = family_of(source).preprocessing(source, options if given.like is None else {})
    if record is None and given.height is None:
        raise InputError(
            f"{source}: no record says what its images look like; give it, for example: --size 224 --resize 256 "
            "--filter bilinear, or --preprocessing timm:NAME"
        )
    if record is None:
        fit: Fit = given.fit or ("squeeze" if given.resize_short is None else "center_crop")
        base = Preprocessing(
            given.height or 0, given.width or 0, fit, given.resize_short, IMAGENET_MEAN, IMAGENET_STD, crop="half-even"
        )
    else:
        base = record
    return adapted(base, given)


def in_words(images: Preprocessing, arch: str, options: Mapping[str, OptionValue], given: Given) -> str:
    """What `preprocessing_for` chose, and on whose word."""
    filter_ = next(name for name, resize in RESIZES.items() if resize == images.resize)
    size = f"{images.height}x{images.width}"
    mean, std = (",".join(f"{value:.6g}" for value in values) for values in (images.mean, images.std))
    how = f"squeezed to {size}, {filter_}"
    if images.fit == "center_crop":
        how = f"shorter side to {images.resize_short}, {filter_}, middle {size}"
    source = given.like or arch
    said: dict[str, object] = {"--size": given.height, "--resize or --fit": given.fit or given.resize_short}
    said |= {"--filter": given.filter, "--mean": given.mean, "--std": given.std}
    ours = [option for option, value in said.items() if value is not None]
    if len(ours) == len(said):
        origin = "as given"
    elif family_of(source).preprocessing(source, options if given.like is None else {}) is None:
        origin = f"no record of {source}: {', '.join(option for option in said if option not in ours)} assumed"
    else:
        origin = f"from the record of {source}" + (f", but for {', '.join(ours)}" if ours else "")
    return f"images: {how}; mean {mean}, std {std} ({origin})"


def adapted(record: Preprocessing, given: Given) -> Preprocessing:
    """A record with what is given in its place; a size that is given alone keeps the crop's share."""
    height, width = given.height or record.height, given.width or record.width
    fit = given.fit or ("center_crop" if given.resize_short is not None else record.fit)
    values: dict[str, Any] = {"height": height, "width": width, "fit": fit}
    values["resize_short"] = None
    if fit == "center_crop":
        share = (record.resize_short or record.height) / record.height
        values["resize_short"] = given.resize_short or int(max(height, width) * share)
    values["mean"], values["std"] = given.mean or record.mean, given.std or record.std
    values["resize"] = RESIZES[given.filter] if given.filter else record.resize
    values["crop"] = given.crop or record.crop
    return Preprocessing(**values)
