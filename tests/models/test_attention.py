"""The gate's own backward pass: exact, in the layout of its input, and only where gradients are wanted."""

from __future__ import annotations

import pytest
import torch

from samdeploy.models import StreamlinedAttention


def gate_of(kind: str) -> StreamlinedAttention:
    torch.manual_seed(0)
    gate = StreamlinedAttention(6, kind).double()
    torch.nn.init.normal_(gate.fc.weight)
    return gate


@pytest.mark.parametrize("kind", ["original", "identity"])
def test_its_gradients_are_those_of_the_formula(kind: str) -> None:
    gate = gate_of(kind)
    x = torch.randn(3, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gate, (x,))  # against finite differences
    coming = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    found = torch.autograd.grad(gate(x), (x, gate.fc.weight), coming)
    factor = x.mean((2, 3)) @ gate.fc.weight.T + (kind == "identity")
    expected = torch.autograd.grad(x * factor[:, :, None, None], (x, gate.fc.weight), coming)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_values_are_the_same_with_and_without_gradients() -> None:
    gate, x = gate_of("original"), torch.randn(3, 6, 4, 5, dtype=torch.float64)
    learning = gate(x.clone().requires_grad_())
    with torch.no_grad():
        assert torch.equal(gate(x), learning)


def test_the_gradient_keeps_the_layout_of_the_pictures() -> None:
    gate = gate_of("identity").float()
    x = torch.randn(3, 6, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    gate(x * 1).square().sum().backward()
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


def test_under_autocast_the_weight_learns_in_float32() -> None:
    gate, x = gate_of("original").float(), torch.randn(3, 6, 4, 5).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = gate(x.bfloat16())
    found.float().square().sum().backward()
    assert found.dtype == torch.bfloat16
    assert gate.fc.weight.grad is not None
    assert gate.fc.weight.grad.dtype == torch.float32
