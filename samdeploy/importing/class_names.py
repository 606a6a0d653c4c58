"""The names of a network's classes, in the order of its logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from samdeploy.errors import InputError
from samdeploy.images.walk import natural_key

_SHOWN = 3


def read_class_names(path: Path) -> tuple[str, ...]:
    """One name a line, UTF-8; empty lines at the end are left out.

    Raises:
        InputError: no such file, not text, an empty line, or a name that occurs twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--classes {path}: a text file with one class name a line expected ({error})") from None
    while lines and not lines[-1].strip():
        lines.pop()
    names = tuple(line.strip() for line in lines)
    if "" in names:
        raise InputError(f"--classes {path}: line {names.index('') + 1} is empty; a class name expected")
    check_distinct(names, f"--classes {path}")
    return names


def check_distinct(names: Sequence[str], source: str) -> None:
    """Refuse a name that occurs twice.

    Raises:
        InputError: with the first such name and both places.
    """
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if name in seen:
            raise InputError(f"{source}: classes {seen[name]} and {index} are both {name!r}; each name once expected")
        seen[name] = index


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
    check_distinct(names, source)
    if len(names) != count:
        raise InputError(f"{source}: {len(names)} class names found, the network has {count} classes")
    unknown = [name for name in folders if name not in names]
    if unknown:
        raise InputError(
            f"{source}: {unknown[0]!r}{_more(unknown)} is a folder of images and no class; the first classes are "
            f"{', '.join(map(repr, names[:_SHOWN]))}. Rename the folders, or give the right names: --classes FILE"
        )
    orders = (sorted(names), sorted(names, key=natural_key))
    if set(names) == set(folders) and list(names) not in orders and not trust_order:
        place = next(index for index, (one, two) in enumerate(zip(names, orders[0], strict=True)) if one != two)
        raise InputError(
            f"{source}: class {place} is {names[place]!r}, and {orders[0][place]!r} in the order of the folders, which "
            "trainers use. If the file has the network's order: --trust-order"
        )
    return tuple(names)


def _from_folders(count: int, folders: tuple[str, ...]) -> tuple[str, ...]:
    if not folders:
        raise InputError("the network's class names are not known; give them, one a line: --classes FILE")
    if len(folders) != count:
        raise InputError(
            f"the network has {count} classes, the images have {len(folders)} folders; give all names in the order of "
            "the network: --classes FILE"
        )
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
