"""Which engines are benched, and at which sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from samdeploy.bench.engines import Engine, check_sizes, select_engines, sweep_sizes
from samdeploy.bench.options import BenchOptions
from samdeploy.errors import InputError

PLAN = Engine("tensorrt", "fp16", 2, 48)
FREE = Engine("onnxruntime", "fp32")


def test_every_engine_of_the_bundle_and_not_the_reference(bundle_of: Callable) -> None:
    bundle = bundle_of(
        (None, "fp32", ""), (None, "int8", ""), ("tensorrt", "fp16", "1,8,64"), ("tensorrt", "int8", "4,8,16")
    )
    found = [(engine.name, engine.smallest, engine.largest) for engine in select_engines(bundle, "all", None)]
    assert found == [
        ("onnxruntime fp32", 1, None), ("onnxruntime int8", 1, None), ("openvino fp32", 1, None),
        ("openvino int8", 1, None), ("tensorrt fp16", 1, 64), ("tensorrt int8", 4, 16),
    ]  # fmt: skip
    assert [engine.name for engine in select_engines(bundle, "pytorch", None)] == ["pytorch fp32"]
    assert [engine.name for engine in select_engines(bundle, "openvino", "bf16")] == ["openvino bf16"]


def test_plans_for_several_targets_take_what_all_of_them_take(bundle_of: Callable) -> None:
    bundle = bundle_of(("tensorrt", "fp16", "1,8,64"), ("tensorrt", "fp16", "2,8,32"))
    assert select_engines(bundle, "tensorrt", None) == (Engine("tensorrt", "fp16", 2, 32),)


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="unknown backend 'onnx'; did you mean 'onnxruntime'"):
        BenchOptions("onnx")
    with pytest.raises(InputError, match="unknown precision 'half'"):
        BenchOptions("all", "half")
    with pytest.raises(InputError, match="unknown device 'gpu'"):
        BenchOptions(device="gpu")


def test_the_sweep_doubles_up_to_the_profiles_end() -> None:
    assert sweep_sizes(FREE, None) == (1, 2, 4, 8, 16, 32, 64)
    assert sweep_sizes(PLAN, None) == (2, 4, 8, 16, 32, 48)
    assert sweep_sizes(PLAN, (1, 5, 64)) == (5,)


def test_sizes_outside_the_profile_of_an_engine_that_was_named_are_refused() -> None:
    with pytest.raises(InputError, match=r"--batch: 64 found, but the profile of tensorrt fp16 takes 2 to 48"):
        check_sizes((PLAN,), (4, 64), named=True)
    check_sizes((PLAN,), (2, 48), named=True)
    check_sizes((PLAN, FREE), (64,), named=False)  # the other engine takes it
    with pytest.raises(InputError, match=r"--batch: 1 found, but the profile of tensorrt fp16 takes 2 to 48"):
        check_sizes((PLAN, PLAN), (1,), named=False)  # nobody does
