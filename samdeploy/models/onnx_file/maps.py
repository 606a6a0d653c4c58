"""The features whose mean the head of a given file reads, computed by the file itself."""

from __future__ import annotations

import onnx.numpy_helper
import torch

from samdeploy.graphs.cam_head import NoMaps, find_head
from samdeploy.graphs.edit import constants
from samdeploy.models.family import FeaturesAndHead
from samdeploy.models.onnx_file.convert import float_graph
from samdeploy.models.onnx_file.given import GivenFile
from samdeploy.models.onnx_file.read import given_model


def features_and_head(content: bytes) -> FeaturesAndHead | None:
    """None where the file does not end in the mean of features and one linear layer, as far as is seen."""
    graph = float_graph(content)
    try:
        head = find_head(graph)
    except NoMaps:
        return None
    if head.features not in {name for node in given_model(content).graph.node for name in node.output}:
        return None  # a tensor that conversion made
    given = GivenFile(content, [head.features])
    known = {
        name: torch.from_numpy(onnx.numpy_helper.to_array(value).copy()) for name, value in constants(graph).items()
    }
    weight = known[head.weight] if head.transposed else known[head.weight].T
    bias = known[head.bias] if head.bias else torch.zeros(weight.shape[1])

    def features(x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W] -> [N, C, h, w]."""
        _, found = given.run(x.cpu().numpy())
        cells = torch.from_numpy(found).to(x.device)
        return cells.permute(0, 3, 1, 2) if head.channels_last else cells

    def logits(x: torch.Tensor) -> torch.Tensor:
        """float32 [..., C] -> [..., K]."""
        return x @ weight.to(x.device) + bias.to(x.device)

    return FeaturesAndHead(features, logits)
