"""The reference: pieces of a large batch, and a network that is the one of the weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from samdeploy.backends import open_session, pytorch
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, WeightsError


def test_a_large_batch_is_run_in_pieces(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    with open_session(digits_bundle, "pytorch", device="cpu") as session:
        whole = session.run(images)
        monkeypatch.setattr(pytorch, "_CHUNK", 2)
        np.testing.assert_allclose(session.run(images), whole, rtol=0, atol=1e-5 * float(np.ptp(whole)))


def test_weights_of_another_architecture(digits_bundle: Bundle) -> None:
    bundle = dataclasses.replace(digits_bundle, spec=dataclasses.replace(digits_bundle.spec, arch="sam-resnet34"))
    with pytest.raises(WeightsError, match="does not fit sam-resnet34; this looks like sam-resnet18"):
        open_session(bundle, "pytorch")


def test_an_unknown_architecture(digits_bundle: Bundle) -> None:
    bundle = dataclasses.replace(digits_bundle, spec=dataclasses.replace(digits_bundle.spec, arch="sam-resnet19"))
    with pytest.raises(BackendUnavailable, match=r"cannot rebuild this bundle's network: .*sam-resnet18"):
        open_session(bundle, "pytorch")


def test_a_bundle_without_weights(digits_bundle: Bundle) -> None:
    files = tuple(file for file in digits_bundle.files if file.role != "weights")
    with pytest.raises(BackendUnavailable, match="holds no weights"):
        open_session(dataclasses.replace(digits_bundle, files=files), "pytorch")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_where_there_is_none(digits_bundle: Bundle) -> None:
    with pytest.raises(BackendUnavailable, match="finds no CUDA device; use device 'cpu'"):
        open_session(digits_bundle, "pytorch", device="cuda")


def test_tf32_is_off_inside_and_as_before_outside() -> None:
    convolution, product = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = convolution.fp32_precision, product.fp32_precision
    with pytest.raises(KeyError), pytorch._exact_float32():
        assert (convolution.fp32_precision, product.fp32_precision) == ("ieee", "ieee")
        raise KeyError
    assert (convolution.fp32_precision, product.fp32_precision) == before


class _Greedy(torch.nn.Module):
    """Asks for a memory that no machine has, when it is run."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.empty(1 << 60, dtype=torch.uint8)


@pytest.mark.parametrize("run", [pytorch.PytorchSession.run, pytorch.PytorchSession.run_with_maps])
def test_a_full_memory_names_the_cure(run: Callable) -> None:
    with pytest.raises(BackendUnavailable, match=r"the machine's memory is full \(.*\): use a smaller batch, or end"):
        run(pytorch.PytorchSession(_Greedy(), "cpu"), np.zeros((1, 8, 8, 3), np.uint8))


def test_other_errors_of_the_network_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="Input type"):
        pytorch.PytorchSession(torch.nn.Conv2d(7, 1, 1), "cpu").run(np.zeros((1, 8, 8, 3), np.uint8))
