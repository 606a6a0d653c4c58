"""A small bundle to be damaged, and the two readers that must refuse it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samdeploy.backends import open_session
from samdeploy.bundle import open_bundle
from samdeploy.bundle.manifest import BundleFile, DataRecord, Manifest, manifest_bytes
from samdeploy.bundle.names import MANIFEST
from samdeploy.bundle.spec import Preprocessing, model_spec
from samdeploy.errors import BackendUnavailable, BundleError
from tests.cpp.conftest import Probe, built, probe

__all__ = ["built", "probe"]

# What a reader says: the C++ library's status (Python: the class of the error), and the text.
Reader = Callable[..., tuple[object, str]]


def npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bundle whose every byte is right but for the graph, which is none: a runtime that sees it will say so."""
    root = tmp_path / "bundle"
    contents = {
        ("graph", "graphs/fp32.onnx", "fp32"): b"no graph at all",
        ("weights", "weights.safetensors", None): b"no weights, too",
        ("golden_images", "golden/images.npy", None): npy(np.arange(120, dtype=np.uint8).reshape(2, 4, 5, 3)),
        ("golden_logits", "golden/logits.npy", None): npy(np.array([[1.5, -2.0], [0.25, 1e-3]], np.float32)),
    }
    files = []
    for (role, path, precision), content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files.append(BundleFile(role, path, digest, len(content), precision=precision))
    spec = model_spec("sam-resnet18", {"gate": "identity"}, ("cat", "Löwe"), Preprocessing(4, 5))
    data = DataRecord("digits", {"level": "variant"}, 0.1, 7, {"test": 3}, {"test": "ab" * 32})
    (root / MANIFEST).write_bytes(manifest_bytes(Manifest(spec, tuple(files), data, {"samdeploy": "0.1.0"})))
    return root


@pytest.fixture(params=["python", "cpp"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """`reader(root)`: open the bundle with OpenVINO; no runtime may see a byte unless `runtime=True` is said."""
    if request.param == "python":
        ov = pytest.importorskip("openvino", reason="pip install 'samdeploy[openvino]'")

        def python(root: Path, *, runtime: bool = False) -> tuple[object, str]:
            if not runtime:
                monkeypatch.setattr(ov, "Core", lambda: pytest.fail("the runtime was asked before the bundle was safe"))
            try:
                open_session(open_bundle(root), "openvino").close()
            except (BundleError, BackendUnavailable) as error:
                return type(error), str(error)
            return None, ""

        return python
    ask: Probe = request.getfixturevalue("probe")

    def cpp(root: Path, *, runtime: bool = False) -> tuple[object, str]:
        status, used, text = ask("open", root, "fp32").stdout.split("\n", 2)
        assert runtime or used == "0", "the runtime was asked before the bundle was safe"
        return int(status), text.rstrip()

    return cpp
