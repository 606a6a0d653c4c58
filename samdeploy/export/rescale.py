"""Head-room for FP16 by exact powers of two, at no cost when the network runs.

ReLU, max pooling and the mean commute with a positive factor, and a convolution absorbs one in its weights.  So every
tensor t of the folded network may be stored as ``t * 2**-k``, with ``k`` chosen per tensor, as long as

- a convolution's weights take ``2**(k_in - k_out)`` and its bias ``2**-k_out``,
- a gate's product obeys ``k_product = k_y + k_gate``,
- both sides of a skip's addition have the same ``k``; an identity skip therefore ties a stage's blocks together, while
  a convolution on the skip frees them,
- the head takes ``2**k`` back.

A power of two changes no bit of a significand: in FP32 the network computes the same logits, bit for bit, as long as
nothing over- or underflows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from samdeploy.export.headroom import TensorRange
from samdeploy.models import FoldedResNet
from samdeploy.models.fold import FoldedBlock

# Three bits below the end of FP16: pictures that were not among the measured ones may give larger values.
TARGET = 2.0**13
# Largest weight after scaling; half of the range, so that rounding cannot leave it.
MAX_WEIGHT = 2.0**15
# Weights whose largest lies below this lose their smaller ones: FP16 is exact down to 2^-14.
SMALL_WEIGHT = 2.0**-6


@dataclass(frozen=True, slots=True)
class BlockScale:
    """Exponents k of one block: its stored tensors are the true ones times 2**-k.

    Attributes:
        stream_in, stream_out: the sum before the block and after it.
        hidden: after each convolution but the last.
        output: after the last convolution; `output + gate == stream_out`.
        gate: the channel weights.
    """

    stream_in: int
    hidden: tuple[int, ...]
    output: int
    gate: int
    stream_out: int


@dataclass(frozen=True, slots=True)
class Scales:
    """Exponents of the whole network; all zero where there is room enough."""

    stem: int
    blocks: Mapping[str, BlockScale]

    def exponents(self) -> dict[str, int]:
        """k of every tensor of the graph that is scaled, by the tensor's name."""
        found = dict.fromkeys(("stem", "stem.relu", "maxpool"), self.stem)
        stream = self.stem
        for name, scale in self.blocks.items():
            for index, k in enumerate(scale.hidden, start=1):
                found |= {f"{name}.conv{index}": k, f"{name}.conv{index}.relu": k}
            found |= {f"{name}.conv{len(scale.hidden) + 1}": scale.output, f"{name}.gate": scale.gate}
            # A bottleneck (three convolutions) takes the mean before the last one, a basic block after it.
            found[f"{name}.mean"] = scale.hidden[-1] if len(scale.hidden) == 2 else scale.output
            stream = scale.stream_out
            found |= dict.fromkeys((f"{name}.{part}" for part in ("gated", "downsample", "sum", "relu")), stream)
        found |= {"pool": stream, "flatten": stream}
        return {name: k for name, k in found.items() if k}


def choose_scales(net: FoldedResNet, ranges: Iterable[TensorRange]) -> Scales:
    """The smallest exponents that bring every measured tensor below `TARGET` and every weight below `MAX_WEIGHT`.

    Args:
        net: the folded network.
        ranges: of its FP32 graph, from `measure_ranges`.
    """
    largest = {row.name: row.max_abs for row in ranges}
    blocks: dict[str, BlockScale] = {}
    stem = max(0, _need(largest, "stem", "stem.relu"), _floor(net.stem, 0))
    stream = stem
    for group in _tied(net.blocks()):
        to_stem = not blocks and group[0][1].downsample is None
        chosen, stream = _choose_group(group, stream, largest, to_stem=to_stem)
        blocks |= chosen
        if to_stem:
            stem = stream
    return Scales(stem, blocks)


@torch.no_grad()
def rescale(net: FoldedResNet, scales: Scales) -> FoldedResNet:
    """`net` with its tensors stored as `scales` says; the same function, and `net` itself is left as it is."""
    scaled = copy.deepcopy(net)
    _scale(scaled.stem, 0, scales.stem)
    stream = scales.stem
    for name, block in scaled.blocks():
        scale = scales.blocks[name]
        stored = (scale.stream_in, *scale.hidden, scale.output)
        for conv, k_in, k_out in zip(block.convs, stored, stored[1:], strict=False):
            _scale(conv, k_in, k_out)
        _scale(block.gate, scale.output if block.gate_reads_output else scale.hidden[-1], scale.gate)
        if block.downsample is not None:
            _scale(block.downsample, scale.stream_in, scale.stream_out)
        stream = scale.stream_out
    # The logits themselves are not scaled.
    scaled.head.weight.mul_(2.0**stream)
    return scaled


