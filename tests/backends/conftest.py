"""Bundles that were changed on purpose, and one with an engine for the GPU of this machine."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import Bundle
from samdeploy.bundle.manifest import BundleFile, DataRecord
from samdeploy.bundle.spec import Preprocessing, model_spec

AddFile = Callable[..., Bundle]


@pytest.fixture(scope="session")
def digits_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """SAM-ResNet-18 at 32x32, ten classes, graphs in FP32 and FP16: random weights, activations of a plausible size."""
    torch = pytest.importorskip("torch", reason="pip install 'samdeploy[export]'")
    pytest.importorskip("onnx", reason="pip install 'samdeploy[export]'")
    from samdeploy.export.fp16.convert import fp16_graph
    from samdeploy.export.pack import BundleWriter
    from samdeploy.graphs.edit import serialize
    from samdeploy.models import Exported, build_model, save_weights
    from samdeploy.models.sam_resnet.fold import fold
    from samdeploy.models.sam_resnet.onnx import graph_from_model

    torch.manual_seed(7)
    spec = model_spec("sam-resnet18", {"gate": "identity"}, tuple("0123456789"), Preprocessing(32, 32))
    model = build_model(spec.arch, len(spec.classes), spec.options)
    images = np.random.default_rng(3).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0  # the statistics of the one batch below
        Exported(model.train(), spec)(torch.from_numpy(images))
        logits = Exported(model.eval(), spec)(torch.from_numpy(images[:8])).numpy()
    root = tmp_path_factory.mktemp("digits") / "bundle"
    root.mkdir()
    writer = BundleWriter(root, spec, DataRecord("digits", {}, 0.1, 0, {}, {}), {})
    save_weights(model, root / "saved.safetensors")
    writer.add("weights", "weights.safetensors", (root / "saved.safetensors").read_bytes())
    writer.add_array("golden_images", "golden/images.npy", images[:8])
    writer.add_array("golden_logits", "golden/logits.npy", logits)
    fp32 = graph_from_model(fold(model), spec)
    for precision, graph in (("fp32", fp32), ("fp16", fp16_graph(fp32))):
        writer.add("graph", f"model.{precision}.onnx", serialize(graph), precision=precision)
    return writer.bundle()


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
    from samdeploy.backends import availability
    from samdeploy.export.tensorrt.build import build_engine

    reason = availability("tensorrt")
    if reason:
        pytest.skip(reason)

    graph = digits_bundle.find("graph", precision="fp16")
    assert graph is not None
    built = build_engine(digits_bundle.read(graph), engine="trt", precision="fp16", batch=(2, 4, 4))
    root = tmp_path_factory.mktemp("engine") / "bundle"
    shutil.copytree(digits_bundle.root, root)
    (root / "engine.plan").write_bytes(built.plan)
    digest = hashlib.sha256(built.plan).hexdigest()
    file = BundleFile("engine", "engine.plan", digest, len(built.plan), "tensorrt", "fp16", built.built_for)
    return dataclasses.replace(digits_bundle, root=root, files=(*digits_bundle.files, file))
