"""The fold is the same function: in float64 to rounding, in float32 as near to the truth as the network itself."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from samdeploy.models import build_model
from samdeploy.models.sam_resnet.fold import FoldedResNet, fold
from samdeploy.models.sam_resnet.resnet import SamResNet

# Products and sums in another order, over up to fifty layers of float64 (2e-16 each).
FLOAT64_RELATIVE = 1e-12
# Folded float32 logits may lie this much further from the float64 truth than unfolded ones.
FLOAT32_RATIO = 2.0


def awkward_model(arch: str, gate: str, classes: int = 10, seed: int = 0, stem: str = "imagenet") -> SamResNet:
    """A network in eval mode whose batch norms, gates and biases are all far from their simple starting values."""
    torch.manual_seed(seed)
    model = build_model(arch, classes, {"gate": gate, "stem": stem}).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.3, 2.0)
                # Some of them negative, as after a real training.
                module.weight.uniform_(0.4, 1.1).mul_(torch.where(torch.rand_like(module.weight) < 0.1, -1.0, 1.0))
                module.bias.normal_(0, 0.3)
        for name, parameter in model.named_parameters():
            if ".sl." in name:
                parameter.normal_(0, 0.3 / parameter.shape[1] ** 0.5)
    return model


def images(count: int = 3, size: int = 64, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("gate", "stem"),
    [("original", "imagenet"), ("identity", "cifar"), ("bounded", "imagenet"), ("none", "imagenet")],
)
@pytest.mark.parametrize("arch", ["sam-resnet18", "sam-resnet50"])
@torch.inference_mode()
def test_folded_equals_unfolded(arch: str, gate: str, stem: str) -> None:
    model = awkward_model(arch, gate, stem=stem)
    x = images()
    exact = copy.deepcopy(model).double()
    truth = exact(x.double())
    # The images must differ in their answers, or a fold that forgets the input would pass.
    assert float((truth[0] - truth[1]).abs().max()) > 1e-3 * float(truth.abs().max())

    assert relative(fold(exact)(x.double()), truth) < FLOAT64_RELATIVE
    folded, unfolded = relative(fold(model)(x), truth), relative(model(x), truth)
    assert folded < FLOAT32_RATIO * unfolded
    assert unfolded < 1e-4


@pytest.mark.parametrize("gate", ["original", "identity", "bounded"])
@pytest.mark.parametrize("arch", ["sam-resnet18", "sam-resnet50"])
@torch.inference_mode()
def test_every_block_alone(arch: str, gate: str) -> None:
    """Blocks with and without a stride, with and without a convolution on the skip; odd sizes show wrong padding."""
    model = awkward_model(arch, gate).double()
    for parameter in model.parameters():
        parameter.mul_(1.1)  # values that float32 cannot hold: a product formed in float32 would show
    blocks = [block for stage in model.stages() for block in stage]
    folded = fold(model).blocks()
    assert len(folded) == len(blocks)
    kinds = set()
    for (name, mine), block in zip(folded, blocks, strict=True):
        x = torch.randn(2, block.conv1.in_channels, 7, 5, dtype=torch.float64).relu()
        assert relative(mine(x), block(x)) < FLOAT64_RELATIVE, name
        kinds.add((block.downsample is not None, max(conv.stride[0] for conv in mine.convs)))
    assert kinds >= {(True, 2), (False, 1)}
    assert ((True, 1) in kinds) == (arch == "sam-resnet50")


def test_bottleneck_gates_read_the_narrow_tensor() -> None:
    folded = fold(build_model("sam-resnet50", 10, {"gate": "identity"}))
    shapes = {name: tuple(block.gate.weight.shape) for name, block in folded.blocks()}
    assert shapes["layer1.0"] == (256, 64)
    assert shapes["layer4.2"] == (2048, 512)


def test_parameters_of_resnet50_with_100_classes() -> None:
    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    folded = count(fold(build_model("sam-resnet50", 100, {"gate": "original"})))
    assert folded == 28_731_364
    assert folded <= 28_740_000


@pytest.mark.parametrize("arch", ["sam-resnet18", "sam-resnet50"])
def test_the_model_is_left_as_it_was(arch: str) -> None:
    model = awkward_model(arch, "original").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    own = {parameter.data_ptr() for parameter in model.parameters()}
    assert not own & {parameter.data_ptr() for parameter in folded.parameters()}


def test_the_fold_is_for_inference() -> None:
    folded = fold(awkward_model("sam-resnet50", "original").train())
    assert isinstance(folded, FoldedResNet)
    assert not folded.training
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    # Dropout between the head's layers is gone: two runs agree.
    assert torch.equal(folded(images()), folded(images()))
