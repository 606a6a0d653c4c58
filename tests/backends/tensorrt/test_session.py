"""TensorRT: every reason not to open an engine, in words and before TensorRT sees it; and runs where there is a GPU."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import numpy as np
import pytest

from samdeploy.backends import availability, open_session
from samdeploy.backends.device import cuda
from samdeploy.backends.device.objects import DeviceMemory
from samdeploy.backends.tensorrt import session as tensorrt
from samdeploy.bundle import Bundle
from samdeploy.bundle.manifest import BundleFile
from samdeploy.errors import BackendUnavailable, BundleError
from tests.marks import without_gpu

_DEVICES, _WHY = cuda.cuda_devices()
needs_gpu = pytest.mark.skipif(not _DEVICES, reason=f"no CUDA device: {_WHY}")

A4000 = cuda.Device("NVIDIA RTX A4000", "SM86", "13.0")


@pytest.fixture
def on_a4000(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks before TensorRT, as on the machine of the original work."""
    pytest.importorskip("cuda.bindings.runtime")
    monkeypatch.setattr(cuda, "cuda_devices", lambda: (1, None))
    monkeypatch.setattr(cuda, "describe_device", lambda: A4000)


def _built_for(**changes: str) -> dict[str, str]:
    rtx = pytest.importorskip("tensorrt_rtx")
    good = {"runtime": "tensorrt_rtx", "version": rtx.__version__, "target": "SM86", "batch": "1,8,64"}
    return {**good, "gpu": "", "capability": "", "driver": "", **changes}


@without_gpu
def test_no_driver(digits_bundle: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(BackendUnavailable, match="no CUDA device"):
        open_session(digits_bundle, "tensorrt")
    assert "no CUDA device" in str(availability("tensorrt"))


def test_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt.importlib.util, "find_spec", lambda name: None)
    assert availability("tensorrt") == (
        "neither TensorRT nor TensorRT-RTX is installed; "
        "pip install 'samdeploy[tensorrt]' or pip install 'samdeploy[tensorrt-rtx]'"
    )


@pytest.mark.usefixtures("on_a4000")
def test_no_engine_in_the_bundle(digits_bundle: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(BackendUnavailable, match=r"no TensorRT engine in fp16 \(found: none\).*samdeploy export"):
        open_session(digits_bundle, "tensorrt")


@pytest.mark.usefixtures("on_a4000")
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": "1.0.0.1"}, "built with TensorRT-RTX 1.0.0.1, installed is 1."),
        ({"target": "SM89"}, "built for SM89, this GPU is SM86 (NVIDIA RTX A4000)"),
        (
            {"target": "current", "capability": "SM90", "gpu": "NVIDIA H100 PCIe"},
            "built for SM90 (NVIDIA H100 PCIe), this GPU is SM86 (NVIDIA RTX A4000)",
        ),
        ({"runtime": "tensorflow"}, "built by tensorflow, which this samdeploy does not know"),
        ({"target": "SM89+SM120"}, "built for SM89+SM120, this GPU is SM86 (NVIDIA RTX A4000)"),
        (
            {"target": "current", "capability": "SM86", "driver": "14.1"},
            "built with a driver for CUDA 14.1, this driver is for CUDA 13.0: update it",
        ),
        ({"version": "9", "target": "SM75"}, "installed is 1.7.1.116, built for SM75, this GPU is SM86"),
    ],
)
def test_an_engine_for_elsewhere_is_refused_in_words(with_file, changes: dict[str, str], text: str) -> None:  # type: ignore[no-untyped-def]
    built_for = _built_for(**changes)
    text = text.replace("1.7.1.116", _built_for()["version"])
    bundle = with_file("engine", b"plan", backend="tensorrt", precision="fp16", built_for=built_for)
    with pytest.raises(BackendUnavailable) as caught:
        open_session(bundle, "tensorrt")
    assert text in str(caught.value)
    assert str(caught.value).startswith("no engine of the bundle fits this machine: engine.bin: ")
    assert str(caught.value).endswith("build it again here: samdeploy export --engine trt")


