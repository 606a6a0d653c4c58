"""What both clocks are given: one graph, images, and how the engine is to be opened."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from samdeploy.bundle.spec import ModelSpec, Preprocessing, model_spec

CLASSES = tuple(map(str, range(100)))
# Pauses before a turn, so that threads of the other, which spin for a while after a run, give the cores back.
PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Case:
    """A folder with `graph.onnx`, `images.npy` and `case.json`.

    Attributes:
        threads: of the engine; 0: the runtime's own number.
    """

    folder: str
    arch: str
    px: int
    threads: int

    @property
    def graph(self) -> Path:
        return Path(self.folder, "graph.onnx")

    @property
    def spec(self) -> ModelSpec:
        return model_spec(self.arch, {"gate": "identity"}, CLASSES, Preprocessing(self.px, self.px))

    def singles(self) -> list[np.ndarray]:
        """uint8 [1, px, px, 3] each."""
        images = np.load(Path(self.folder, "images.npy"))
        return [images[index : index + 1] for index in range(len(images))]


def make_case(folder: Path, arch: str, px: int, threads: int) -> Case:
    """Write graph and images; random weights whose batch norms hold plausible statistics."""
    import torch

    from samdeploy.graphs.edit import serialize
    from samdeploy.models import build_model
    from samdeploy.models.graph import Normalize
    from samdeploy.models.sam_resnet.fold import fold
    from samdeploy.models.sam_resnet.onnx import graph_from_model

    case = Case(str(folder), arch, px, threads)
    torch.manual_seed(0)
    coarse = torch.rand((16, 3, 5, 5))
    smooth = torch.nn.functional.interpolate(coarse, (px, px), mode="bilinear").permute(0, 2, 3, 1)
    noise = 0.1 * (torch.rand((16, px, px, 3)) - 0.5)
    images = ((smooth + noise).clamp(0, 1) * 255).round().to(torch.uint8).contiguous()
    net = build_model(arch, len(CLASSES), {"gate": "identity"})
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(Normalize(case.spec.preprocessing)(images))
    case.graph.write_bytes(serialize(graph_from_model(fold(net.eval()), case.spec)))
    np.save(folder / "images.npy", images.numpy())
    (folder / "case.json").write_text(json.dumps(asdict(case)))
    return case


def read_case(folder: Path) -> Case:
    return Case(**json.loads((folder / "case.json").read_text()))


def in_turns(theirs: Callable[[], float], ours: Callable[[], float], seconds: float) -> list[tuple[float, float]]:
    """Pairs (theirs, ours) of what two clocks say, who goes first alternating, until the time is over."""
    theirs(), ours()
    pairs: list[tuple[float, float]] = []
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        found = {}
        for clock in (theirs, ours) if len(pairs) % 2 else (ours, theirs):
            time.sleep(PAUSE_S)
            found[clock] = clock()
        pairs.append((found[theirs], found[ours]))
    return pairs
