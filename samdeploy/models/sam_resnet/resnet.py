"""SAM-ResNet: He et al., "Deep Residual Learning for Image Recognition" (arXiv:1512.03385), in torchvision's
form (stride in the 3x3 convolution of a bottleneck), with streamlined attention before each skip is added.

Deviations from torchvision's ResNet: the attention module `sl` after a block's last batch norm, and, for 50,
101 and 152 layers, a head of three linear layers with dropout between them and no non-linearity.  Keys of the
state dict are torchvision's, plus `layer{1-4}.{i}.sl.fc.weight` and `fc.{0,2,4}.{weight,bias}`: files written
by the original code load as they are.

The stem "imagenet" is He et al.'s for large images, 7x7 with stride 2 and a max pool; "cifar" is the 3x3 convolution of
their section 4.2 for images of 32 pixels, with stride 1 and no pool.
"""

from __future__ import annotations

import torch
from torch import nn

from samdeploy.errors import InputError, unknown
from samdeploy.models.sam_resnet.attention import StreamlinedAttention
from samdeploy.models.sam_resnet.convolution import Conv2d


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; used by 18 and 34 layers."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, gate: str) -> None:
        super().__init__()
        self.conv1 = Conv2d(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.sl = StreamlinedAttention(width, gate)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, H, W] -> [N, width, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.sl(self.bn2(self.conv2(y)))
        skip = x if self.downsample is None else self.downsample(x)
        out: torch.Tensor = self.relu(y + skip)
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; used by 50, 101 and 152 layers."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, gate: str) -> None:
        super().__init__()
        out_channels = width * self.expansion
        self.conv1 = Conv2d(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = Conv2d(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.sl = StreamlinedAttention(out_channels, gate)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _downsample(in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, H, W] -> [N, 4 * width, H / stride, W / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.sl(self.bn3(self.conv3(y)))
        skip = x if self.downsample is None else self.downsample(x)
        out: torch.Tensor = self.relu(y + skip)
        return out


# arch -> (block, blocks per stage)
ARCHITECTURES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    "sam-resnet18": (BasicBlock, (2, 2, 2, 2)),
    "sam-resnet34": (BasicBlock, (3, 4, 6, 3)),
    "sam-resnet50": (Bottleneck, (3, 4, 6, 3)),
    "sam-resnet101": (Bottleneck, (3, 4, 23, 3)),
    "sam-resnet152": (Bottleneck, (3, 8, 36, 3)),
}
ARCHS = tuple(ARCHITECTURES)
# Channels of the 3x3 convolutions of each stage; the stem has the first stage's.
WIDTHS = (64, 128, 256, 512)
STEMS = ("imagenet", "cifar")


class SamResNet(nn.Module):
    """A ResNet with streamlined attention and its classification head."""

    def __init__(self, arch: str, num_classes: int, gate: str, stem: str = "imagenet") -> None:
        super().__init__()
        if arch not in ARCHITECTURES:
            raise InputError(unknown("architecture", arch, ARCHS))
        if stem not in STEMS:
            raise InputError(unknown("stem", stem, STEMS))
        if num_classes < 1:
            raise InputError(f"num_classes: {num_classes} found, at least 1 expected")
        block, depths = ARCHITECTURES[arch]
        self.arch, self.gate, self.num_classes = arch, gate, num_classes
        is_small = stem == "cifar"
        channels = WIDTHS[0]
        kernel, stride = (3, 1) if is_small else (7, 2)
        self.conv1 = nn.Conv2d(3, channels, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if is_small else nn.MaxPool2d(3, stride=2, padding=1)
        for stage, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True), start=1):
            blocks: list[nn.Module] = []
            for index in range(depth):
                blocks.append(block(channels, width, 2 if stage > 1 and index == 0 else 1, gate))
                channels = width * block.expansion
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc: nn.Module
        if block is BasicBlock:
            self.fc = nn.Linear(channels, num_classes)
        else:
            self.fc = nn.Sequential(
                nn.Linear(channels, 1024), nn.Dropout(0.5), nn.Linear(1024, 512), nn.Dropout(0.5),
                nn.Linear(512, num_classes),
            )  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> tuple[nn.Sequential, ...]:
        """layer1 to layer4."""
        return self.layer1, self.layer2, self.layer3, self.layer4  # type: ignore[return-value]

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """float [N, 3, H, W], normalised -> the last stage's output, float [N, C, H / 32, W / 32] (cifar: / 8)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self.stages():
            x = stage(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [N, 3, H, W], normalised -> logits float [N, num_classes]."""
        logits: torch.Tensor = self.fc(self.avgpool(self.features(x)).flatten(1))
        return logits


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(Conv2d(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))