@pytest.mark.usefixtures("on_a4000")
@pytest.mark.parametrize("changes", [{"target": "SM86"}, {"target": "SM75+SM86+SM120"}, {"version": "1.7.1.116.post1"}])
def test_an_engine_for_this_gpu_passes_to_tensorrt(with_file, monkeypatch, changes: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    def opened(trt: object, plan: bytes, *others: object) -> None:
        raise InterruptedError(plan)

    monkeypatch.setattr(tensorrt, "TensorrtEngine", opened)
    monkeypatch.setattr(cuda, "device_zero", contextlib.nullcontext)
    bundle = with_file("engine", b"plan", backend="tensorrt", precision="fp16", built_for=_built_for(**changes))
    with pytest.raises(InterruptedError, match="plan"):
        open_session(bundle, "tensorrt")


def test_a_gpu_that_rtx_does_not_run_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As seen on an H100; TensorRT-RTX is the only package."""
    pytest.importorskip("cuda.bindings.runtime")
    rtx = pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr(cuda, "cuda_devices", lambda: (1, None))
    monkeypatch.setattr(cuda, "describe_device", lambda: cuda.Device("NVIDIA H100 PCIe", "SM90", "13.0"))
    monkeypatch.setattr(tensorrt.importlib.util, "find_spec", lambda name: name == "tensorrt_rtx" or None)
    assert availability("tensorrt") == (
        f"TensorRT-RTX {rtx.__version__} does not run on this GPU: NVIDIA H100 PCIe is SM90, one of SM75, SM80, SM86, "
        "SM89, SM120, SM121 expected; pip install 'samdeploy[tensorrt]'"
    )


@pytest.mark.usefixtures("on_a4000")
def test_a_changed_engine_never_reaches_tensorrt(with_file) -> None:  # type: ignore[no-untyped-def]
    bundle = with_file("engine", b"plan", backend="tensorrt", precision="fp16", built_for=_built_for())
    (bundle.root / "engine.bin").write_bytes(b"plam")
    with pytest.raises(BundleError, match="SHA-256"):
        open_session(bundle, "tensorrt")


def test_the_cuda_gate_never_raises() -> None:
    count, why = cuda.cuda_devices()
    assert (count > 0) == (why is None)


@without_gpu
def test_cuda_errors_carry_their_name() -> None:
    pytest.importorskip("cuda.bindings.runtime")
    with pytest.raises(BackendUnavailable, match=r"cudaMalloc failed: cudaError\w+ \(\d+\)"):
        DeviceMemory(16)


def test_without_cuda_python() -> None:
    code = (
        "import sys; sys.modules['cuda'] = None\n"
        "from samdeploy.backends.device.objects import Stream\n"
        "try: Stream()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("BackendUnavailable cuda-python cannot be imported")
    assert "pip install 'cuda-python>=12.9'" in done.stdout


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("count", [1, 2, 4, 5, 11])
def test_batches_outside_the_profile_are_padded_and_cut(engine_bundle: Bundle, count: int) -> None:
    """The engine takes 2 to 4 images; 1 is padded, 5 and 11 are run in pieces; PyTorch is the judge."""
    images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    with open_session(engine_bundle, "tensorrt") as session, open_session(engine_bundle, "pytorch") as reference:
        assert (session.device, session.precision) == ("cuda", "fp16")
        expected = reference.run(images)
        np.testing.assert_allclose(session.run(images), expected, rtol=0, atol=2e-2 * float(np.ptp(expected)))


@pytest.mark.gpu
@needs_gpu
def test_a_damaged_plan_with_a_right_hash_is_refused(engine_bundle: Bundle, with_file) -> None:  # type: ignore[no-untyped-def]
    engine: BundleFile | None = engine_bundle.find("engine")
    assert engine is not None
    plan = engine_bundle.read(engine)
    bundle = with_file(
        "engine", plan[: len(plan) // 2], backend="tensorrt", precision="fp16", built_for=engine.built_for
    )
    with pytest.raises(BackendUnavailable, match=r"refuses engine\.bin"):
        open_session(bundle, "tensorrt")
