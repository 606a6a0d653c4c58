"""Bundles that were changed on purpose, and one with an engine for the GPU of this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from samdeploy.bundle import Bundle
from samdeploy.manifest import BundleFile

AddFile = Callable[..., Bundle]


@pytest.fixture
def with_file(digits_bundle: Bundle, tmp_path: Path) -> AddFile:
    """`with_file(role, content, **fields)`: a copy of the bundle whose only file of `role` holds `content`."""

    def make(role: str, content: bytes, **fields: object) -> Bundle:
        root = tmp_path / "bundle"
        shutil.copytree(digits_bundle.root, root, dirs_exist_ok=True)
        (root / f"{role}.bin").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        file = dataclasses.replace(BundleFile(role, f"{role}.bin", digest, len(content)), **fields)  # type: ignore[arg-type]
        others = tuple(other for other in digits_bundle.files if other.role != role)
        return dataclasses.replace(digits_bundle, root=root, files=(*others, file))

    return make


@pytest.fixture(scope="session")
def engine_bundle(digits_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle with an FP16 engine for this machine's GPU, batch 2 to 4: smaller and larger ones need care."""
    from samdeploy.export.tensorrt import build_engine

    graph = digits_bundle.find("graph", precision="fp16")
    assert graph is not None
    built = build_engine(digits_bundle.read(graph), engine="trt", precision="fp16", batch=(2, 4, 4))
    root = tmp_path_factory.mktemp("engine") / "bundle"
    shutil.copytree(digits_bundle.root, root)
    (root / "engine.plan").write_bytes(built.plan)
    digest = hashlib.sha256(built.plan).hexdigest()
    file = BundleFile("engine", "engine.plan", digest, len(built.plan), "tensorrt", "fp16", built.built_for)
    return dataclasses.replace(digits_bundle, root=root, files=(*digits_bundle.files, file))
