"""A training as timm's train.py does it when nothing is chosen but the network, the epochs and the batch.

Its transforms, optimiser, schedule and loss are timm's own; what train.py has as defaults of its options is written
out here: SGD with 0.1 for a batch of 256 in proportion, weight decay 2e-5, five epochs of warm-up, a cosine, label
smoothing 0.1, crops of 8 to 100 % of the area, mirroring, colour jitter 0.4, evaluation on the middle 87.5 %.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.data import create_transform
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from samdeploy.models.registry import build_model

CROP = 0.875


@dataclass(frozen=True)
class Network:
    """What is trained, and the usual learning rate of AdamW for it, not searched."""

    arch: str
    size: int
    rate: str
    weights: Path | None = None


def train_as_timm_does(images: Path, network: Network, epochs: int, batch: int, seed: int) -> tuple[int, int]:
    """Right answers on the test images, and how many they are, of the epoch that is best on validation."""
    torch.manual_seed(seed)
    random.seed(seed)
    testing = create_transform(network.size, is_training=False, crop_pct=CROP)
    train = ImageFolder(images / "train", create_transform(network.size, is_training=True, color_jitter=0.4))
    val, test = ImageFolder(images / "val", testing), ImageFolder(images / "test", testing)
    assert train.classes == val.classes == test.classes
    loader = DataLoader(train, batch, shuffle=True, drop_last=True)
    model = build_model(network.arch, len(train.classes)).to(memory_format=torch.channels_last)
    if network.weights is not None:
        state = torch.load(network.weights, weights_only=True)
        state = state.get("state_dict", state)
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        model.load_state_dict({key: value for key, value in state.items() if shapes.get(key) == value.shape}, False)
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1 * batch / 256, weight_decay=2e-5, momentum=0.9)
    schedule = CosineLRScheduler(optimizer, epochs, warmup_t=5, warmup_lr_init=1e-5)
    loss = LabelSmoothingCrossEntropy(0.1)
    best, kept = -1, {}
    for epoch in range(epochs):
        schedule.step(epoch)
        model.train()
        for pixels, labels in loader:
            with torch.autocast("cpu", torch.bfloat16):
                value = loss(model(pixels.contiguous(memory_format=torch.channels_last)), labels)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        right = correct(model, val)
        if right > best:
            best, kept = right, {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(kept)
    return correct(model, test), len(test)


@torch.inference_mode()
def correct(model: nn.Module, images: ImageFolder) -> int:
    """How many are answered right, in FP32."""
    model.eval()
    return sum(
        int((model(pixels).argmax(1) == labels).sum()) for pixels, labels in DataLoader(images, batch_size=100)
    )  # fmt: skip
