"""How the script that wrote a checkpoint prepared images for validation, from the arguments it saved."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from samdeploy.bundle.spec import RESIZES
from samdeploy.errors import InputError
from samdeploy.models.preprocessing import Given

# Keys of timm's and torchvision's scripts, and of timm's records of weights.
_CUT = ("crop_pct", "crop_mode", "val_resize_size", "val_crop_size")
_KEYS = ("input_size", "img_size", *_CUT, "interpolation", "mean", "std")
_PLACES = ("pretrained_cfg", "args")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a checkpoint says about its images.

    Attributes:
        given: what can be taken.
        unclear: the rest, in words.
    """

    given: Given = field(default_factory=Given)
    unclear: str = ""


def recorded(around: Mapping[str, Any]) -> Recorded:
    """What lies beside the weights; as in timm, arguments of the script come before the record of weights."""
    said: dict[str, Any] = {}
    for place in map(around.get, _PLACES):
        values = vars(place) if isinstance(place, argparse.Namespace) else place
        if isinstance(values, Mapping):
            said |= {key: values[key] for key in _KEYS if values.get(key) not in (None, "")}
    given, unclear = Given(), dict(said)
    for keys, found in _parts(said):
        with suppress(InputError):  # a mean above 1, for example
            given = replace(given, **found)
            for key in keys:
                unclear.pop(key, None)
    return Recorded(given, ", ".join(f"{key} {value}" for key, value in unclear.items()))


def _parts(said: Mapping[str, Any]) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """(keys, what they say together), of those that leave no doubt."""
    found: list[tuple[tuple[str, ...], dict[str, Any]]] = []
    short, crop = said.get("val_resize_size"), said.get("val_crop_size")
    sizes = {size for key in ("input_size", "img_size", "val_crop_size") if (size := _size(said.get(key)))}
    if len(sizes) == 1:
        (size,) = sizes
        both = {"height": size[0], "width": size[1]}
        if crop is None:
            found.append((("input_size", "img_size"), both))
        elif _is_side(short) and _is_side(crop) and short >= crop and "crop_pct" not in said:
            found.append(
                (("input_size", "img_size", "val_resize_size", "val_crop_size"), {**both, "resize_short": short})
            )
    share, mode = said.get("crop_pct"), said.get("crop_mode", "center")
    if isinstance(share, int | float) and 0 < share <= 1 and mode == "center" and short is None:
        found.append((("crop_pct", "crop_mode"), {"crop_share": float(share)}))
    if mode == "squash" and share == 1:
        found.append((("crop_pct", "crop_mode"), {"fit": "squeeze"}))
    if (filter_ := said.get("interpolation")) in RESIZES:
        found.append((("interpolation",), {"filter": filter_}))
    if (mean := _colours(said.get("mean"))) and (std := _colours(said.get("std"))):
        found.append((("mean", "std"), {"mean": mean, "std": std}))
    return found


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _size(value: object) -> tuple[int, int] | None:
    """(height, width) of 224, [224, 224] or [3, 224, 224]."""
    if isinstance(value, list | tuple) and all(map(_is_side, value)):
        sides = value[1:] if len(value) == 3 and value[0] == 3 else value
        return (sides[0], sides[1]) if len(sides) == 2 else None
    return (value, value) if isinstance(value, int) and _is_side(value) else None


def _colours(value: object) -> tuple[float, float, float] | None:
    if isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(one, int | float) for one in value):
        return float(value[0]), float(value[1]), float(value[2])
    return None
