"""Which columns of a table hold the image, its label and its split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from samdeploy.data.dataset import OptionValue
from samdeploy.data.sets.image_list import Faults
from samdeploy.images.walk import shortened
from samdeploy.terminal import printable

# What people and tools call them, the likeliest first; compared in lower case.
_USUAL = {
    "path_column": (
        *("path", "file_name", "filename", "file", "filepath", "file_path", "image", "image_path", "img"),
        *("img_path", "image_name", "image_file", "image_filename", "imagepath", "img_name"),
    ),
    "label_column": (
        *("label", "class", "target", "category", "class_name", "classname", "label_name", "labels", "cls"),
        *("class_label", "category_name", "y"),
    ),
    "split_column": ("split", "subset", "partition"),
}
_WHAT = {"path_column": "images", "label_column": "labels", "split_column": "splits"}
OPTIONS = tuple(_USUAL)


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of columns; `split` is None in a table without splits."""

    image: str
    label: str
    split: str | None


def delimiter_of(file: Path, header: str) -> str:
    """What separates the cells of a .csv or .tsv whose first line is `header`."""
    return "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=header.count)


def choose_columns(
    names: Sequence[str], options: Mapping[str, OptionValue], file: str, faults: Faults
) -> Columns | None:
    """The columns that the options name, or else those with a usual name; None where one is missing, which is a fault.

    Args:
        names: of all columns.
        options: `OPTIONS`; "" where not given.
        file: for faults.
    """
    chosen = {option: choose_column(names, option, str(options.get(option, ""))) for option in OPTIONS}
    missing = [option for option, name in chosen.items() if name is None]
    there = shortened(map(repr, names)) or "none"
    for option in missing:
        given = str(options.get(option, ""))
        if given:
            faults.add(f"{printable(file)}: no column {given!r} ({option}); its columns are {there}")
        elif option != "split_column":
            faults.add(
                f"{printable(file)}: no column of {_WHAT[option]} found; its columns are {there}. Name it: "
                f"--set data.options.{option}=NAME"
            )
    image, label = chosen["path_column"], chosen["label_column"]
    if image is None or label is None or (options.get("split_column") and "split_column" in missing):
        return None
    return Columns(image, label, chosen["split_column"])


def choose_column(names: Sequence[str], option: str, given: str) -> str | None:
    """The named column, or the one with a usual name; None if there is neither.

    Args:
        names: of all columns.
        option: one of `OPTIONS`.
        given: "" where none is named.
    """
    if given:
        return given if given in names else None
    by_key = {name.strip().lower(): name for name in reversed(names)}
    return next((by_key[usual] for usual in _USUAL[option] if usual in by_key), None)
