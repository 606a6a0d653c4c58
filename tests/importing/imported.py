"""Small things to import: weights of a tiny network, and images of class folders."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from samdeploy.importing.importing import ImportOptions
from samdeploy.models import build_model
from samdeploy.models.preprocessing import Given

ARCH = "timm:test_resnet"
CLASSES = ("cat", "dog", "eel")
SIZE = 32


def state_of(arch: str = ARCH, classes: int = len(CLASSES)) -> dict[str, torch.Tensor]:
    """Weights of a network with this seed."""
    torch.manual_seed(0)
    return dict(build_model(arch, classes).state_dict())


def saved(path: Path, content: object) -> Path:
    """`content` as torch.save writes it."""
    torch.save(content, path)
    return path


def class_file(folder: Path, names: Sequence[str] = CLASSES) -> Path:
    """A file with one name a line."""
    path = folder / "classes.txt"
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def class_folders(root: Path, counts: Mapping[str, int]) -> Path:
    """`root/<class>/<number>.png`: noise, each image another, also in folders of other names."""
    random = np.random.default_rng(zlib.crc32(root.name.encode()))
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / name / f"{number}.png")
    return root


def options(source: Path, folder: Path, **others: object) -> ImportOptions:
    """Of a file of weights of `ARCH`, with `CLASSES`."""
    given: dict[str, object] = {"arch": ARCH, "given": Given(height=SIZE, width=SIZE), **others}
    if "classes" not in given:
        given["classes"] = class_file(folder)
    return ImportOptions(str(source), **given)  # type: ignore[arg-type]
