"""Which GPUs an engine is built for: those that were named, or the one that is here."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from samdeploy.backends.device.cuda import Device, cuda_devices
from samdeploy.errors import BackendUnavailable, InputError
from samdeploy.export.tensorrt import build as export_tensorrt
from samdeploy.export.tensorrt.build_target import build_targets
from tests.export.tensorrt.graphs import rtx_engine, tiny_graph
from tests.marks import without_gpu

trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")

H100 = Device("NVIDIA H100 80GB HBM3", "SM90", "13.0")
A4000 = Device("NVIDIA RTX A4000", "SM86", "13.0")


@pytest.mark.parametrize("target", ["SM86+SM89+SM120", "SM86,SM89,SM120", ("SM86", "SM89", "SM120")])
def test_several_in_any_form(target: str | tuple[str, ...]) -> None:
    assert build_targets(trt, target, None) == ("SM86", "SM89", "SM120")


@without_gpu
def test_the_gpu_here_cannot_be_the_target_without_one() -> None:
    with pytest.raises(BackendUnavailable, match=r"target 'current' needs a GPU here: .*name one: SM75, SM80, SM86"):
        rtx_engine(tiny_graph(), target="current")


@pytest.mark.parametrize("target", [None, "current"])
def test_a_gpu_that_rtx_does_not_run_on_is_refused_before_the_build(
    monkeypatch: pytest.MonkeyPatch, target: str | None
) -> None:
    monkeypatch.setattr(export_tensorrt, "cuda_devices", lambda: (1, None))
    monkeypatch.setattr(export_tensorrt, "describe_device", lambda: H100)
    with pytest.raises(BackendUnavailable) as caught:
        rtx_engine(b"not even read", target=target)
    assert str(caught.value) == (
        f"TensorRT-RTX {trt.__version__} does not run on this GPU: NVIDIA H100 80GB HBM3 is SM90, one of SM75, SM80, "
        "SM86, SM89, SM120, SM121 expected; pip install 'samdeploy[tensorrt]', or name a --target to build for another "
        "machine"
    )
    assert build_targets(trt, "SM86", H100) == ("SM86",)
    assert build_targets(trt, None, A4000) == ("current",)


def test_tensorrt_itself_builds_for_the_gpu_here_alone() -> None:
    proper: Any = SimpleNamespace(__name__="tensorrt", __version__="11.4.0")
    assert build_targets(proper, None, H100) == build_targets(proper, "current", H100) == ("current",)
    with pytest.raises(InputError, match=r"target 'SM86' found, but TensorRT builds for the GPU here alone \(SM90\)"):
        build_targets(proper, "SM86", H100)
    if not cuda_devices()[0]:
        with pytest.raises(BackendUnavailable, match=r"there is none here: .*use --engine trt-rtx"):
            build_targets(proper, None, None)
