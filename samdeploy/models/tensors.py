"""Every intermediate tensor of a folded network, under the names that the exported graph gives them."""

from __future__ import annotations

import torch

from samdeploy.models.fold import FoldedBlock, FoldedResNet
from samdeploy.models.graph import Normalize

Named = dict[str, torch.Tensor]


def folded_tensors(net: FoldedResNet, normalize: Normalize, image: torch.Tensor) -> Named:
    """All tensors from the pixels to the logits, in the graph's order.

    The names are those of `samdeploy.export.onnx`; that each is there and holds the same is tested against the graph.

    Args:
        net: the folded network.
        normalize: of the bundle, in the network's type.
        image: uint8 [N, H, W, 3], RGB.
    """
    found: Named = {"pixels": image.to(normalize.scale.dtype)}
    found["pixels.nchw"] = found["pixels"].permute(0, 3, 1, 2)
    found["pixels.scaled"] = found["pixels.nchw"] * normalize.scale
    found["pixels.shifted"] = found["pixels.scaled"] + normalize.shift
    found["stem"] = net.stem(found["pixels.shifted"])
    found["stem.relu"] = torch.relu(found["stem"])
    found["maxpool"] = net.maxpool(found["stem.relu"])
    x = found["maxpool"]
    for name, block in net.blocks():
        found |= {f"{name}.{part}": tensor for part, tensor in _block(block, x).items()}
        x = found[f"{name}.relu"]
    found["pool"] = x.mean(dim=(2, 3), keepdim=True)
    found["flatten"] = found["pool"].flatten(1)
    found["logits"] = net.head(found["flatten"])
    return found


def _block(block: FoldedBlock, x: torch.Tensor) -> Named:
    """See `FoldedBlock.forward`."""
    found: Named = {}
    *inner, last = block.convs
    hidden = x
    for index, conv in enumerate(inner, start=1):
        found[f"conv{index}"] = conv(hidden)
        found[f"conv{index}.relu"] = hidden = torch.relu(found[f"conv{index}"])
    y = found[f"conv{len(inner) + 1}"] = last(hidden)
    if block.gate is not None:
        found["mean"] = (y if block.gate_reads_output else hidden).mean(dim=(2, 3), keepdim=True)
        found["gate"] = block.gate(found["mean"])
        found["gated"] = y * found["gate"]
    if block.downsample is not None:
        found["downsample"] = block.downsample(x)
    found["sum"] = found.get("gated", y) + found.get("downsample", x)
    found["relu"] = torch.relu(found["sum"])
    return found
