"""PyTorch's words for a full memory: the real ones of the CPU, and those that an H100 gave."""

from __future__ import annotations

import pytest
import torch

from samdeploy.models.memory import is_out_of_memory, memory_reason

GPU = (
    "CUDA out of memory. Tried to allocate 32.00 GiB. GPU 0 has a total capacity of 79.18 GiB of which 12.46 GiB is "
    "free. Process 480 has 3.84 GiB memory in use. Including non-PyTorch memory, this process has 61.94 GiB memory in "
    "use. See documentation for Memory Management"
)
TAKEN = "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in the documentation\nFor debugging"


def test_the_operating_systems_allocator() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert "allocate memory" in memory_reason(caught.value)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(GPU), RuntimeError(TAKEN)])
def test_cuda(error: RuntimeError) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("expected 3 channels"), ValueError(TAKEN), RuntimeError()])
def test_other_errors(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_the_reason_is_how_much_was_asked_and_is_free() -> None:
    assert memory_reason(torch.OutOfMemoryError(GPU)) == (
        "CUDA out of memory. Tried to allocate 32.00 GiB. GPU 0 has a total capacity of 79.18 GiB of which 12.46 GiB "
        "is free"
    )
    assert memory_reason(RuntimeError(TAKEN)) == "CUDA error: out of memory"
    assert memory_reason(RuntimeError()) == "RuntimeError"
