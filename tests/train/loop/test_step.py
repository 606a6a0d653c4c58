"""One step: its chance, its pieces, its mean of weights, and what a checkpoint of it holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from samdeploy.bundle.spec import Preprocessing
from samdeploy.models import build_model
from samdeploy.models.graph import Normalize
from samdeploy.train.device import Compute
from samdeploy.train.loop.batches import StoredImages
from samdeploy.train.loop.ema import WeightMean
from samdeploy.train.loop.measure import Split
from samdeploy.train.loop.optimizer import STATE
from samdeploy.train.loop.seeds import Shuffle, step_seed
from samdeploy.train.loop.step import Stepper
from samdeploy.train.recipe.recipe import TrainingSection
from samdeploy.train.watch.activations import headroom_warning, measure_activations
from samdeploy.train.watch.history import GateRow

CPU = torch.device("cpu")
NORMALIZE = Normalize(Preprocessing(8, 8))


class Small(nn.Module):
    """A network with chance in it, and with a weight whose layout matters."""

    def __init__(self, dropout: float = 0.5) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.fc(self.dropout(self.conv(x).mean((2, 3))))
        return y


def stepper(dropout: float = 0.5, **settings: object) -> Stepper:
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    examples = StoredImages(draw.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8), draw.integers(0, 3, 12), CPU)
    model = Small(dropout).to(memory_format=torch.channels_last)
    training = TrainingSection(**settings)  # type: ignore[arg-type]
    return Stepper(
        model, examples, lambda _: lambda images, labels, _: (NORMALIZE(images), labels), training, Compute(CPU)
    )


def gradient(made: Stepper, epoch: int, step: int) -> torch.Tensor:
    made.passes(torch.arange(12), epoch, step)
    return torch.cat([weight.grad.flatten() for weight in made.model.parameters() if weight.grad is not None])


def test_chance_follows_from_epoch_and_step_alone() -> None:
    made = stepper()
    first = gradient(made, 3, 7)
    gradient(made, 3, 8)
    torch.rand(5)
    assert torch.equal(gradient(made, 3, 7), first)
    assert not torch.equal(gradient(made, 3, 8), first)
    assert not torch.equal(gradient(made, 4, 7), first)
    assert len({step_seed(0, e, s, p, r) for e in range(3) for s in range(3) for p in range(3) for r in range(3)}) == 81


def test_images_are_augmented_as_their_epoch_asks() -> None:
    made = stepper(0.0)
    first, second = gradient(made, 1, 0), gradient(made, 2, 0)
    assert torch.equal(first, second)
    augment_in = made._augment_in
    made._augment_in = lambda epoch: augment_in(epoch) if epoch == 1 else lambda x, y, _: (NORMALIZE(255 - x), y)
    assert torch.equal(gradient(made, 1, 0), first)
    assert not torch.equal(gradient(made, 2, 0), first)


@pytest.mark.parametrize("accumulate", [2, 3, 5])
def test_pieces_add_up_to_the_whole_batch(accumulate: int) -> None:
    # No batch norm, no dropout: then the gradient is the same but for rounding.
    whole, pieces = stepper(0.0), stepper(0.0, accumulate=accumulate)
    torch.testing.assert_close(gradient(pieces, 1, 0), gradient(whole, 1, 0), rtol=1e-5, atol=1e-7)
    (loss, hits), (loss_pieces, hits_pieces) = (made.passes(torch.arange(12), 1, 0) for made in (whole, pieces))
    torch.testing.assert_close(loss_pieces, loss)
    assert hits == hits_pieces


def test_a_step_that_is_not_finite_and_all_after_it_leave_the_weights_alone() -> None:
    made = stepper()
    for step, spoil in enumerate((False, True, False)):
        loss, _ = made.passes(torch.arange(12), 1, step)
        before = made.model.conv.weight.detach().clone()  # type: ignore[union-attr, operator]
        made.update(loss * (float("nan") if spoil else 1.0), 1e-2, step)
        moved = not torch.equal(before, made.model.conv.weight)  # type: ignore[arg-type]
        assert moved is (step == 0)
    assert int(made.bad_step) == 1


@pytest.mark.parametrize(("optimizer", "moment"), [("adamw", "exp_avg"), ("sgd", "momentum_buffer")])
def test_moments_come_back_in_the_layout_of_their_weights(optimizer: str, moment: str) -> None:
    # The fused kernel walks through weight and moments side by side; another layout would mix them up, silently.
    made, other, fresh = (stepper(optimizer=optimizer) for _ in range(3))
    for step in range(3):
        for one in (made, other) if step < 2 else (made,):
            loss, _ = one.passes(torch.arange(12), 1, step)
            one.update(loss, 1e-2, step)
    fresh.model.load_state_dict(other.model.state_dict())
    fresh.load_optimizer_state({key: value.contiguous().clone() for key, value in other.optimizer_state().items()})
    moments = fresh.optimizer.state[fresh.model.conv.weight]  # type: ignore[index]
    assert moments[moment].is_contiguous(memory_format=torch.channels_last)
    loss, _ = fresh.passes(torch.arange(12), 1, 2)
    fresh.update(loss, 1e-2, 2)
    for key, value in made.model.state_dict().items():
        assert torch.equal(value, fresh.model.state_dict()[key]), key


@pytest.mark.parametrize(("before", "after"), [("sgd", "adamw"), ("adam", "sgd")])
def test_another_optimizer_starts_without_moments(before: str, after: str) -> None:
    made, other = stepper(optimizer=before), stepper(optimizer=after)
    loss, _ = made.passes(torch.arange(12), 1, 0)
    made.update(loss, 1e-2, 0)
    other.load_optimizer_state(made.optimizer_state())
    loss, _ = other.passes(torch.arange(12), 1, 0)
    other.update(loss, 1e-2, 0)
    assert {key.partition(".")[2] for key in other.optimizer_state()} == set(STATE[after])


def test_the_order_goes_on_where_it_was() -> None:
    whole, again = Shuffle(5), Shuffle(99)
    first, second = whole.order(20), whole.order(20)
    assert not torch.equal(first, second)
    again.restore(whole.state(before=True))
    assert torch.equal(again.order(20), second)
    again.restore(whole.state(before=False))
    assert torch.equal(again.order(20), whole.order(20))


def test_the_mean_of_weights() -> None:
    model = nn.BatchNorm1d(1)
    mean = WeightMean(model, 0.9)
    for step, value in enumerate((1.0, 2.0, 4.0), start=1):
        nn.init.constant_(model.weight, value)
        model.running_mean.fill_(value)  # type: ignore[union-attr]
        model.num_batches_tracked.fill_(step)  # type: ignore[union-attr]
        mean.update(model, step)
    # PyTorch takes the first over whole; then the decays are 3/12 and 4/13.
    expected = 4 / 13 * (3 / 12 * 1 + 9 / 12 * 2) + 9 / 13 * 4
    assert mean.model.weight.item() == pytest.approx(expected)  # type: ignore[union-attr, operator]
    assert mean.model.running_mean.item() == pytest.approx(expected)  # type: ignore[union-attr, operator]
    assert mean.model.num_batches_tracked.item() == 3  # type: ignore[union-attr, operator]
    assert not any(weight.requires_grad for weight in mean.model.parameters())


def test_gates_and_head_room() -> None:
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    examples = StoredImages(draw.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8), draw.integers(0, 2, 5), CPU)
    split = Split("val", examples, Normalize(Preprocessing(32, 32)), 2, 5)
    model = build_model("sam-resnet18", 2, {"gate": "identity"})
    rows = measure_activations("sam-resnet18", model, split, 4)
    assert [row.stage for row in rows] == ["layer1", "layer2", "layer3", "layer4"]
    assert all(
        (row.gate_mean, row.gate_sd, row.gate_min, row.gate_max) == (1, 0, 1, 1) for row in rows
    )  # W starts at 0
    assert headroom_warning(rows) is None
    assert not any(module._forward_hooks for module in model.modules())
    with torch.no_grad():
        model.layer2[1].bn2.weight.fill_(1e6)  # type: ignore[union-attr, operator, index]
    spoilt = measure_activations("sam-resnet18", model, split, 4)
    assert spoilt[0] == rows[0]
    assert spoilt[1].headroom_bits < 0
    assert "beyond FP16's end of 65,504" in (headroom_warning(spoilt) or "")
    none = measure_activations("sam-resnet18", build_model("sam-resnet18", 2, {"gate": "none"}), split, 1)
    assert all(row.gate_mean is None and row.largest > 0 for row in none)


def test_stages_of_networks_without_gates() -> None:
    draw = np.random.default_rng(0)
    examples = StoredImages(draw.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8), draw.integers(0, 2, 5), CPU)
    split = Split("val", examples, Normalize(Preprocessing(32, 32)), 2, 5)
    torch.manual_seed(0)
    model = build_model("torchvision:resnet18", 2)
    rows = measure_activations("torchvision:resnet18", model, split, 1)
    assert [(row.stage, row.gate_mean) for row in rows] == [(f"layer{number}", None) for number in (1, 2, 3, 4)]
    with torch.no_grad():
        model.layer3[0].downsample[1].bias.fill_(1e6)  # type: ignore[union-attr, operator, index]
    assert [row.largest >= 1e6 for row in measure_activations("torchvision:resnet18", model, split, 1)][2]


def test_the_warning_comes_three_bits_before_the_end() -> None:
    def row(largest: float, bits: float) -> GateRow:
        return GateRow(1, "layer3", 1, 0, 1, 1, largest, bits)

    assert headroom_warning([row(8188, 3.0)]) is None
    assert "16,376 in layer3, 2.0 bits below FP16's end" in (headroom_warning([row(16376, 2.0)]) or "")
