"""A full memory of which no part of the product knew more: one line, no traceback."""

from __future__ import annotations

import pytest
import torch

from samdeploy.cli.endings import _memory_error


def test_what_the_operating_system_refuses() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    text = _memory_error(caught.value)
    assert text is not None
    assert text.startswith("the memory is full (")
    assert text.endswith("; end other programs, or take smaller batches or images")
    assert "\n" not in text


def test_pythons_own_and_others() -> None:
    assert _memory_error(MemoryError()) == "the memory is full; end other programs, or take smaller batches or images"
    assert _memory_error(RuntimeError("a mistake of ours")) is None
