"""Where networks average their features, found by running them; maps of networks of every kind."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from samdeploy.bundle.spec import Preprocessing
from samdeploy.models.average import find_features_and_head
from samdeploy.models.registry import build_model

# Of the logits' range: the mean, summed in another order.
FLOAT32_RELATIVE = 1e-5
SIZE = Preprocessing(64, 96)


class Net(nn.Module):
    """A convolution with channels where they are wanted, then one of several ends."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 5, 3, stride=2), nn.LayerNorm(5), nn.Linear(5, 4)
        self.end = end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        if self.end == "channels first":
            return self.head(torch.relu_(x).mean((2, 3)))  # type: ignore[no-any-return]
        x = self.norm(x.permute(0, 2, 3, 1))
        means = {"channels last": lambda: x.mean((1, 2)), "one position": lambda: x[:, 0, 0], "all": lambda: x}
        y = means[self.end]()
        return self.head(y) if y.ndim == 2 else self.head(y).mean((1, 2))  # type: ignore[no-any-return]


def net(end: str) -> Net:
    torch.manual_seed(0)
    return Net(end).eval()


@pytest.mark.parametrize("end", ["channels first", "channels last"])
def test_features_average_to_what_the_head_reads(end: str) -> None:
    model = net(end)
    cut = find_features_and_head(model, SIZE)
    assert cut is not None
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features, expected = cut.features(x), model(x)
        assert features.shape == (2, 5, 31, 47)
        assert (cut.head(features.mean(dim=(2, 3))) - expected).abs().max() < FLOAT32_RELATIVE * expected.abs().max()


@pytest.mark.parametrize("end", ["one position", "all"])
def test_other_ends_have_no_features(end: str) -> None:
    assert find_features_and_head(net(end), SIZE) is None


def test_a_single_cell_is_no_map() -> None:
    assert find_features_and_head(net("channels first"), Preprocessing(4, 4)) is None


def test_threads_keep_their_own_features() -> None:
    cut = find_features_and_head(net("channels first"), SIZE)
    assert cut is not None
    images = [torch.full((1, 3, 64, 96), float(value)) for value in range(4)]
    with torch.no_grad():
        expected = [cut.features(x).clone() for x in images]
    wrong: list[int] = []

    def run(index: int) -> None:
        with torch.no_grad():
            wrong.extend(index for _ in range(50) if not torch.equal(cut.features(images[index]), expected[index]))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    "arch", ["timm:test_resnet", "timm:test_efficientnet", "torchvision:shufflenet_v2_x0_5", "torchvision:densenet121"]
)
def test_networks_that_end_in_an_average_and_a_linear_layer(arch: str) -> None:
    torch.manual_seed(0)
    model, x = build_model(arch, 3).eval(), torch.randn(2, 3, 64, 96)
    cut = find_features_and_head(model, SIZE)
    assert cut is not None
    with torch.no_grad():
        found, expected = cut.head(cut.features(x).mean(dim=(2, 3))), model(x)
    assert (found - expected).abs().max() < FLOAT32_RELATIVE * (expected.max() - expected.min())


@pytest.mark.parametrize(
    "arch", ["torchvision:alexnet", "torchvision:mobilenet_v3_small", "torchvision:squeezenet1_1", "timm:test_convnext"]
)
def test_networks_that_do_not(arch: str) -> None:
    torch.manual_seed(0)
    assert find_features_and_head(build_model(arch, 3), SIZE) is None
