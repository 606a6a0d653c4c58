"""What can be done to a bundle: to its manifest, and to the files that this lists."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from samdeploy.bundle.names import MANIFEST

Damage = Callable[[Path], object]


def edit(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(root: Path) -> None:
        values = json.loads((root / MANIFEST).read_bytes())
        change(values)
        (root / MANIFEST).write_text(json.dumps(values, ensure_ascii=False))

    return damage


def path_of_graph(path: str) -> Damage:
    return edit(lambda values: values["files"][0].update(path=path))


def text(old: str, new: str | bytes) -> Damage:
    """Replace a piece of the manifest's text."""

    def damage(root: Path) -> None:
        content = (root / MANIFEST).read_bytes()
        assert content.count(old.encode()) >= 1
        (root / MANIFEST).write_bytes(content.replace(old.encode(), new.encode() if isinstance(new, str) else new, 1))

    return damage


def whole(change: Callable[[bytes], bytes]) -> Damage:
    return lambda root: (root / MANIFEST).write_bytes(change((root / MANIFEST).read_bytes()))


def linked(path: str, link: Callable[[Path, Path], object]) -> Damage:
    """Move a file or folder out of the bundle and put a link in its place."""

    def damage(root: Path) -> None:
        outside = root.parent / "outside"
        (root / path).rename(outside)
        link(root / path, outside)

    return damage


def pipe(root: Path) -> None:
    (root / "graphs/fp32.onnx").unlink()
    os.mkfifo(root / "graphs/fp32.onnx")


def folder_instead(root: Path) -> None:
    (root / "graphs/fp32.onnx").unlink()
    (root / "graphs/fp32.onnx").mkdir()


def content(path: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda root: (root / path).write_bytes(change((root / path).read_bytes()))


def swapped(root: Path) -> None:
    """Two files of the same length."""
    one, other = root / "graphs/fp32.onnx", root / "weights.safetensors"
    first, second = one.read_bytes(), other.read_bytes()
    assert len(first) == len(second)
    one.write_bytes(second), other.write_bytes(first)


def measured(**changes: Any) -> dict[str, Any]:
    """`measured` of a manifest, sound but for `changes` of val."""
    split = {"top1": 97, "images": 3, "images_sha256": "ab" * 32, "labelled_sha256": "cd" * 32}
    both = {"model_sha256": "01" * 32, "weights_sha256": "23" * 32, "epoch": 5}
    return {**both, "val": {**split, **changes}, "test": None}


def calibrated(**changes: Any) -> Damage:
    """`calibration` of a manifest, sound but for `changes`."""
    sound = {"temperature": 1.5, "images": 300, "nll_before": 0.5, "nll_after": 0.4, "ece_before": 3, "ece_after": 1}
    return edit(lambda values: values.update(calibration={**sound, **changes}))


def answered(**changes: Any) -> Damage:
    """`answered` of a manifest with two classes, sound but for `changes`."""
    sound = {"labels": [7, 3], "confidence": [0, 0, 0, 0, 0, 1, 1, 2, 3, 3]}
    return edit(lambda values: values.update(answered={**sound, **changes}))


def rejecting(**changes: Any) -> Damage:
    """`rejection` of a manifest, sound but for `changes`."""
    sound = {"threshold": 0.9, "wanted_error": 2, "bound": 1.9, "coverage": 80, "images": 300}
    return edit(lambda values: values.update(rejection={**sound, **changes}))
