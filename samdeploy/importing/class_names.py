"""The names of a network's classes, in the order of its logits."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from samdeploy.errors import InputError
from samdeploy.images.walk import natural_key

_SHOWN = 3
# What trainers call the file that they write beside the images.
_BESIDE = "classes.txt"
_LONGEST = 1000


def read_class_names(path: Path) -> tuple[str, ...]:
    """One name a line, in UTF-8, or JSON: a list of names, or an object that maps numbers to names or names to numbers.

    Numbers from 0 or 1 before all names ("0 cat", "1 dog") are left out where names that differ are left, and so are
    empty lines at the end.

    Raises:
        InputError: no such file, not text, an empty line, or a name that occurs twice.
    """
    origin = f"--classes {path}"
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
        names = _from_json(json.loads(text)) if text.startswith(("[", "{")) else _from_lines(text)
    except OSError as error:
        raise InputError(f"{origin}: {error.strerror}; a text file with one class name a line expected") from None
    except (ValueError, RecursionError):  # of UTF-8 or of JSON
        raise InputError(
            f"{origin}: one class name a line in UTF-8 expected, or a JSON list of names, or an object of names and "
            "numbers from 0"
        ) from None
    if not names:
        raise InputError(f"{origin}: is empty; one class name a line expected")
    if "" in names:
        raise InputError(f"{origin}: class {names.index('')} (line {names.index('') + 1}) is empty; a name expected")
    check_names(names, origin)
    return names


def _from_lines(text: str) -> tuple[str, ...]:
    names = tuple(line.strip() for line in text.splitlines())
    for start in (0, 1):
        found = [re.match(rf"{number}[\s,:]+(?=\S)", name) for number, name in enumerate(names, start)]
        plain = tuple(name[match.end() :] for name, match in zip(names, found, strict=True) if match)
        if len(set(plain)) == len(names):  # "1 euro", "2 euro" are names
            return plain
    return names


def _from_json(found: object) -> tuple[str, ...]:
    """Names in their order.

    Raises:
        ValueError: these are no names.
    """
    if isinstance(found, dict):
        by_number = (
            found if all(key.isdecimal() for key in found) else {str(value): key for key, value in found.items()}
        )
        found = [by_number.get(str(number)) for number in range(len(found))]
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ValueError
    return tuple(name.strip() for name in found)


def check_names(names: Sequence[str], source: str) -> None:
    """Refuse a name that occurs twice, or that no table could show.

    Raises:
        InputError: with the first such name and its places.
    """
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if len(name) > _LONGEST:
            raise InputError(f"{source}: class {index} has {len(name):,} characters, at most {_LONGEST:,} expected")
        if name in seen:
            raise InputError(f"{source}: classes {seen[name]} and {index} are both {name!r}; each name once expected")
        seen[name] = index


def _check_text(names: Sequence[str], source: str) -> None:
    """Refuse names that no file can hold, and those that say nothing.

    Raises:
        InputError: with the first such name.
    """
    for index, name in enumerate(names):
        if not name.strip() or any("\ud800" <= letter <= "\udfff" for letter in name):  # halves of UTF-16's pairs
            raise InputError(f"{source}: class {index} is {name!r}; a name expected: --classes FILE")


def class_names(
    count: int,
    known: Sequence[tuple[str, Sequence[str]]],
    folders: tuple[str, ...],
    *,
    trust_order: bool = False,
) -> tuple[str, ...]:
    """The names of `count` classes, from the first source that has some, else from the folders of images.

    Args:
        count: of the network's logits.
        known: pairs of a source, for people, and its names; the first whose names hold all folders is taken.
        folders: names of the class folders of the images; empty without images.
        trust_order: accept names in another order than that of the folders.

    Raises:
        InputError: no names, or they do not fit the network or the folders.
    """
    if not known:
        return _from_folders(count, folders)
    source, names = next((pair for pair in known if set(folders) <= set(pair[1])), known[0])
    _check_text(names, source)
    names = _folder_words(names, folders)
    check_names(names, source)
    if len(names) != count:
        raise InputError(f"{source}: {len(names)} class names found, the network has {count} classes")
    unknown = [name for name in folders if name not in names]
    if unknown:
        raise InputError(
            f"{source}: no class {unknown[0]!r}{_more(unknown)}, though a folder of images is called so; the first "
            f"classes are {', '.join(map(repr, names[:_SHOWN]))}. Rename it, or give other names: --classes FILE"
        )
    if not trust_order and (differs := _first_out_of_order(names, folders)) is not None:
        first, other = differs
        raise InputError(
            f"{source}: class {names.index(first)} is {first!r}, but in the order of the folders, which trainers use, "
            f"it is {other!r}. Correct the file, or add --trust-order if it has the network's order"
        )
    return tuple(names)


def names_beside(root: Path, count: int, folders: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """`known` of `class_names` from classes.txt beside the folders, where it names them all and no others.

    Args:
        count: of the network's logits.
    """
    path = root / _BESIDE
    if not path.is_file():
        return []
    try:
        names = read_class_names(path)
    except InputError:  # a file of something else
        return []
    return [(str(path), names)] if len(names) == count and set(names) == set(folders) else []


def other_order(names: Sequence[str], folders: Sequence[str]) -> str | None:
    """The first classes where they are in another order than the folders, for people; else None."""
    if _first_out_of_order(names, folders) is None:
        return None
    pairs = ", ".join(f"{index} = {name}" for index, name in enumerate(names[:_SHOWN]))
    return f"the classes are in another order than the folders: {pairs}{', ...' if len(names) > _SHOWN else ''}"


def _first_out_of_order(names: Sequence[str], folders: Sequence[str]) -> tuple[str, str] | None:
    """The first class that is a folder and the folder in its place; None where they are in plain or natural order."""
    here = [name for name in names if name in folders]
    orders = (sorted(here), sorted(here, key=natural_key))
    if here in orders:
        return None
    return next((one, two) for one, two in zip(here, orders[0], strict=True) if one != two)


def difference(names: Sequence[str], others: Sequence[str], source: str) -> str | None:
    """The first class that `source` calls otherwise, for people; None where all are called the same."""
    if len(names) != len(others):
        return f"{len(names)} class names given, {source} has {len(others)}"
    pairs = enumerate(zip(names, others, strict=True))
    return next((f"class {k} is {one!r}, and {two!r} in {source}" for k, (one, two) in pairs if one != two), None)


def _folder_words(names: Sequence[str], folders: Sequence[str]) -> Sequence[str]:
    """The first words of lines such as "n01440764 tench" where those are what the folders are called."""
    words = [name.split()[0] for name in names]
    return names if set(folders) <= set(names) or not set(folders) <= set(words) else words


def _from_folders(count: int, folders: tuple[str, ...]) -> tuple[str, ...]:
    if not folders:
        raise InputError("the network's class names are not known; give them, one a line: --classes FILE")
    if len(folders) != count:
        cure = "give all names in the order of the network: --classes FILE"
        if len(folders) > count:
            cure = "leave out those that it does not know, or check the weights"
        raise InputError(f"the network has {count} classes, the images have {len(folders)} folders; {cure}")
    plain, natural = sorted(folders), sorted(folders, key=natural_key)
    if plain != natural:
        place = next(index for index, (one, two) in enumerate(zip(plain, natural, strict=True)) if one != two)
        raise InputError(
            f"the folders' order is not clear: class {place} is {plain[place]!r} for torchvision and "
            f"{natural[place]!r} for timm. Give the names in the order of the network: --classes FILE"
        )
    return tuple(plain)


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
