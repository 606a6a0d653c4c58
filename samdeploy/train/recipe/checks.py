"""From a TOML table to a `Recipe`: every key known, every value of the right type and within its limits.

The dataclasses of `samdeploy.train.recipe.recipe` are the only list of keys, types and limits, which
`samdeploy.bundle.fields` reads; this file adds what else the author of a recipe can get wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import itertools
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from samdeploy.bundle.fields import Reader, short
from samdeploy.data import DATASETS
from samdeploy.errors import BundleError, InputError, RecipeError, unknown
from samdeploy.train.recipe.recipe import (
    AugmentSection,
    DataSection,
    ImageSection,
    ModelSection,
    Recipe,
    TrainingSection,
)

HINTS = typing.get_type_hints(Recipe)
SECTIONS: dict[str, Any] = {name: hint for name, hint in HINTS.items() if dataclasses.is_dataclass(hint)}

# What other tools call these keys.
SIZE_KEYS = ("image.height", "image.width")
ELSEWHERE = {
    **dict.fromkeys(("size", "imgsz", "img_size", "image_size", "input_size", "resolution", "px"), SIZE_KEYS),
    **dict.fromkeys(("lr", "lr0", "base_lr"), ("training.learning_rate",)),
    **dict.fromkeys(("bs", "batch", "batchsize"), ("training.batch_size",)),
    **dict.fromkeys(("wd", "decay"), ("training.weight_decay",)),
    **dict.fromkeys(("scheduler", "sched"), ("training.schedule",)),
    **dict.fromkeys(("amp", "dtype", "half"), ("training.precision",)),
    **dict.fromkeys(("smoothing",), ("training.label_smoothing",)),
    **dict.fromkeys(("model", "network", "backbone", "architecture"), ("model.arch",)),
    **dict.fromkeys(("weights", "checkpoint", "init"), ("model.pretrained",)),
    **dict.fromkeys(("val_split", "val_size", "validation_split", "validation_fraction"), ("data.val_fraction",)),
    **dict.fromkeys(("optim", "opt"), ("training.optimizer",)),
    **dict.fromkeys(("early_stopping", "early_stop"), ("training.patience",)),
    **dict.fromkeys(("grad_accum", "accum", "accumulation_steps"), ("training.accumulate",)),
}


def recipe_from_table(table: Mapping[str, Any], source: str) -> Recipe:
    """Check `table` and make a `Recipe` of it; `source` opens the error's text.

    Raises:
        RecipeError: lists every unknown key (with the nearest spelling), wrong type and impossible value.
    """
    reader, values, options = _RecipeReader(), dict(table), dict[str, Any]()
    model = table.get("model", {})
    if isinstance(model, dict):
        values["model"] = {name: value for name, value in model.items() if name in section_keys()["model"]}
        options = _model_options(model, reader)
    augment = table.get("augment", {})
    if isinstance(augment, dict) and augment.get("crop_padding", 0) != 0:  # the one way to crop leaves out the other
        values["augment"] = {"crop_scale": 1.0, **augment}
    recipe = reader.read(Recipe, values, source, RecipeError)
    from samdeploy.models.registry import options_for_size  # late: it comes with torch

    options = dict(options_for_size(recipe.model.arch, options, recipe.image.height, recipe.image.width))
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, options=options))


class _RecipeReader(Reader):
    """Reads a recipe: what has a default may be absent, and an unknown key is looked for elsewhere."""

    def text(self) -> str:
        return f"{self.count} problems: {super().text()}" if self.count > 1 else super().text()

    def may_be_absent(self, field: dataclasses.Field[Any]) -> bool:
        return not field.default is field.default_factory is dataclasses.MISSING

    def unknown_key(self, section: str, name: str, value: object, valid: Iterable[str]) -> str:
        if section:
            return _unknown_key(name, section, list(valid))
        if isinstance(value, dict):
            return unknown("section", name, SECTIONS)
        return _unknown_key(name, "", sorted({"name", "description", *itertools.chain(*every_key().values())}))

    def wrong_type(self, section: str, name: str, value: object, expected: str, at: object = None) -> str:
        place = "" if at is None else f" at {short(at)}"
        expected = (
            f"a section [{name}]" if expected == "an object" else expected.replace("map names to", "a section of")
        )
        return f"{f'{section}.' if section else ''}{name}: {short(value)} found{place}, {expected} expected"

    def wrong_value(self, section: str, name: str, value: object, expected: str) -> str:
        return self.wrong_type(section, name, value, expected)

    def objections(self, section: str, name: str, value: Any) -> Iterable[str]:
        if (section, name) == ("data", "name") and value not in DATASETS:
            yield unknown("data.name", value, DATASETS)

    def contradictions(self, section: str, made: object) -> Iterable[str]:
        return _contradictions(made)


def _model_options(table: Mapping[str, Any], reader: Reader) -> dict[str, Any]:
    """The options of the architecture's family, which are keys of [model] like the others; complete."""
    from samdeploy.models.registry import family_of, option_texts  # late: it comes with torch

    own, arch = section_keys()["model"], table.get("arch", ModelSection().arch)
    if not isinstance(arch, str):
        return {}
    try:
        family = family_of(arch)
    except InputError as error:
        reader.report(str, f"model.arch: {error}")
        return {}
    if arch not in family.architectures():
        reader.report(unknown, "model.arch", arch, family.architectures())
    options: dict[str, Any] = {name: values[0] for name, values in family.options.items()}
    for name, value in table.items():
        if name in own:
            continue
        if name not in family.options and name in every_key()["model"]:
            reader.report(str, f"model.{name}: {arch} has no such option; leave it out")
        elif name not in family.options:
            reader.report(_unknown_key, name, "model", [*own, *options])
        elif value not in family.options[name]:
            valid = option_texts(family.options[name])
            reader.report(unknown, f"model.{name}", str(value), valid, len(valid))
        else:
            options[name] = value
    return options


def _contradictions(section: object) -> Iterable[str]:
    """Values of one section that exclude one another."""
    if isinstance(section, ImageSection):
        try:
            section.preprocessing()
        except BundleError as error:
            yield str(error).replace("preprocessing:", "image:", 1)
    if isinstance(section, AugmentSection):
        if section.crop_padding and section.crop_scale < 1:
            yield (
                "augment: crop_padding and crop_scale found, one of the two ways to crop expected; with "
                "augment.crop_scale=1 it is the padding alone"
            )
        if section.oversize > 1 and section.crop_scale == 1:
            yield f"augment.oversize: {section.oversize:g} found, 1 expected where crop_scale = 1 cuts nothing off"
        if section.whole_epochs and not section.train_size:
            yield (
                f"augment.whole_epochs: {section.whole_epochs} found, 0 expected where train_size = 0: all epochs have "
                "images of the image section's size"
            )
    if isinstance(section, DataSection) and section.class_weights != "none" and section.sampling != "natural":
        yield "data: class_weights and sampling found, one of the two ways to even out classes expected"
    if isinstance(section, TrainingSection) and section.warmup_epochs > section.epochs:
        yield f"training.warmup_epochs: {section.warmup_epochs} found, at most epochs = {section.epochs} expected"


def _unknown_key(key: str, section: str, valid: list[str]) -> str:
    everywhere = {f"{home}.{name}": name for home, names in every_key().items() for name in names}
    homes = [name for name, keys in every_key().items() if key in keys and name != section]
    if homes:
        place = f"in [{section}]" if section else "outside all sections"
        return f"key {key!r} stands {place} but belongs in [{homes[0]}]"
    found = f"key {section}.{key}" if section else f"key {key!r}"
    if meant := ELSEWHERE.get(key.lower()):
        return f"unknown {found}; it is called {' and '.join(meant)} here"
    if not difflib.get_close_matches(key, valid, cutoff=0.6):
        near = difflib.get_close_matches(key, everywhere.values(), n=2, cutoff=0.7)
        if paths := [path for path, name in everywhere.items() if name in near]:
            return f"unknown {found}; did you mean {' or '.join(paths)}?"
    return unknown(f"key in [{section}]" if section else "key", key, valid)


def section_keys() -> dict[str, list[str]]:
    """Section -> its keys, without the options of models."""
    keys = {name: [field.name for field in dataclasses.fields(kind)] for name, kind in SECTIONS.items()}
    keys["model"].remove("options")
    return keys


def every_key() -> dict[str, list[str]]:
    """Section -> its keys; [model] with the options of all families, where PyTorch is installed."""
    keys = section_keys()
    with contextlib.suppress(ModuleNotFoundError):
        from samdeploy.models.registry import option_names  # late: it comes with torch

        keys["model"] += sorted(option_names())
    return keys
