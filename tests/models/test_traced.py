"""Graphs that PyTorch's exporter writes, tidied: names, and what is refused."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from samdeploy.backends.onnxruntime.session import emulate
from samdeploy.bundle.spec import Preprocessing, model_spec
from samdeploy.errors import ExportError
from samdeploy.graphs.edit import serialize
from samdeploy.models.graph import Exported
from samdeploy.models.traced import graph_from_module

ROOT = Path(__file__).parents[2]
SPEC = model_spec("some:net", {}, ("a", "b"), Preprocessing(8, 8))


class Splitting(nn.Module):
    """Three nodes with several outputs in one module, and activations of several nodes and several uses."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.norm = nn.BatchNorm2d(16)
        self.gelu, self.relu = nn.GELU(), nn.ReLU()
        self.head = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.gelu(self.norm(self.conv(x)))
        for _ in range(3):
            left, right = y.chunk(2, dim=1)
            y = self.relu(left * right)
        logits: torch.Tensor = self.head(y.mean(dim=(2, 3)))
        return logits


def test_names_come_from_modules() -> None:
    torch.manual_seed(0)
    model = Splitting()
    nn.init.normal_(model.norm.bias)
    graph = graph_from_module(model.eval(), SPEC).graph
    names = [node.name for node in graph.node]
    tensors = [name for node in graph.node for name in node.output]
    assert len(set(tensors)) == len(tensors) and len(set(names)) == len(names)
    assert {"conv", "gelu.erf", "split", "split.2", "relu", "relu.3", "mul.3", "head"} <= set(names)
    assert {"split", "split.1", "logits"} <= set(tensors)
    assert {"conv.weight", "conv.bias", "head.weight"} <= {tensor.name for tensor in graph.initializer}


def test_control_flow_is_refused() -> None:
    class Deciding(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = x.mean(dim=(2, 3))
            return torch.cond(mean.sum() > 0, lambda y: y[:, :2] + 1, lambda y: y[:, :2] * 2, (mean,))

    with pytest.raises(ExportError, match="graph: some:net decides by what it sees"):
        graph_from_module(Deciding().eval(), SPEC)


def test_what_the_exporter_cannot_write_is_said_in_a_line() -> None:
    class Bessel(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x.mean(dim=(2, 3))[:, :2])

    with pytest.raises(ExportError, match=r"^graph: PyTorch cannot export some:net \(.*bessel_j0.*\)$"):
        graph_from_module(Bessel().eval(), SPEC)


class Distances(nn.Module):
    """What PyTorch's exporter of captured programs cannot write, and its older one can."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Conv2d(4, 4, 1))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(x)
        return self.head(torch.cdist(x, x).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def test_the_older_exporter_takes_over(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = Distances().eval()
    graph = graph_from_module(model, SPEC)
    assert "graph: written by PyTorch's older exporter, for the newer one failed (" in capsys.readouterr().err
    assert {"blocks.0.0", "blocks.0.1", "blocks.1", "head"} <= {node.name for node in graph.graph.node}
    pixels = np.random.default_rng(0).integers(0, 256, (7, 8, 8, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = Exported(model, SPEC)(torch.from_numpy(pixels)).numpy()
    for batch in (1, 2, 7):
        assert np.abs(emulate(serialize(graph), pixels[:batch]) - expected[:batch]).max() < 1e-5 * np.ptp(expected)


def test_a_branch_that_depends_on_the_image_is_not_taken_for_constant() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x if x.sum() > 0 else 2 * x).mean(dim=(2, 3))[:, :2]

    with pytest.raises(ExportError, match=r"^graph: PyTorch cannot export some:net"):
        graph_from_module(Branching().eval(), SPEC)


@pytest.mark.slow
def test_the_same_bytes_in_another_process() -> None:
    code = (
        "import sys, torch, hashlib\n"
        "from samdeploy.graphs.edit import serialize\n"
        "from tests.models.test_traced import SPEC, Splitting, graph_from_module\n"
        "torch.manual_seed(0)\n"
        "print(hashlib.sha256(serialize(graph_from_module(Splitting().eval(), SPEC))).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    torch.manual_seed(0)
    here = hashlib.sha256(serialize(graph_from_module(Splitting().eval(), SPEC))).hexdigest()
    assert there.splitlines()[-1] == here  # older versions of onnxscript print, too


def test_a_mean_over_height_and_width_is_a_pool() -> None:
    class Gate(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * x.mean((2, 3), keepdim=True)).mean((2, 3))

    model = graph_from_module(Gate().eval(), model_spec("timm:none", {}, ("r", "g", "b"), Preprocessing(8, 8)))
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("GlobalAveragePool") == 1
    assert operators.count("ReduceMean") == 1  # whose axes go: no pool does that
