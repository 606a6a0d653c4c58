"""The gate's own backward pass: exact, in the layout of its input, and only where gradients are wanted."""

from __future__ import annotations

import pytest
import torch

from samdeploy.models.sam_resnet.attention import StreamlinedAttention

# What the channels are multiplied by, of W·GAP(x).
FACTORS = {"original": lambda z: z, "identity": lambda z: 1 + z, "bounded": lambda z: 1 + z.tanh()}


def gate_of(kind: str) -> StreamlinedAttention:
    torch.manual_seed(0)
    gate = StreamlinedAttention(6, kind).double()
    torch.nn.init.normal_(gate.fc.weight)
    return gate


@pytest.mark.parametrize("kind", FACTORS)
def test_its_gradients_are_those_of_the_formula(kind: str) -> None:
    gate = gate_of(kind)
    x = torch.randn(3, 6, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gate, (x,))  # against finite differences
    coming = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    found = torch.autograd.grad(gate(x), (x, gate.fc.weight), coming)
    factor = FACTORS[kind](x.mean((2, 3)) @ gate.fc.weight.T)
    expected = torch.autograd.grad(x * factor[:, :, None, None], (x, gate.fc.weight), coming)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_values_are_the_same_with_and_without_gradients() -> None:
    gate, x = gate_of("original"), torch.randn(3, 6, 4, 5, dtype=torch.float64)
    learning = gate(x.clone().requires_grad_())
    with torch.no_grad():
        assert torch.equal(gate(x), learning)


def test_the_gradient_keeps_the_layout_of_the_images() -> None:
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


@pytest.mark.parametrize("kind", FACTORS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_gradients_are_those_of_the_formula_but_for_rounding(kind: str, dtype: torch.dtype) -> None:
    gate = gate_of(kind).float()
    x = torch.randn(4, 6, 8, 8).to(dtype).to(memory_format=torch.channels_last).requires_grad_()
    coming = torch.randn(4, 6, 8, 8).to(dtype)
    with torch.autocast("cpu", dtype):
        gated = gate(x * 1)
    found = torch.autograd.grad(gated, (x, gate.fc.weight), coming)
    wide, weight = x.detach().double().requires_grad_(), gate.fc.weight.detach().double().requires_grad_()
    exact = wide * FACTORS[kind](wide.mean((2, 3)) @ weight.T)[:, :, None, None]
    expected = torch.autograd.grad(exact, (wide, weight), coming.double())
    for one, other in zip((gated, *found), (exact, *expected), strict=True):
        assert float((one.double() - other).detach().abs().max()) < 2e-2 * float(other.detach().abs().max())


def test_small_gradients_of_fp16_are_summed_before_they_vanish() -> None:
    gate = gate_of("original").float()
    x = torch.ones(1, 6, 32, 32, dtype=torch.float16, requires_grad=True)
    with torch.autocast("cpu", torch.float16):
        gated = gate(x)
    coming = torch.zeros_like(gated)
    coming[..., 0] = 5e-7  # fp16 goes down to 6e-8: 32 of them have a sum in it, and no mean over 1,024
    (found,) = torch.autograd.grad(gated, gate.fc.weight, coming)
    torch.testing.assert_close(found, torch.full_like(found, 16e-6), rtol=0.05, atol=0)
