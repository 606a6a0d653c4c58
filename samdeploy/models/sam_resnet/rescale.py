"""Head-room for FP16 by exact powers of two, at no cost when the network runs.

ReLU, max pooling and the mean commute with a positive factor, and a convolution absorbs one in its weights.  So every
tensor t of the folded network may be stored as ``t * 2**-k``, with ``k`` chosen per tensor, as long as

- a convolution's weights take ``2**(k_in - k_out)`` and its bias ``2**-k_out``,
- a gate's product obeys ``k_product = k_y + k_gate``; a bounded gate is not linear, so that its k is 0,
- both sides of a skip's addition have the same ``k``; an identity skip therefore ties a stage's blocks together, while
  a convolution on the skip frees them,
- the head takes ``2**k`` back.

A power of two changes no bit of a significand: in FP32 the network computes the same logits, bit for bit, as long as
nothing over- or underflows.

Activations say how large k must be at least.  Weights say how much larger it may better be: k moves their magnitude
too, and FP16 rounds them coarsely below 2**-14.  So once anything has to be scaled, each k is chosen, one after the
other, to round the weights on both sides of its tensor with the smallest error.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from samdeploy.models.sam_resnet.fold import FoldedBlock, FoldedResNet

FP16_MAX = torch.finfo(torch.half).max
# Three bits below the end of FP16: images that were not among the measured ones may give larger values.
TARGET = 2.0**13
# How far a tensor may be brought below `TARGET` for its weights' sake: its largest value stays above 2, fifteen bits
# above the smallest normal number.
SLACK = 12
# Two rounds of choosing each k in turn; a third changed nothing in any network that was tried.
ROUNDS = 2


@dataclass(frozen=True, slots=True)
class BlockScale:
    """Exponents k of one block: its stored tensors are the true ones times 2**-k.

    Attributes:
        stream_in, stream_out: the sum before the block and after it.
        hidden: after each convolution but the last.
        output: after the last convolution; the gate's k is `stream_out - output`.  Without a gate they are equal, and
            with a bounded one.
    """

    stream_in: int
    hidden: tuple[int, ...]
    output: int
    stream_out: int

    @property
    def gate(self) -> int:
        """Of the channel weights; below 0 where they are stored larger than they are."""
        return self.stream_out - self.output


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
            found[f"{name}.conv{len(scale.hidden) + 1}"] = scale.output
            # A bottleneck (three convolutions) takes the mean before the last one, a basic block after it.
            mean = scale.hidden[-1] if len(scale.hidden) == 2 else scale.output
            found |= dict.fromkeys((f"{name}.mean", f"{name}.flatten"), mean)
            found |= dict.fromkeys((f"{name}.gate", f"{name}.unsqueeze"), scale.gate)
            stream = scale.stream_out
            found |= dict.fromkeys((f"{name}.{part}" for part in ("gated", "downsample", "sum", "relu")), stream)
        found |= {"pool": stream, "flatten": stream}
        return {name: k for name, k in found.items() if k}


def choose_scales(net: FoldedResNet, largest: Mapping[str, float]) -> Scales:
    """Exponents that bring every measured tensor below `TARGET`; all zero where every one is below already.

    Args:
        net: the folded network.
        largest: absolute value of each tensor of its FP32 graph, measured on training images.
    """
    problem = _Problem(net, largest)
    k = {name: max(0, lowest) for name, lowest in problem.lowest.items()}
    if any(k.values()):
        problem.refine(k)
    blocks = {
        name: BlockScale(
            stream_in=k[problem.stream_in[name]],
            hidden=tuple(k[f"{name}.conv{i}"] for i in range(1, len(block.convs))),
            output=k[problem.output[name]],
            stream_out=k[problem.stream_out[name]],
        )
        for name, block in net.blocks()
    }
    return Scales(k["stem"], blocks)


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
        if block.gate is not None:
            _scale(block.gate, scale.output if block.gate_reads_output else scale.hidden[-1], scale.gate)
        if block.downsample is not None:
            _scale(block.downsample, scale.stream_in, scale.stream_out)
        stream = scale.stream_out
    # The logits themselves are not scaled.
    scaled.head.weight.mul_(2.0**stream)
    return scaled


def _scale(layer: nn.Module, k_in: int, k_out: int) -> None:
    assert isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None
    layer.weight.mul_(2.0 ** (k_in - k_out))
    layer.bias.mul_(2.0**-k_out)


class _Problem:
    """Which exponents are free, their smallest values, and what they do to the weights.

    A free exponent is called after its tensor: "stem", "layer1.0.conv1", ..., and a sum after the first block of the
    run of blocks that share it, "layer2.0.sum"; a run without a convolution on its first skip shares the stem's.

    Attributes:
        lowest: by name; negative where the tensor may be stored larger than it is.
        stream_in, stream_out: by block, the name of the sum before it and after it.
        output: by block, the name of its last convolution, or of the sum where no gate of its own k is between them.
    """

    def __init__(self, net: FoldedResNet, largest: Mapping[str, float]) -> None:
        self._largest = largest
        self.lowest = {"stem": self._need("stem", "stem.relu")}
        self.stream_in: dict[str, str] = {}
        self.stream_out: dict[str, str] = {}
        self.output: dict[str, str] = {}
        self._errors: dict[tuple[int, int], float] = {}  # by index of the weights and power of two
        self._gates: dict[str, tuple[str, int]] = {}  # output -> its sum, lowest k of its gate
        # (weights, function that gives the power of two they take)
        self._weights: list[tuple[torch.Tensor, Callable[[Mapping[str, int]], int]]] = [
            (net.stem.weight, _shift(None, "stem"))
        ]
        stream = "stem"
        for name, block in net.blocks():
            stream = self._add_block(name, block, stream)
        self._weights.append((net.head.weight, _shift(stream, None)))

    def refine(self, k: dict[str, int]) -> None:
        """Choose each exponent in turn for the smallest error of the weights; ties go to the smallest change."""
        for _ in range(ROUNDS):
            for name, lowest in self.lowest.items():
                highest = lowest + SLACK
                for output, (stream, gate) in self._gates.items():
                    if output == name:  # the gate's k is the rest, and has a lowest value of its own
                        highest = min(highest, k[stream] - gate)
                    if stream == name:
                        lowest = max(lowest, k[output] + gate)
                choices = range(lowest, max(lowest, highest) + 1)
                errors = {choice: self._error({**k, name: choice}) for choice in choices}
                good = [choice for choice in choices if errors[choice] <= 1.05 * min(errors.values())]
                k[name] = min(good, key=abs)

    def _add_block(self, name: str, block: FoldedBlock, stream: str) -> str:
        out = stream if block.downsample is None else f"{name}.sum"
        self.stream_in[name], self.stream_out[name] = stream, out
        before = stream
        for index, conv in enumerate(block.convs, start=1):
            tensor = f"{name}.conv{index}"
            need = self._need(tensor, f"{tensor}.relu")
            if (block.gate is None or block.is_bounded) and index == len(block.convs):  # as large as the skip
                tensor = out
                need = max(need, self._need(f"{name}.gated", f"{name}.sum", f"{name}.downsample"))
            self.lowest[tensor] = max(self.lowest.get(tensor, need), need)
            self._weights.append((_weight(conv), _shift(before, tensor)))
            hidden, before = before, tensor
        self.output[name] = before
        mean = before if block.gate_reads_output else hidden
        if block.gate is not None and block.is_bounded:
            self._weights.append((block.gate.weight, _shift(mean, None)))
        elif block.gate is not None:
            self._add_gate(name, block, out, before, mean)
        if block.downsample is not None:
            self._weights.append((_weight(block.downsample), _shift(stream, out)))
        return out

    def _add_gate(self, name: str, block: FoldedBlock, out: str, output: str, mean: str) -> None:
        """`out`: the sum; `output`: what the gate multiplies; `mean`: what it reads the mean of."""
        gate = self._need(f"{name}.gate")
        self._gates[output] = (out, gate)
        self._weights.append((_weight(block.gate), lambda k: k[mean] - (k[out] - k[output])))
        room = max(self._need(f"{name}.gated", f"{name}.sum", f"{name}.downsample"), max(0, self.lowest[output]) + gate)
        self.lowest[out] = max(self.lowest.get(out, room), room)

    def _need(self, *names: str) -> int:
        """The k that brings the largest of these tensors to `TARGET`; negative where it is below."""
        value = max(self._largest.get(name, 0.0) for name in names)
        return math.ceil(math.log2(value / TARGET)) if value > 0 else -SLACK

    def _error(self, k: Mapping[str, int]) -> float:
        return sum(self._rounding_error(index, shift(k)) for index, (_, shift) in enumerate(self._weights))

    def _rounding_error(self, index: int, power: int) -> float:
        if (index, power) not in self._errors:
            self._errors[index, power] = _rounding_error(self._weights[index][0], power)
        return self._errors[index, power]


def _shift(k_in: str | None, k_out: str | None) -> Callable[[Mapping[str, int]], int]:
    return lambda k: (k[k_in] if k_in else 0) - (k[k_out] if k_out else 0)


def _weight(layer: nn.Module | None) -> torch.Tensor:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return layer.weight


@torch.no_grad()
def _rounding_error(weight: torch.Tensor, power: int) -> float:
    """Error of ``weight * 2**power`` in FP16: root mean square over the filters of each one's relative error."""
    filters = weight.flatten(1).double() * 2.0**power
    if float(filters.abs().max()) > FP16_MAX:
        return math.inf
    lost = (filters - filters.half().double()).norm(dim=1)
    return float((lost / filters.norm(dim=1).clamp_min(1e-300)).square().mean().sqrt())
