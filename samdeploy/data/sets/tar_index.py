"""Where the images of a tar lie and what their labels are, found in one pass over its members and kept in the cache."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import Int64Array, UInt8Array, UInt64Array
from samdeploy.data.file_notes import noted
from samdeploy.data.texts import PackedTexts
from samdeploy.images.walk import is_image_name

# What holds a label, the most certain first.
_LABELS = ("cls", "json", "txt")
_KEYS = ("label", "class", "cls", "target", "category", "class_name")
# A label that is longer is none.
_LONGEST_LABEL = 1 << 20
# Counts changes of what is read out of the same tar.
_READING = "1"


@dataclass(frozen=True, slots=True)
class TarIndex:
    """One tar's images, in the order of their first members.

    Attributes:
        names: of the members, as `PackedTexts.packed` gives them.
        offsets, sizes: int64 [N], of each image in the tar, in bytes.
        labels: int64 [N], each an index into `classes`.
        classes: all labels that occur.
        faults: (what is wrong, the member or sample).
        unused: suffixes of members that are neither images nor labels, in order.
    """

    names: tuple[UInt8Array, UInt64Array]
    offsets: Int64Array
    sizes: Int64Array
    labels: Int64Array
    classes: tuple[str, ...]
    faults: tuple[tuple[str, str], ...]
    unused: tuple[str, ...]


def tar_index(path: Path, key: str) -> TarIndex:
    """Of the tar at `path`, or as the cache knows it.

    Args:
        key: of the label in a sample's .json; "" for a usual one.

    Raises:
        OSError: it cannot be read.
        tarfile.TarError: it is damaged or compressed.
    """
    found = noted(path, f"tar {_READING} {key}", partial(_read_tar, path, key))
    texts = json.loads(found["texts"].tobytes())
    return TarIndex(
        names=(found["names"], found["name_ends"]),
        offsets=found["offsets"],
        sizes=found["sizes"],
        labels=found["labels"],
        classes=tuple(texts["classes"]),
        faults=tuple((what, where) for what, where in texts["faults"]),
        unused=tuple(texts["unused"]),
    )


@dataclass(slots=True)
class _Sample:
    """The members of one name: images as (member's name, offset, size), labels by suffix."""

    images: list[tuple[str, int, int]] = field(default_factory=list)
    labels: dict[str, bytes] = field(default_factory=dict)


def _read_tar(path: Path, key: str) -> Mapping[str, NDArray[Any]]:
    samples: dict[str, _Sample] = {}
    unused: set[str] = set()
    faults: list[tuple[str, str]] = []
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if not member.isreg() or member.issparse():
                if is_image_name(member.name) and not member.isdir():
                    faults.append(("a link or a sparse file", member.name))
                continue
            folder, _, base = member.name.rpartition("/")
            if base.startswith("."):  # what macOS adds
                continue
            stem, _, suffix = base.partition(".")
            sample = samples.setdefault(f"{folder}/{stem}" if folder else stem, _Sample())
            suffix = suffix.lower()
            if is_image_name(base):
                sample.images.append((member.name, member.offset_data, member.size))
            elif suffix in _LABELS and member.size <= _LONGEST_LABEL:
                sample.labels[suffix] = os.pread(file.fileno(), member.size, member.offset_data)
            else:
                unused.add(f".{suffix}")
            tar.members = []  # type: ignore[attr-defined]  # it would keep every header
        _check_end(file.fileno(), tar.offset)
    names, places, classes = PackedTexts(), list[tuple[int, int, int]](), dict[str, int]()
    for stem, sample in samples.items():
        if len(sample.images) == 1:
            (name, offset, size), label = sample.images[0], _label(sample, key)
            if label is None:
                expected = f"a json with the key {key}" if key else ", ".join(_LABELS)
                faults.append((f"without a label ({expected})", stem))
                continue
            names.append(name)
            places.append((offset, size, classes.setdefault(label, len(classes))))
        elif sample.images:
            faults.append(("several images under one name", stem))
        elif sample.labels:
            faults.append(("a label without an image", stem))
    content, ends = names.packed()
    columns = np.array(places, np.int64).reshape(-1, 3).T
    texts = {"classes": list(classes), "faults": faults, "unused": sorted(unused)}
    return {
        "names": content,
        "name_ends": ends,
        **dict(zip(("offsets", "sizes", "labels"), columns, strict=True)),
        "texts": np.frombuffer(json.dumps(texts).encode(), np.uint8),
    }


def _check_end(handle: int, offset: int) -> None:
    """A tar ends with zeros; anything else there is a header that `tarfile` took for the end."""
    if any(os.pread(handle, tarfile.BLOCKSIZE, offset)):
        raise tarfile.ReadError(f"damaged at byte {offset:,}")


def _label(sample: _Sample, key: str) -> str | None:
    """The class, or None."""
    for suffix in ("json",) if key else _LABELS:
        content = sample.labels.get(suffix)
        if content is None:
            continue
        text = content.decode("utf-8-sig", "surrogateescape").strip()
        return (_json_label(text, key) if suffix == "json" else text) or None
    return None


def _json_label(text: str, key: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if isinstance(value, dict):
        value = value.get(key or next((usual for usual in _KEYS if usual in value), ""))
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
