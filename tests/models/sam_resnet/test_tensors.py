"""The network's own tensors are those of the exported graph: the same names, and the same values."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from samdeploy.backends.onnxruntime.session import emulate_all
from samdeploy.bundle.spec import Preprocessing, model_spec
from samdeploy.models import Exported, build_model
from samdeploy.models.graph import Normalize
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model
from samdeploy.models.sam_resnet.tensors import folded_tensors


@pytest.mark.parametrize(("arch", "gate"), [("sam-resnet18", "original"), ("sam-resnet50", "identity")])
def test_every_tensor_is_the_graphs(arch: str, gate: str) -> None:
    torch.manual_seed(3)
    spec = model_spec(arch, {"gate": gate}, ("a", "b", "c"), Preprocessing(64, 32))
    model = build_model(arch, 3, {"gate": gate}).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".sl." in name:
                torch.nn.init.normal_(parameter, std=0.2 / parameter.shape[0] ** 0.5)
    images = np.random.default_rng(4).integers(0, 256, (2, 64, 32, 3), dtype=np.uint8)
    net = fold(model)
    graph = graph_from_model(net, spec, "fp32")
    found = folded_tensors(net, Normalize(spec.preprocessing), torch.from_numpy(images))
    with torch.inference_mode():
        trained = Exported(model, spec)(torch.from_numpy(images)).numpy()
    assert np.abs(found["logits"].numpy() - trained).max() < 1e-4 * np.ptp(trained)

    names = [output for node in graph.graph.node for output in node.output]
    assert list(found) == names
    del graph.graph.output[:]
    graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    for name, expected in zip(names, emulate_all(graph.SerializeToString(), images), strict=True):
        value = found[name].numpy()
        assert value.shape == expected.shape, name
        assert np.abs(value - expected).max() <= 1e-4 * np.ptp(expected), name
