"""Why an FP32 graph is not the network: the first tensor that departs, or a network that magnifies rounding errors."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.difference import difference_shares, image_ranges
from samdeploy.backends.golden import GOLDEN_TOLERANCE
from samdeploy.backends.onnxruntime.session import emulate_all
from samdeploy.export.network import Network
from samdeploy.graphs.edit import serialize, with_outputs
from samdeploy.graphs.shapes import float_tensors
from samdeploy.models.graph import Normalize

# Images that are looked at: every tensor of the network is held at once.
_IMAGES = 2


def why_different(network: Network, images: UInt8Array) -> str:
    """In words, for a graph whose logits are not the network's.

    Args:
        network: with its graph.
        images: uint8 [n, H, W, 3].
    """
    pixels = Normalize(network.spec.preprocessing)(torch.from_numpy(images[:_IMAGES]))
    outputs = _module_outputs(network.simple, pixels)
    off = 0.0
    if any(True for _ in network.simple.parameters()):  # an ONNX file computes in float32 alone
        with torch.inference_mode():
            exact = copy.deepcopy(network.simple).double()(pixels.double()).numpy()
            off = _share(network.simple(pixels).numpy(), exact)
    if off > GOLDEN_TOLERANCE["fp32"] / 10:
        return (
            f"PyTorch's own logits in float32 are {off:.1e} of their range from those in float64: the network "
            "magnifies rounding errors, so no two runtimes agree; train it again"
        )
    names = [name for name in float_tensors(network.graph) if name in outputs]
    found = emulate_all(serialize(with_outputs(network.graph, names)), images[:_IMAGES])
    for name, value in zip(names, found, strict=True):
        shares = [_share(value, expected) for expected in outputs[name] if expected.shape == value.shape]
        if shares and min(shares) > GOLDEN_TOLERANCE["fp32"]:
            return f"the first node that departs is {name}, by {min(shares):.1e} of its range"
    return "no tensor that a module gives departs before the logits do"


def _module_outputs(model: nn.Module, pixels: torch.Tensor) -> dict[str, list[Float32Array]]:
    """Module -> its output, and that of the module which runs next: a batch norm is folded into what it follows."""
    order: list[tuple[str, Float32Array]] = []
    handles = []
    for name, module in model.named_modules():
        if name and not any(True for _ in module.children()):

            def keep(module: nn.Module, inputs: object, output: object, name: str = name) -> None:
                if isinstance(output, torch.Tensor):
                    order.append((name, output.detach().numpy().copy()))

            handles.append(module.register_forward_hook(keep))
    with torch.inference_mode():
        model(pixels)
    for handle in handles:
        handle.remove()
    outputs: dict[str, list[Float32Array]] = {}
    for (name, value), (_, following) in zip(order, [*order[1:], *order[-1:]], strict=True):
        outputs.setdefault(name, []).extend([value, following])
    return outputs


def _share(found: np.ndarray, expected: np.ndarray) -> float:
    return float(difference_shares(found, expected, image_ranges(expected)).max())
