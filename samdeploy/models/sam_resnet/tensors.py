"""Every intermediate tensor of a folded network, under the names that the exported graph gives them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from samdeploy.models.graph import Normalize
from samdeploy.models.sam_resnet.fold import FoldedBlock, FoldedResNet

Named = dict[str, torch.Tensor]
# What takes the place of a tensor before anything reads it, such as its rounding to INT8.
Replace = Callable[[str, torch.Tensor], torch.Tensor]


def folded_tensors(
    net: FoldedResNet, normalize: Normalize, image: torch.Tensor, replace: Replace | None = None
) -> Named:
    """All tensors from the pixels to the logits, in the graph's order.

    The names are those of `samdeploy.models.sam_resnet.onnx`; a test compares each with the graph.

    Args:
        net: the folded network.
        normalize: of the bundle, in the network's type.
        image: uint8 [N, H, W, 3], RGB.
        replace: `replace(name, tensor)` is what the layers after a tensor read instead of it.
    """
    found = _Found(replace)
    pixels = found("pixels", image.to(normalize.scale.dtype))
    scaled = found("pixels.scaled", found("pixels.nchw", pixels.permute(0, 3, 1, 2)) * normalize.scale)
    stem = found("stem", net.stem(found("pixels.shifted", scaled + normalize.shift)))
    x = found("maxpool", net.maxpool(found("stem.relu", torch.relu(stem))))
    for name, block in net.blocks():
        x = _block(found, f"{name}.", block, x)
    pool = found("pool", x.mean(dim=(2, 3), keepdim=True))
    found("logits", net.head(found("flatten", pool.flatten(1))))
    return found.tensors


class _Found:
    """Keeps each tensor under its name, and gives back what the next layer reads."""

    def __init__(self, replace: Replace | None) -> None:
        self.tensors: Named = {}
        self._replace = replace

    def __call__(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        self.tensors[name] = tensor if self._replace is None else self._replace(name, tensor)
        return self.tensors[name]


def _block(found: _Found, name: str, block: FoldedBlock, x: torch.Tensor) -> torch.Tensor:
    """See `FoldedBlock.forward`."""
    *inner, last = block.convs
    hidden = x
    for index, conv in enumerate(inner, start=1):
        convolved = found(f"{name}conv{index}", conv(hidden))
        hidden = found(f"{name}conv{index}.relu", torch.relu(convolved))
    y = found(f"{name}conv{len(inner) + 1}", last(hidden))
    if block.gate is not None:
        mean = found(f"{name}mean", (y if block.gate_reads_output else hidden).mean(dim=(2, 3), keepdim=True))
        y = found(f"{name}gated", y * found(f"{name}gate", block.gate(mean)))
    skip = x if block.downsample is None else found(f"{name}downsample", block.downsample(x))
    return found(f"{name}relu", torch.relu(found(f"{name}sum", y + skip)))
