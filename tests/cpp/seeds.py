"""What fuzzing starts from: files of real encoders, so that a mutation of one reaches beyond the first check."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samdeploy.bundle.manifest import BundleFile, DataRecord, Manifest, manifest_bytes
from samdeploy.bundle.spec import RESIZES, Preprocessing, model_spec
from tests.cpp import corpus

TARGETS = ("manifest", "jpeg", "png", "orientation", "npy", "bundle")
# Larger images only make a run slower.
_LARGEST = 6000


def write(folder: Path) -> dict[str, Path]:
    """Write the seeds of every target below `folder`; gives their folders."""
    seeds = {
        "manifest": _manifests(),
        "jpeg": [data for _, data in corpus.jpegs() if len(data) <= _LARGEST],
        "png": [data for _, data in corpus.pngs() if len(data) <= _LARGEST],
        "orientation": _orientations(),
        "npy": [_npy(np.zeros(shape, dtype)) for shape in ((2, 4, 5, 3), (1, 4, 5, 3)) for dtype in ("|u1", "<f4")],
        "bundle": [_bundle()],
    }
    for target, contents in seeds.items():
        (folder / target).mkdir(parents=True)
        for index, content in enumerate(contents):
            (folder / target / f"{index:03}").write_bytes(content)
    return {target: folder / target for target in seeds}


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


_ROLES = (("golden_images", "images.npy", None), ("golden_logits", "logits.npy", None), ("graph", "graph.onnx", "fp32"))


def _manifest() -> bytes:
    files = tuple(
        BundleFile(role, path, f"{index:064x}", 900000 + index, precision=precision)
        for index, (role, path, precision) in enumerate(_ROLES, 1)
    )
    spec = model_spec("sam-resnet18", {"gate": "identity"}, ("cat", "Löwe"), Preprocessing(4, 5), "Apache-2.0")
    data = DataRecord("digits", {"level": "variant"}, 0.1, 7, {"test": 3}, {"test": "ab" * 32})
    return manifest_bytes(Manifest(spec, files, data, {"samdeploy": "0.1.0"}))


def _manifests() -> list[bytes]:
    """One in several spellings of JSON, and JSON that is none."""
    whole = json.loads(_manifest())
    changes = {"fit": "center_crop", "resize_short": 9, "crop": "half-even", "resize": RESIZES["bicubic"]}
    crop = {**whole, "preprocessing": {**whole["preprocessing"], **changes}}
    return [
        _manifest(),
        json.dumps(whole, ensure_ascii=True, separators=(",", ":")).encode(),
        json.dumps(crop, indent=1).encode(),
        b'{"a": [1, -2.5e10, true, null, "\\u00e9\\ud83d\\ude00"], "b": {"c": {}}}',
    ]


def _orientations() -> list[bytes]:
    found = []
    for order in "<>":
        for kind in (1, 3, 4):
            exif = b"Exif\0\0" + corpus.tiff_orientation(6, order=order, kind=kind)
            found.append(bytes([len(exif)]) + exif + b'<x tiff:Orientation="5"/>')
    return [*found, b"\0<tiff:Orientation>7</tiff:Orientation>"]


def _bundle() -> bytes:
    """Manifest and files; "@n" and "#n" stand for hash and length of file n (cpp/tests/fuzz/targets.cpp)."""
    manifest = _manifest().decode()
    for index in range(1, len(_ROLES) + 1):
        manifest = manifest.replace(f"{index:064x}", f"@{index}").replace(str(900000 + index), f"#{index}")
    logits = np.array([[1.5, -2.0], [0.25, 1e-3]], np.float32)
    images = np.arange(120, dtype=np.uint8).reshape(2, 4, 5, 3)
    parts = (manifest.encode(), _npy(images), _npy(logits), b"no graph at all")
    return b"".join(len(part).to_bytes(3, "little") + part for part in parts)
