"""Why a graph is not the network: the node at fault, or a network that magnifies rounding."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from samdeploy.export.departure import why_different
from tests.traced import changed_constant, images, torchvision_resnet18


def test_the_first_node_at_fault_is_named() -> None:
    network = torchvision_resnet18()
    wrong = changed_constant(network.graph, "layer2.0.conv2.weight", lambda array: 1.01 * array)
    text = why_different(dataclasses.replace(network, graph=wrong), images())
    assert text.startswith("the first node that departs is layer2.0.conv2, by ")


def test_a_right_graph_has_no_node_at_fault() -> None:
    network = torchvision_resnet18()
    assert why_different(network, images()) == "no tensor that a module gives departs before the logits do"


def test_a_network_that_magnifies_rounding_is_named() -> None:
    class Magnifying(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.tensor(1e4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.mean(dim=(2, 3)) + self.shift) - self.shift

    text = why_different(dataclasses.replace(torchvision_resnet18(), simple=Magnifying().eval()), images())
    assert text.startswith("PyTorch's own logits in float32 are ") and "magnifies rounding errors" in text
