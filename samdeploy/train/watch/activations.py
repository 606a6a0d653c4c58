"""What the gates and activations look like after each epoch: `gates.csv`, and an early word about FP16.

Activations may grow over training until FP16, which ends at 65,504, cannot hold them; those of attention without
squashing do, which is quadratic in its input.  A few validation images show it long before the export.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from samdeploy.models.family import Stage
from samdeploy.models.registry import family_of
from samdeploy.train.loop.measure import Split
from samdeploy.train.watch.history import GateRow

IMAGES = 128  # as many as the export measures its head-room on
FP16_MAX = 65504.0
# Bits below FP16's end from which on the export rescales tensors; see `samdeploy.export.fp16.headroom`.
TIGHT_BITS = 3.0
_SMALLEST = 2.0**-24  # FP16's smallest number


class _Watch:
    """Looks at one stage while the network runs; its tensors stay on the device until the end."""

    def __init__(self, stage: Stage) -> None:
        self.largest: list[torch.Tensor] = []
        self._name = stage.name
        self._gates: list[torch.Tensor] = []
        self._added = dict(stage.gates)
        self.handles: list[RemovableHandle] = [module.register_forward_hook(self._gate) for module, _ in stage.gates]
        self.handles += [module.register_forward_hook(self._activation) for module in stage.activations]

    def _gate(self, module: nn.Module, _: object, output: torch.Tensor) -> None:
        self._gates.append((output + self._added[module]).double().flatten())

    def _activation(self, _: nn.Module, __: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            self.largest.append(output.abs().amax())

    def row(self, epoch: int) -> GateRow:
        # Finite and above zero, so that the row can stand in JSON.
        largest = float(torch.stack(self.largest).amax().nan_to_num().clamp(min=_SMALLEST))
        bits = math.log2(FP16_MAX / largest)
        if not self._gates:
            return GateRow(epoch, self._name, None, None, None, None, largest, bits)
        gates = torch.cat(self._gates)
        figures = torch.stack([gates.mean(), gates.std(correction=0), gates.amin(), gates.amax()])
        mean, sd, low, high = figures.tolist()
        return GateRow(epoch, self._name, mean, sd, low, high, largest, bits)


@torch.inference_mode()
def measure_activations(arch: str, model: nn.Module, split: Split, epoch: int) -> list[GateRow]:
    """One row per stage, over up to 128 images spread evenly over the split, in eval mode and float32.

    Args:
        arch: of `model`; its family says what to look at.
    """
    model.eval()
    every = split.stored.batches(len(split.stored))[0]
    rows = every[:: max(1, len(every) // IMAGES)][:IMAGES]
    watches = [_Watch(stage) for stage in (family_of(arch).stages or top_level_stages)(model)]
    try:
        for part in torch.split(rows, 32):  # small, so that this never needs more memory than training does
            images, _ = split.stored.take(part)
            model(split.normalize(images))
    finally:
        for handle in (handle for watch in watches for handle in watch.handles):
            handle.remove()
    return [watch.row(epoch) for watch in watches if watch.largest]  # some parts are only there to be trained


def top_level_stages(model: nn.Module) -> list[Stage]:
    """The parts of a network that are made of parts themselves, with the outputs of all modules in them."""
    children = [(name, child) for name, child in model.named_children() if any(True for _ in child.parameters())]
    return [Stage(name, list(child.modules())) for name, child in children if any(True for _ in child.children())]


def headroom_warning(rows: Sequence[GateRow], cure: str = "") -> str | None:
    """A sentence where FP16 will be tight, about the stage with the largest activation.

    Args:
        cure: of the network's family.
    """
    row = max(rows, key=lambda row: row.largest)
    if row.headroom_bits >= TIGHT_BITS:
        return None
    where = f"the largest activation is {row.largest:,.0f} in {row.stage}"
    if row.headroom_bits < 0:
        cures = "; ".join(filter(None, ("clip the gradient (training.clip_norm=1)", "decay the weights", cure)))
        return (
            f"note: {where}, beyond FP16's end of 65,504; an FP16 export will have to rescale it. To keep activations "
            f"smaller: {cures}"
        )
    return (
        f"note: {where}, {row.headroom_bits:.1f} bits below FP16's end; an FP16 export will rescale where fewer than "
        f"{TIGHT_BITS:.0f} are left"
    )
