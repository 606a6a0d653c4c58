"""One `Session.run` enters few Python functions more than the runtime's own call: counted, so exact everywhere."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "evaluate" / "wrapper_cost.py"


@pytest.fixture(scope="module")
def wrapper_cost() -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip("benchmarks/ is not part of the source distribution")
    spec = importlib.util.spec_from_file_location("wrapper_cost", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "pytorch"])
def test_calls_over_the_raw_runtime(wrapper_cost: ModuleType, runtime: str) -> None:
    pytest.importorskip({"pytorch": "torch"}.get(runtime, runtime))
    pytest.importorskip("onnx")
    raw, wrapped = wrapper_cost.RUNTIMES[runtime]()
    found = wrapper_cost.python_calls(wrapped)
    assert found >= 2  # CheckedSession.run and the backend's run
    assert found - wrapper_cost.python_calls(raw) <= wrapper_cost.MOST_CALLS


def test_the_count_itself(wrapper_cost: ModuleType) -> None:
    def leaf() -> None: ...

    def four() -> None:
        for _ in range(4):
            leaf()

    assert wrapper_cost.python_calls(leaf) == 0
    assert wrapper_cost.python_calls(four) == 4
    assert sys.getprofile() is None
