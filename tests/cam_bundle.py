"""A bundle with class activation maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import Bundle, open_bundle


def write_cam_bundle(folder: Path) -> Bundle:
    """Write `folder/bundle`: SAM-ResNet-18 at 96x64, so that its maps have 3x2 cells; random weights, odd class names.

    The graph that classifies and the graph of class activation maps, in FP32.
    """
    torch = pytest.importorskip("torch", reason="pip install 'samdeploy[export]'")
    from samdeploy.bundle.manifest import DataRecord
    from samdeploy.bundle.spec import Preprocessing, model_spec
    from samdeploy.export.cam_graph import add_cam_graph
    from samdeploy.export.network import prepare_network
    from samdeploy.export.pack import BundleWriter
    from samdeploy.graphs.edit import serialize
    from samdeploy.models import Exported, build_model, save_weights

    torch.manual_seed(5)
    classes = ("T-shirt/top", "t-shirt top", "..", "Größe", "e")
    spec = model_spec("sam-resnet18", {"gate": "identity"}, classes, Preprocessing(96, 64))
    model = build_model(spec.arch, len(classes), spec.options)
    images = np.random.default_rng(3).integers(0, 256, (16, 96, 64, 3), dtype=np.uint8)
    # Blocks of a colour: pure noise looks the same everywhere, and so would its maps.
    images = images[:, ::16, ::16].repeat(16, axis=1).repeat(16, axis=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".sl." in name:  # it starts at zero, which would make every gate 1
                torch.nn.init.normal_(parameter, std=0.2 / parameter.shape[0] ** 0.5)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0  # the statistics of the one batch below
        Exported(model.train(), spec)(torch.from_numpy(images))
        logits = Exported(model.eval(), spec)(torch.from_numpy(images[:8])).numpy()
    root = folder / "bundle"
    root.mkdir()
    writer = BundleWriter(root, spec, DataRecord("digits", {}, 0.1, 0, {}, {}), {})
    save_weights(model, root.parent / "saved.safetensors")
    writer.add("weights", "weights.safetensors", (root.parent / "saved.safetensors").read_bytes())
    writer.add_array("golden_images", "golden/images.npy", images[:8])
    writer.add_array("golden_logits", "golden/logits.npy", logits)
    network = prepare_network(model, spec)
    writer.add("graph", "model.fp32.onnx", serialize(network.graph), precision="fp32")
    add_cam_graph(writer, network, images[:8])
    writer.write_manifest()
    return open_bundle(root)
