"""`Preprocessing` and `ModelSpec` as JSON objects, the same in manifest.json and run.json."""

from __future__ import annotations

from typing import Any

from samdeploy.errors import BundleError
from samdeploy.fields import Fields
from samdeploy.spec import FITS, Preprocessing

# The name of the resize in samdeploy.preprocess; another algorithm will get another name.
RESIZE = "bilinear-antialias-vertical-first-q22"


def preprocessing_to_json(value: Preprocessing) -> dict[str, Any]:
    return {
        "height": value.height,
        "width": value.width,
        "fit": value.fit,
        "resize_short": value.resize_short,
        "resize": RESIZE,
        "mean": list(value.mean),
        "std": list(value.std),
    }


def preprocessing_from_json(value: object, where: str) -> Preprocessing:
    fields = Fields(value, where, BundleError)
    height, width, fit = fields.integer("height"), fields.integer("width"), fields.text("fit")
    resize_short, resize = fields.integer_or_none("resize_short"), fields.text("resize")
    mean, std = fields.numbers("mean", 3), fields.numbers("std", 3)
    fields.close()
    if resize != RESIZE:
        raise BundleError(f"{where}: resize {resize!r} found, this version knows only {RESIZE!r}")
    if fit not in FITS:
        raise BundleError(f"{where}: fit {fit!r} found, one of {', '.join(FITS)} expected")
    return Preprocessing(
        height=height,
        width=width,
        fit="squeeze" if fit == "squeeze" else "center_crop",
        resize_short=resize_short,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )
