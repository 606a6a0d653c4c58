"""From a TOML table to a `Recipe`: every key known, every value of the right type and within its limits.

The dataclasses of `samdeploy.train.recipe.recipe` are the only list of keys, types and limits; this file walks them
and collects all problems before it raises, so that a recipe is mended in one go.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import operator
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from samdeploy.data import DATASETS
from samdeploy.errors import BundleError, InputError, RecipeError, unknown
from samdeploy.train.recipe.recipe import AugmentSection, ImageSection, ModelSection, Recipe, TrainingSection

HINTS = typing.get_type_hints(Recipe)
SECTIONS: dict[str, Any] = {name: hint for name, hint in HINTS.items() if dataclasses.is_dataclass(hint)}

# Where text must have a form: the form, and its name in words.
_PATTERNS = {
    "name": (
        re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*"),
        "a name of letters, digits, '.', '_' and '-' (the run's folder is called so)",
    ),
    "data.root": (re.compile(r"[^\0]+"), "a folder"),
    "training.device": (re.compile(r"auto|cpu|cuda(:\d+)?"), "'auto', 'cpu', 'cuda' or 'cuda:N'"),
}

# What other tools call these keys.
_NUMBER = "a finite number"
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
    **dict.fromkeys(("early_stopping", "early_stop"), ("training.patience",)),
    **dict.fromkeys(("grad_accum", "accum", "accumulation_steps"), ("training.accumulate",)),
}

_LIMITS = {
    "at_least": (operator.ge, "at least"),
    "at_most": (operator.le, "at most"),
    "above": (operator.gt, "above"),
    "below": (operator.lt, "below"),
}


def recipe_from_table(table: Mapping[str, Any], source: str) -> Recipe:
    """Check `table` and make a `Recipe` of it; `source` opens the error's text.

    Raises:
        RecipeError: lists every unknown key (with the nearest spelling), wrong type and impossible value.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    for key, value in {**table, "model": table.get("model", {})}.items():
        if key == "model" and isinstance(value, Mapping):
            values[key] = _model_section(value, problems)
        elif key in SECTIONS and isinstance(value, Mapping):
            values[key] = _section(key, value, problems)
        elif key in SECTIONS:
            problems.append(f"{key}: {value!r} found, a section [{key}] expected")
        elif key in HINTS:
            values[key] = _checked(key, value, HINTS[key], {}, problems)
        elif isinstance(value, Mapping):
            problems.append(unknown("section", key, SECTIONS))
        else:
            everywhere = (name for names in every_key().values() for name in names)
            problems.append(_unknown_key(key, "", sorted({"name", "description", *everywhere})))
    if not problems:
        return Recipe(**values)
    count = f"{len(problems)} problems: " if len(problems) > 1 else ""
    raise RecipeError(f"{source}: {count}{'; '.join(problems)}")


def _section(section: str, table: Mapping[str, Any], problems: list[str]) -> Any:
    """The dataclass of one section, or None where its values do not allow it."""
    hints = typing.get_type_hints(SECTIONS[section])
    fields = {field.name: field for field in dataclasses.fields(SECTIONS[section])}
    before = len(problems)
    values = {}
    for key, value in table.items():
        if key in fields:
            values[key] = _checked(f"{section}.{key}", value, hints[key], fields[key].metadata, problems)
        else:
            problems.append(_unknown_key(key, section, list(fields)))
    if len(problems) > before:
        return None
    made = SECTIONS[section](**values)
    problems += _contradictions(made)
    return made


def _model_section(table: Mapping[str, Any], problems: list[str]) -> ModelSection | None:
    """[model], where the options of the architecture's family are keys like the others."""
    from samdeploy.models.family import family_of  # late: it comes with torch

    own = section_keys()["model"]
    section: ModelSection | None = _section("model", {key: table[key] for key in own if key in table}, problems)
    if section is None:
        return None
    try:
        family = family_of(section.arch)
    except InputError as error:
        problems.append(f"model.arch: {error}")
        return None
    if section.arch not in family.architectures():
        problems.append(unknown("model.arch", section.arch, family.architectures()))
    options = {name: values[0] for name, values in family.options.items()}
    for name, value in table.items():
        if name in own:
            continue
        if name not in options:
            problems.append(_unknown_key(name, "model", [*own, *options]))
        elif value not in family.options[name]:
            problems.append(unknown(f"model.{name}", str(value), map(str, family.options[name])))
        options[name] = value
    return dataclasses.replace(section, options=options)


def _checked(where: str, value: Any, hint: Any, limits: Mapping[str, float], problems: list[str]) -> Any:
    """`value` as `hint` wants it, or None with a problem added."""
    converted, expected = _convert(value, hint)
    if expected == _NUMBER and where in ("training.learning_rate", "training.weight_decay"):
        expected += " such as 0.001"
    if expected:
        problems.append(f"{where}: {value!r} found, {expected} expected")
        return None
    for name, limit in limits.items():
        holds, words = _LIMITS[name]
        if not holds(converted, limit):
            problems.append(f"{where}: {value!r} found, {words} {limit} expected")
            return None
    if where in _PATTERNS and not _PATTERNS[where][0].fullmatch(converted):
        problems.append(f"{where}: {value!r} found, {_PATTERNS[where][1]} expected")
    if where == "data.name" and converted not in DATASETS:
        problems.append(unknown(where, converted, DATASETS))
    return converted


def _convert(value: Any, hint: Any) -> tuple[Any, str]:
    """(value of the hinted type, "") or (None, what was expected)."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return (value, "") if value in arguments else (None, f"one of {', '.join(map(repr, arguments))}")
    if origin is tuple:
        numbers = [_convert(item, float) for item in value] if isinstance(value, list | tuple) else []
        if len(numbers) == len(arguments) and not any(problem for _, problem in numbers):
            return tuple(number for number, _ in numbers), ""
        return None, f"a list of {len(arguments)} numbers"
    if hint == bool | str:
        fits = isinstance(value, bool | str) and value != "" and "\0" not in str(value)
        return (value, "") if fits else (None, "true, false or a path as a string")
    if hint is bool:
        return (value, "") if isinstance(value, bool) else (None, "true or false")
    if isinstance(hint, types.GenericAlias) or origin is not None:  # Mapping[str, Scalar]
        scalars = isinstance(value, Mapping) and all(isinstance(item, str | int | float) for item in value.values())
        return (dict(value), "") if scalars else (None, "a section of strings, numbers, true or false")
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return (float(value), "") if number else (None, _NUMBER)
    if hint is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return (value, "") if whole else (None, "a whole number")
    return (value, "") if isinstance(value, str) else (None, "a string")


def _contradictions(section: Any) -> Iterable[str]:
    """Values of one section that exclude one another."""
    if isinstance(section, ImageSection):
        try:
            section.preprocessing()
        except BundleError as error:
            yield str(error).replace("preprocessing:", "image:", 1)
    if isinstance(section, AugmentSection):
        if section.crop_padding and section.crop_scale < 1:
            yield "augment: crop_padding and crop_scale found, one of the two ways to crop expected"
        if section.oversize > 1 and section.crop_scale == 1:
            yield f"augment.oversize: {section.oversize:g} found, 1 expected where crop_scale = 1 cuts nothing off"
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
    if not difflib.get_close_matches(key, valid, cutoff=0.5):
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
        from samdeploy.models.family import option_names  # late: it comes with torch

        keys["model"] += sorted(option_names())
    return keys
