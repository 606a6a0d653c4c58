"""From a decoded image to the network's input: what the weights' own record says, and what the user changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from samdeploy.bundle.spec import IMAGENET_MEAN, IMAGENET_STD, RESIZES, Crop, Filter, Fit, OptionValue, Preprocessing
from samdeploy.errors import InputError
from samdeploy.models.registry import family_of, known_arch

# Divided by less, the rounding of float32 is all that is left of an image.
_LEAST_STD = 1e-4


@dataclass(frozen=True, slots=True)
class Given:
    """What the user, or a checkpoint, says of the preprocessing; None is left to the record.

    Attributes:
        like: an architecture whose record is taken.
        height, width: of the network's input, in pixels.
        resize_short: the shorter side before the crop, in pixels.
        fit, filter, crop, mean, std: as in `Preprocessing`.
        crop_share: of the shorter side that the crop keeps, in place of `resize_short`.

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
    crop_share: float | None = None

    def __post_init__(self) -> None:
        _check_colours("--mean", self.mean, -1)
        _check_colours("--std", self.std, _LEAST_STD)
        if self.fit == "squeeze" and self.resize_short is not None:
            raise InputError(
                f"--resize {self.resize_short}: not with --fit squeeze, which crops nothing; leave one of them out"
            )
        if self.resize_short is not None and self.resize_short < max(self.height or 0, self.width or 0):
            raise InputError(
                f"--resize {self.resize_short}: the image is cropped to --size {self.height}x{self.width} afterwards; "
                f"give --resize {max(self.height or 0, self.width or 0)} or more"
            )

    def before(self, other: Given) -> Given:
        """These values, and those of `other` where none is given here.

        An architecture that is given replaces all of `other`; a size or a crop of its own, what `other` says of those.
        """
        if self.like is not None:
            return self
        names = [name for name in ("filter", "mean", "std", "crop") if getattr(self, name) is None]
        is_cut = self.fit is not None or self.resize_short is not None
        if self.height is None:
            names += ["height", "width"]
        if not is_cut:
            names += ["fit", "crop_share", *(["resize_short"] if self.height is None else [])]
        return replace(self, **{name: getattr(other, name) for name in names})


def _check_colours(option: str, values: tuple[float, float, float] | None, least: float) -> None:
    """Refuse what cannot be of RGB in 0 to 1.

    Raises:
        InputError: a value is not finite, above 1 or below `least`.
    """
    if values is not None and not all(least <= value <= 1 for value in values):  # NaN is not, either
        found = ",".join(f"{value:g}" for value in values)
        hint = "; divide by 255" if all(1 < value <= 255 for value in values) else ""
        raise InputError(f"{option}: {found} found, {least:g} to 1 expected (for RGB in 0 to 1){hint}")


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
            f"{source}: its preprocessing is not recorded; give that of its training, for example: --size 224 "
            "--resize 256 --filter bilinear, or --preprocessing timm:NAME"
        )
    if record is None:
        is_cut = (given.resize_short or given.crop_share) is not None
        fit: Fit = given.fit or ("center_crop" if is_cut else "squeeze")
        base = Preprocessing(
            given.height or 0, given.width or 0, fit, given.resize_short, IMAGENET_MEAN, IMAGENET_STD, crop="half-even"
        )
    else:
        base = record
    return adapted(base, given)


def in_words(images: Preprocessing, arch: str, options: Mapping[str, OptionValue], given: Given, whole: Given) -> str:
    """What `preprocessing_for` chose, and on whose word.

    Args:
        given: by the user.
        whole: that, and what the file of the network says.
    """
    filter_ = next(name for name, resize in RESIZES.items() if resize == images.resize)
    size = f"{images.height}x{images.width}"
    mean, std = (",".join(f"{value:.6g}" for value in values) for values in (images.mean, images.std))
    how = f"squeezed to {size}, {filter_}"
    if images.fit == "center_crop":
        how = f"shorter side to {images.resize_short}, {filter_}, middle {size}"
    source = given.like or arch
    said = _said(given)
    ours = [option for option, value in said.items() if value is not None]
    theirs = [option for option, value in _said(whole).items() if value is not None and option not in ours]
    file_says = f"as the file says: {', '.join(theirs)}" if theirs else ""
    known = [*ours, *theirs]
    if len(known) == len(said):
        origin = f"as given; {file_says}" if ours and theirs else file_says or "as given"
    elif guessed := assumed(arch, options, whole):
        origin = f"no record of {source}: {', '.join(guessed)} assumed"
        origin += f"; {file_says}" if theirs else ""
    else:
        origin = f"from the record of {source}" + (f", but for {', '.join(ours)}" if ours else "")
        origin += f"; {file_says}" if theirs else ""
    return f"images: {how}; mean {mean}, std {std} ({origin})"


def assumed(arch: str, options: Mapping[str, OptionValue], whole: Given) -> list[str]:
    """The options that are in no record and that neither the user nor the network's file gave; `whole` is both."""
    source = whole.like or arch
    if family_of(source).preprocessing(source, options if whole.like is None else {}) is not None:
        return []
    return [option for option, value in _said(whole).items() if value is None]


def _said(given: Given) -> dict[str, object]:
    """Option -> what is given of it."""
    return {
        "--size": given.height,
        "--resize or --fit": given.fit or given.resize_short or given.crop_share,
        "--filter": given.filter,
        "--mean": given.mean,
        "--std": given.std,
    }


def adapted(record: Preprocessing, given: Given) -> Preprocessing:
    """A record with what is given in its place; a size that is given alone keeps the crop's share."""
    height, width = given.height or record.height, given.width or record.width
    is_cut = given.resize_short is not None or (given.crop_share or 1) < 1
    fit = given.fit or ("center_crop" if is_cut else record.fit)
    values: dict[str, Any] = {"height": height, "width": width, "fit": fit}
    values["resize_short"] = None
    if fit == "center_crop":
        larger = (record.resize_short or record.height) / record.height
        whole = max(height, width)
        by_share = int(whole / given.crop_share) if given.crop_share else int(whole * larger)
        values["resize_short"] = given.resize_short or by_share
    values["mean"], values["std"] = given.mean or record.mean, given.std or record.std
    values["resize"] = RESIZES[given.filter] if given.filter else record.resize
    values["crop"] = given.crop or record.crop
    return Preprocessing(**values)
