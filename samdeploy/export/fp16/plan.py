"""FP16 that holds: rescale by powers of two first, keep a block in FP32 only where that is not enough."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.bundle.spec import ModelSpec
from samdeploy.export.fp16.headroom import TensorRange
from samdeploy.models import FoldedResNet
from samdeploy.models.graph import Normalize
from samdeploy.models.sam_resnet.rescale import Scales, choose_scales, rescale

# A block stays in FP32 where rounding to FP16 moves one picture's output by more than this share of its norm.  FP16's
# own rounding of a block is about 1e-3, a few times that where terms cancel; more means that values were lost below the
# smallest normal number.
MAX_BLOCK_ERROR = 5e-2


@dataclass(frozen=True, slots=True)
class Fp16Plan:
    """How a network is brought to FP16.

    Attributes:
        net: the folded network, rescaled where `scales` says so; the same function.
        scales: the exponents.
        fp32: layers ("stem", "layer2.0", ..., "head") that stay in FP32, each with the reason.
    """

    net: FoldedResNet
    scales: Scales
    fp32: dict[str, str]


def plan_fp16(net: FoldedResNet, spec: ModelSpec, ranges: Iterable[TensorRange], images: UInt8Array) -> Fp16Plan:
    """Find the exponents, then the layers that even they do not help.

    Args:
        net: the folded network.
        spec: for the normalisation.
        ranges: of its FP32 graph, measured on training pictures.
        images: uint8 [n, H, W, 3], training pictures to try each layer on.
    """
    scales = choose_scales(net, {row.name: row.max_abs for row in ranges})
    scaled = rescale(net, scales) if scales.exponents() else net
    return Fp16Plan(scaled, scales, _failing_layers(scaled, spec, images))


@torch.inference_mode()
def fp16_logits(net: FoldedResNet, spec: ModelSpec, images: UInt8Array, fp32: Iterable[str] = ()) -> Float32Array:
    """Logits float32 [n, K] with weights and every intermediate tensor rounded to FP16, sums formed in float32.

    That is how FP16 kernels on a GPU work (FP32 accumulation), layer by layer; kernels that fuse several layers
    round less often.  A value above 65,504 becomes infinite, as it would there.

    Args:
        net: the folded network.
        spec: for the normalisation.
        images: uint8 [n, H, W, 3].
        fp32: layers that compute in FP32.
    """
    kept = set(fp32)
    x = Normalize(spec.preprocessing)(torch.from_numpy(images))
    for name, exact, rounded in zip(*_layers(net), _layers(_half_weights(net))[1], strict=True):
        x = exact(x) if name in kept else _in_fp16(rounded, x)
    logits: Float32Array = x.float().numpy()
    return logits


@torch.inference_mode()
def _failing_layers(net: FoldedResNet, spec: ModelSpec, images: UInt8Array) -> dict[str, str]:
    """Layers whose output, from an exact input, is not finite in FP16 or too far off; with the reason."""
    failing: dict[str, str] = {}
    x = Normalize(spec.preprocessing)(torch.from_numpy(images))
    for name, exact, rounded in zip(*_layers(net), _layers(_half_weights(net))[1], strict=True):
        expected = exact(x)
        found = _in_fp16(rounded, x)
        if not torch.isfinite(found).all():
            failing[name] = "leaves the range of FP16 (65,504) even after rescaling"
        elif name != "head":  # logits may nearly cancel; the whole network's check judges them by their range
            difference = (found - expected).flatten(1).norm(dim=1)
            error = float((difference / expected.flatten(1).norm(dim=1).clamp_min(1e-30)).max())
            if error > MAX_BLOCK_ERROR:
                failing[name] = f"rounding to FP16 moves its output by {100 * error:.1f} % of its norm"
        x = expected
    return failing


def _layers(net: FoldedResNet) -> tuple[list[str], list[Any]]:
    """The network as a chain: names, and functions from tensor to tensor."""
    named = [("stem", lambda x: net.maxpool(torch.relu(net.stem(x)))), *net.blocks(),
             ("head", lambda x: net.head(x.mean(dim=(2, 3))))]  # fmt: skip
    return [name for name, _ in named], [layer for _, layer in named]


def _half_weights(net: FoldedResNet) -> FoldedResNet:
    rounded = copy.deepcopy(net)
    for weight in rounded.state_dict().values():
        weight.copy_(weight.half())
    return rounded


def _in_fp16(layer: Any, x: torch.Tensor) -> torch.Tensor:
    with _RoundToHalf():  # type: ignore[no-untyped-call]  # torch ships it without annotations
        result: torch.Tensor = layer(x.half().float())
    return result


class _RoundToHalf(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Rounds the result of every floating-point operation to FP16 and back."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
            return result.half().float()
        if isinstance(result, tuple):  # max_pool2d_with_indices
            return tuple(r.half().float() if r.dtype == torch.float32 else r for r in result)
        return result
