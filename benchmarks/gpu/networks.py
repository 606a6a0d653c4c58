"""The networks that are compared, their weights, and the images they see.

sam              SAM-ResNet-50 as trained: batch norms, gates on the block's output, three linear layers
sam-folded       the same function after `samdeploy.models.sam_resnet.fold`
resnet50         torchvision's ResNet-50, without attention, one linear layer
resnet50-folded  the same with its batch norms folded: what the fold alone gives a network without gates

Weights are random, but every batch norm holds the statistics of images and every gate differs from 1, so that nothing
cancels out, FP16 keeps its range, and a wrong fold would show.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from samdeploy.bundle.spec import ModelSpec, Preprocessing, model_spec
from samdeploy.models import Exported, build_model
from samdeploy.models.graph import Normalize
from samdeploy.models.sam_resnet.fold import fold

NETS = ("sam", "sam-folded", "resnet50", "resnet50-folded")
# Runtimes that optimise a graph fold batch norms by themselves.
GRAPH_NETS = ("sam", "sam-folded", "resnet50")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        depth: layers of the ResNet.
        classes: logits.
        sizes: heights (and widths) in pixels.
        batches: batch sizes, the most interesting first: time may run out.
        buffers: input batches that are used in turn.
        seconds: of measuring per network, runtime, size and batch.
        train_batch: batch of the training step.
        device: "cuda", or "cpu" for a rehearsal.
        precision: "fp16", or "fp32" for a rehearsal: CPUs take seconds for an image in FP16, or crash.
    """

    depth: int
    classes: int
    sizes: tuple[int, ...]
    batches: tuple[int, ...]
    buffers: int
    seconds: float
    train_batch: int
    device: str
    precision: Literal["fp16", "fp32"]

    @property
    def arch(self) -> str:
        return f"sam-resnet{self.depth}"


GPU = Plan(50, 100, (192, 64), (1, 64, 8, 256), 4, 0.35, 128, "cuda", "fp16")
REHEARSAL = Plan(18, 10, (64, 32), (2, 1), 2, 0.02, 4, "cpu", "fp32")


def spec_of(plan: Plan, px: int) -> ModelSpec:
    return model_spec(
        plan.arch, {"gate": "identity"}, tuple(f"class{i}" for i in range(plan.classes)), Preprocessing(px, px)
    )


def coloured_images(count: int, px: int, seed: int) -> torch.Tensor:
    """Coloured blobs with some noise: uint8 [count, px, px, 3].  Pure noise would give all images one answer."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, 5, 5), generator=generator)
    smooth = F.interpolate(coarse, (px, px), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    noise = torch.rand((count, px, px, 3), generator=generator) - 0.5
    return ((smooth + 0.1 * noise).clamp(0, 1) * 255).round().to(torch.uint8).contiguous()


def fresh(plan: Plan, name: str) -> nn.Module:
    """`sam` or `resnet50` with new weights."""
    if name == "resnet50":
        return getattr(torchvision.models, f"resnet{plan.depth}")(weights=None, num_classes=plan.classes)
    net = build_model(plan.arch, plan.classes, {"gate": "identity"})
    for key, weight in net.named_parameters():
        if ".sl.fc." in key:
            nn.init.normal_(weight, std=0.1 / weight.shape[1] ** 0.5)
    return net


def calibrate(net: nn.Module, batches: Iterable[torch.Tensor], device: str) -> nn.Module:
    """Give every batch norm the statistics of uint8 [N, H, W, 3], then set eval mode; gives `net` on `device`."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # an average over all batches
    normalize = Normalize(Preprocessing(1, 1)).to(device)  # whose size it does not look at
    net.to(device).train()
    with torch.no_grad():
        for images in batches:
            net(normalize(images.to(device)))
    for norm in norms:
        norm.momentum = 0.1
    return net.eval()


def load_nets(plan: Plan, work: Path, names: tuple[str, ...]) -> dict[str, nn.Module]:
    """The networks in float32 on the CPU, with the weights that the step "setup" left in `work`."""
    states = torch.load(work / "weights.pt", weights_only=True)
    found = {}
    for name in names:
        base = name.removesuffix("-folded")
        net = fresh(plan, base)
        net.load_state_dict(states[base])
        net.eval()
        if name.endswith("-folded"):
            net = fold(net) if base == "sam" else _fold_norms(net)
        found[name] = net.requires_grad_(False)
    return found


def _fold_norms(net: nn.Module) -> nn.Module:
    net = copy.deepcopy(net)
    net.conv1, net.bn1 = fuse_conv_bn_eval(net.conv1, net.bn1), nn.Identity()
    for block in (block for stage in (net.layer1, net.layer2, net.layer3, net.layer4) for block in stage):
        for index in (index for index in (1, 2, 3) if hasattr(block, f"conv{index}")):
            conv, norm = getattr(block, f"conv{index}"), getattr(block, f"bn{index}")
            setattr(block, f"conv{index}", fuse_conv_bn_eval(conv, norm))
            setattr(block, f"bn{index}", nn.Identity())
        if block.downsample is not None:
            block.downsample = nn.Sequential(fuse_conv_bn_eval(*block.downsample))
    return net


class TypedExported(nn.Module):
    """`Exported` with the network in the plan's precision; pixels are normalised in float32 first."""

    def __init__(self, net: nn.Module, plan: Plan, px: int) -> None:
        super().__init__()
        self.normalize = Normalize(Preprocessing(px, px))
        self.dtype = torch.float16 if plan.precision == "fp16" else torch.float32
        self.net = copy.deepcopy(net).to(self.dtype)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.net(self.normalize(image).to(self.dtype)).float()


def on_device(net: nn.Module, plan: Plan, px: int) -> nn.Module:
    """`TypedExported` in eval mode on the plan's device, channels last."""
    return TypedExported(net, plan, px).eval().to(plan.device).to(memory_format=torch.channels_last)


def reference(net: nn.Module, spec: ModelSpec, images: torch.Tensor, device: str) -> torch.Tensor:
    """Float32 logits of eager PyTorch with TF32 off, on the CPU: [N, K]."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    exported = Exported(net, spec).eval().to(device)
    with torch.no_grad():
        return torch.cat([exported(part.to(device)).cpu() for part in images.split(64)])


def buffers_of(plan: Plan, work: Path, px: int, batch: int) -> list[torch.Tensor]:
    """Input batches on the device; the first holds the images that the reference logits belong to."""
    first = torch.load(work / f"images-{px}.pt", weights_only=True)[:batch]
    others = [coloured_images(batch, px, 100 + index) for index in range(1, plan.buffers)]
    return [images.to(plan.device) for images in (first, *others)]


def logits_of(work: Path, px: int) -> dict[str, Any]:
    """Reference logits by base network ("sam", "resnet50"): float32 [N, K]."""
    found: dict[str, Any] = torch.load(work / f"logits-{px}.pt", weights_only=True)
    return found
