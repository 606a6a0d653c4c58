"""`Preprocessing` and `ModelSpec` as JSON objects, the same in manifest.json and run.json."""

from __future__ import annotations

from typing import Any

from samdeploy.bundle.fields import Fields, short
from samdeploy.bundle.spec import FITS, Preprocessing
from samdeploy.errors import BundleError

# The name of the resize in samdeploy.images.decode; another algorithm will get another name.
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


def preprocessing_from_fields(fields: Fields) -> Preprocessing:
    """Read the object that `preprocessing_to_json` made; what is wrong with it is told when `fields` is closed."""
    height, width, fit = fields.integer("height"), fields.integer("width"), fields.text("fit")
    resize_short, resize = fields.integer_or_none("resize_short"), fields.text("resize")
    mean, std = fields.numbers("mean", 3), fields.numbers("std", 3)
    unread = Preprocessing(1, 1)
    if fields.problems():
        return unread
    if resize != RESIZE:
        fields.report(f"resize {short(resize)} found, this version knows only {RESIZE!r}")
    if fit not in FITS:
        fields.report(f"fit {short(fit)} found, one of {', '.join(FITS)} expected")
        return unread
    try:
        return Preprocessing(
            height=height,
            width=width,
            fit="squeeze" if fit == "squeeze" else "center_crop",
            resize_short=resize_short,
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
        )
    except BundleError as error:
        fields.report(str(error).removeprefix("preprocessing: "))
        return unread
