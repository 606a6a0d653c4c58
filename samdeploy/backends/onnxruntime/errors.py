"""What ONNX Runtime's errors mean."""

from __future__ import annotations

# In what it says where memory cannot be had, of its arena, of CUDA, of cuDNN and of cuBLAS.
_MEMORY_WORDS = ("Failed to allocate", "out of memory", "OUT_OF_MEMORY", "ALLOC_FAIL")


def memory_full(error: Exception, device: str) -> str:
    """What to do where the memory of "cpu" or "cuda" is full; "" where ONNX Runtime failed for another reason."""
    said = " ".join(str(error).split())
    if not any(word in said for word in _MEMORY_WORDS):
        return ""
    if device == "cpu":
        return "the machine's memory is full: use a smaller batch, or end other programs here"
    from samdeploy.backends.device.cuda import SMALLER_BATCH

    return SMALLER_BATCH
