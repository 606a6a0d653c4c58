"""A small bundle that is written file by file, and ways to change it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samdeploy.bundle import open_bundle
from samdeploy.bundle.manifest import BundleFile, DataRecord, Manifest, manifest_bytes
from samdeploy.bundle.measured import Measured, MeasuredSplit
from samdeploy.bundle.names import MANIFEST
from samdeploy.bundle.spec import Preprocessing, model_spec
from samdeploy.errors import BundleError

SPEC = model_spec("sam-resnet18", {"gate": "identity"}, ("cat", "Löwe"), Preprocessing(4, 5))
DATA = DataRecord("digits", {"level": "variant", "cut": True}, 0.1, 7, {"test": 3}, {"test": "ab" * 32})
PROVENANCE = {"samdeploy": "0.1.0", "torch": "2.9.0"}

IMAGES = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
LOGITS = np.array([[1.5, -2.0], [0.25, 1e-3]], dtype=np.float32)


def npy(array: np.ndarray[Any, Any], *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def entry(role: str, path: str, content: bytes, **fields: Any) -> BundleFile:
    return BundleFile(role, path, hashlib.sha256(content).hexdigest(), len(content), **fields)


CONTENTS = {
    "weights.safetensors": b"the weights",
    "graphs/fp32.onnx": b"the graph",
    "engines/a.plan": b"the engine",
    "golden/images.npy": npy(IMAGES),
    "golden/logits.npy": npy(LOGITS),
}
FILES = (
    entry("weights", "weights.safetensors", b"the weights"),
    entry("graph", "graphs/fp32.onnx", b"the graph", precision="fp32"),
    entry(
        "engine",
        "engines/a.plan",
        b"the engine",
        backend="tensorrt",
        precision="fp16",
        built_for={"runtime": "tensorrt"},
    ),
    entry("golden_images", "golden/images.npy", CONTENTS["golden/images.npy"]),
    entry("golden_logits", "golden/logits.npy", CONTENTS["golden/logits.npy"]),
)
_SPLIT = MeasuredSplit(97.25, 144, "cd" * 32, "ef" * 32)
MEASURED = Measured("01" * 32, "23" * 32, 5, _SPLIT, None)
SOUND = Manifest(SPEC, FILES, DATA, PROVENANCE)


def write_bundle(root: Path, manifest: Manifest = SOUND, contents: dict[str, bytes] = CONTENTS) -> Path:
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / MANIFEST).write_bytes(manifest_bytes(manifest))
    return root


def edit(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the parsed manifest in place."""
    values = json.loads((root / MANIFEST).read_bytes())
    change(values)
    (root / MANIFEST).write_text(json.dumps(values))


def refusal(root: Path) -> str:
    """The text with which `open_bundle` refuses, without the part that names the file."""
    with pytest.raises(BundleError) as caught:
        open_bundle(root)
    text = str(caught.value)
    assert str(root) in text.split(": ")[0]
    return text.removeprefix(f"{root / MANIFEST}: ").removeprefix(f"bundle {root}: ")


def to_symlink(file: Path) -> None:
    file.rename(file.with_suffix(".real"))
    file.symlink_to(file.with_suffix(".real").name)
