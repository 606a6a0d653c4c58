"""PyTorch's words for "no memory left", which differ by who asked and where."""

from __future__ import annotations

import re

import torch

from samdeploy.errors import first_line

# Said by the operating system's allocator; by CUDA where it is asked by another than PyTorch's own allocator, or while
# the GPU is taken into use.
_WORDS = ("DefaultCPUAllocator: can't allocate memory", "CUDA error: out of memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch could not get memory, from a GPU or from the operating system."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)
    )


def memory_reason(error: BaseException) -> str:
    """How much was asked and is free, of the paragraph that PyTorch says: "CUDA out of memory. Tried to ..."."""
    line = first_line(error)
    end = re.search(r"\d [KMG]iB is free\.", line)
    return line[: end.end()].rstrip(".") if end else line
