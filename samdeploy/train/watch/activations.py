"""What the gates and activations look like after each epoch: `gates.csv`, and an early word about FP16.

Attention without squashing is quadratic in its input, so activations may grow over training until FP16, which ends at
65,504, cannot hold them.  A few validation pictures show it long before the export.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from samdeploy.files import write_atomic
from samdeploy.models import SamResNet
from samdeploy.models.sam_resnet.attention import StreamlinedAttention
from samdeploy.train.loop.batches import Pictures

GATES_FILE = "gates.csv"
PICTURES = 128  # as many as the export measures its head-room on
FP16_MAX = 65504.0
# Bits below FP16's end from which on the export rescales tensors; see `samdeploy.export.fp16.headroom`.
TIGHT_BITS = 3.0
_SMALLEST = 2.0**-24  # FP16's smallest number


@dataclass(frozen=True, slots=True)
class GateRow:
    """One stage after one epoch; the fields are the columns of gates.csv.

    Attributes:
        epoch: counted from 1.
        stage: "layer1" to "layer4".
        gate_mean, gate_sd, gate_min, gate_max: of the factors that the stage's attention multiplies channels with, over
            pictures, channels and modules; None in a network without attention.
        largest: largest absolute activation in the stage.
        headroom_bits: powers of two between that and FP16's end; negative where it is beyond.
    """

    epoch: int
    stage: str
    gate_mean: float | None
    gate_sd: float | None
    gate_min: float | None
    gate_max: float | None
    largest: float
    headroom_bits: float


COLUMNS = tuple(field.name for field in dataclasses.fields(GateRow))


class _Watch:
    """Sums over one stage's tensors, kept on the device until the end."""

    def __init__(self) -> None:
        self.gates: list[torch.Tensor] = []
        self.largest: list[torch.Tensor] = []

    def gate(self, module: StreamlinedAttention) -> Callable[[nn.Module, object, torch.Tensor], None]:
        one = 1.0 if module.gate == "identity" else 0.0

        def hook(_: nn.Module, __: object, output: torch.Tensor) -> None:
            self.gates.append((output + one).double().flatten())

        return hook

    def activation(self, _: nn.Module, __: object, output: torch.Tensor) -> None:
        self.largest.append(output.abs().amax())

    def row(self, epoch: int, stage: str) -> GateRow:
        # Finite and above zero, so that the row can stand in JSON.
        largest = float(torch.stack(self.largest).amax().nan_to_num().clamp(min=_SMALLEST))
        bits = math.log2(FP16_MAX / largest)
        if not self.gates:
            return GateRow(epoch, stage, None, None, None, None, largest, bits)
        gates = torch.cat(self.gates)
        figures = torch.stack([gates.mean(), gates.std(correction=0), gates.amin(), gates.amax()])
        mean, sd, low, high = figures.tolist()
        return GateRow(epoch, stage, mean, sd, low, high, largest, bits)


@torch.inference_mode()
def measure_activations(model: SamResNet, normalize: nn.Module, pictures: Pictures, epoch: int) -> list[GateRow]:
    """One row per stage, over up to 128 pictures spread evenly over the split, in eval mode and float32.

    Watched are the outputs of batch norms, attention and blocks: what an exported network has, too (a convolution's own
    output vanishes when the batch norm is folded into it).
    """
    model.eval()
    every = pictures.batches(len(pictures))[0]
    rows = every[:: max(1, len(every) // PICTURES)][:PICTURES]
    watches = {f"layer{number}": _Watch() for number in range(1, 5)}
    handles: list[RemovableHandle] = []
    try:
        for (_, watch), stage in zip(watches.items(), model.stages(), strict=True):
            handles += [block.register_forward_hook(watch.activation) for block in stage]
            for module in stage.modules():
                if isinstance(module, StreamlinedAttention) and module.gate != "none":
                    handles.append(module.fc.register_forward_hook(watch.gate(module)))
                if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm | StreamlinedAttention):
                    handles.append(module.register_forward_hook(watch.activation))
        for part in torch.split(rows, 32):  # small, so that this never needs more memory than training does
            images, _ = pictures.take(part)
            model(normalize(images))
    finally:
        for handle in handles:
            handle.remove()
    return [watch.row(epoch, stage) for stage, watch in watches.items()]


def headroom_warning(rows: Sequence[GateRow]) -> str | None:
    """A sentence where FP16 will be tight, about the stage with the largest activation."""
    row = max(rows, key=lambda row: row.largest)
    if row.headroom_bits >= TIGHT_BITS:
        return None
    where = f"the largest activation is {row.largest:,.0f} in {row.stage}"
    if row.headroom_bits < 0:
        return (
            f"note: {where}, beyond FP16's end of 65,504; an FP16 export will have to rescale it. A clipped gradient "
            "(training.clip_norm=1), weight decay or model.gate=identity keep activations smaller"
        )
    return (
        f"note: {where}, {row.headroom_bits:.1f} bits below FP16's end; an FP16 export will rescale where fewer than "
        f"{TIGHT_BITS:.0f} are left"
    )


def write_gates(path: Path, rows: Sequence[GateRow]) -> None:
    """All rows as CSV, atomically; an empty cell where there is no gate."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in dataclasses.astuple(row))
    write_atomic(path, text.getvalue().encode())


def read_gates(path: Path) -> list[GateRow]:
    """The rows of gates.csv; [] where there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8-sig") as file:
        return [_row(line) for line in csv.DictReader(file)]


def _row(line: dict[str, str]) -> GateRow:
    mean, sd, low, high = (float(line[name]) if line[name] else None for name in COLUMNS[2:6])
    return GateRow(
        int(line["epoch"]), line["stage"], mean, sd, low, high, float(line["largest"]), float(line["headroom_bits"])
    )