def _scale(conv: nn.Module, k_in: int, k_out: int) -> None:
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    conv.weight.mul_(2.0 ** (k_in - k_out))
    conv.bias.mul_(2.0**-k_out)


def _tied(blocks: list[tuple[str, FoldedBlock]]) -> list[list[tuple[str, FoldedBlock]]]:
    """Runs of blocks whose sums must share one exponent: a new run starts at each convolution on a skip."""
    groups: list[list[tuple[str, FoldedBlock]]] = []
    for name, block in blocks:
        if block.downsample is not None or not groups:
            groups.append([])
        groups[-1].append((name, block))
    return groups


def _choose_group(
    group: list[tuple[str, FoldedBlock]], stream_in: int, largest: Mapping[str, float], *, to_stem: bool
) -> tuple[dict[str, BlockScale], int]:
    """Exponents of blocks that share one sum, and that sum's; `to_stem`: it is also the stem's."""
    out = stream_in if to_stem else 0
    while True:  # ends: `out` only grows, and stops once the largest tensor fits
        stream = out if to_stem else stream_in
        chosen: dict[str, BlockScale] = {}
        for name, block in group:
            chosen[name] = _smallest(name, block, stream, largest)
            stream = out
        wanted = max(scale.stream_out for scale in chosen.values())
        if wanted <= out:
            return {name: _spread(name, block, chosen[name], out, largest) for name, block in group}, out
        out = wanted


def _smallest(name: str, block: FoldedBlock, stream: int, largest: Mapping[str, float]) -> BlockScale:
    """The smallest exponents of one block by itself; `stream_out` is what it needs at least."""
    *inner, last = block.convs
    hidden: list[int] = []
    for index, conv in enumerate(inner, start=1):
        tensor = f"{name}.conv{index}"
        hidden.append(max(0, _need(largest, tensor, f"{tensor}.relu"), _floor(conv, hidden[-1] if hidden else stream)))
    output = max(0, _need(largest, f"{name}.conv{len(inner) + 1}"), _floor(last, hidden[-1]))
    # Below 0 where the gate is small: it may be stored larger than it is, so that the product needs no scaling.
    gate = max(_need(largest, f"{name}.gate"), _floor(block.gate, output if block.gate_reads_output else hidden[-1]))
    out = max(0, _need(largest, f"{name}.gated", f"{name}.sum", f"{name}.downsample"), output + gate)
    if block.downsample is not None:
        out = max(out, _floor(block.downsample, stream))
    return BlockScale(stream, tuple(hidden), output, gate, out)


def _spread(name: str, block: FoldedBlock, scale: BlockScale, out: int, largest: Mapping[str, float]) -> BlockScale:
    """Give the gate what is left of the sum's exponent; then even out, while the gate or its weights are small."""
    output, gate = scale.output, out - scale.output
    y, g = largest.get(f"{name}.conv{len(scale.hidden) + 1}", 0.0), largest.get(f"{name}.gate", 0.0)
    weight = float(block.gate.weight.detach().abs().max())

    def small() -> bool:
        mean = output if block.gate_reads_output else scale.hidden[-1]
        return gate > 0 or weight * 2.0 ** (mean - gate) < SMALL_WEIGHT

    while y * 2.0**-output > g * 2.0**-gate > 0 and small():
        output, gate = output + 1, gate - 1
    return BlockScale(scale.stream_in, scale.hidden, output, gate, out)


def _need(largest: Mapping[str, float], *names: str) -> int:
    """The exponent that brings the largest of these tensors to `TARGET`; negative where it is below."""
    value = max(largest.get(name, 0.0) for name in names)
    return math.ceil(math.log2(value / TARGET)) if value > 0 else 0


def _floor(conv: nn.Module, k_in: int) -> int:
    """The smallest k_out for which the weights, times 2**(k_in - k_out), stay within `MAX_WEIGHT`."""
    assert isinstance(conv, nn.Conv2d)
    value = float(conv.weight.detach().abs().max())
    return k_in + math.ceil(math.log2(value / MAX_WEIGHT)) if value > 0 else k_in
