"""ONNX Runtime: where it really runs, and what its CPU provider does with FP16."""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from samdeploy.backends import open_session
from samdeploy.backends.device import cuda
from samdeploy.backends.device import objects as cuda_objects
from samdeploy.backends.device.cuda import cuda_devices
from samdeploy.backends.onnxruntime import session as backend
from samdeploy.backends.onnxruntime.int8_proof import check_profile
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable
from samdeploy.export.int8.qdq import calibrate, quantize
from samdeploy.files import SealedFile
from samdeploy.graphs.inference import CUDA, Options, open_inference


def _graph(bundle: Bundle, precision: str) -> bytes:
    file = bundle.find("graph", precision=precision)
    assert file is not None
    return bundle.read(file)


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this build has CUDA")
def test_cuda_without_a_cuda_build_names_the_other_package(digits_bundle: Bundle) -> None:
    with pytest.raises(BackendUnavailable, match=r"installed without CUDA; .*samdeploy\[onnxruntime-gpu\]"):
        open_session(digits_bundle, "onnxruntime", device="cuda")


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="this build has CUDA")
@pytest.mark.filterwarnings("ignore:Specified provider 'CUDAExecutionProvider'")
def test_a_silent_fall_back_to_the_cpu_is_noticed(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    # As on a machine whose driver is fine and whose CUDA libraries are not: the provider is asked for and dropped.
    monkeypatch.setattr(backend, "_no_cuda", lambda: None)
    closed: list[bool] = []
    monkeypatch.setattr(cuda, "device_zero", contextlib.nullcontext)
    monkeypatch.setattr(cuda_objects, "Stream", lambda: SimpleNamespace(handle=1, close=lambda: closed.append(True)))
    with pytest.raises(BackendUnavailable, match="could not start its CUDA provider and fell back to the CPU"):
        open_session(digits_bundle, "onnxruntime", device="cuda")
    with open_session(digits_bundle, "onnxruntime", device="auto") as session:
        assert session.device == "cpu"
    with pytest.raises(BackendUnavailable, match="has no FP16 kernels"):
        open_session(digits_bundle, "onnxruntime", device="auto", precision="fp16")
    assert closed == [True] * 3


@pytest.mark.skipif(bool(cuda_devices()[0]), reason="this machine has a CUDA device")
def test_a_driver_that_is_too_old_for_cuda_python_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cuda.bindings.runtime")
    monkeypatch.setattr(backend.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(cuda, "cuda_devices", lambda: (1, None))
    assert str(backend._no_cuda()).startswith("cudaGetDevice failed: cudaError")


def test_fp16_on_the_cpu_is_refused(digits_bundle: Bundle) -> None:
    with pytest.raises(BackendUnavailable, match=r"has no FP16 kernels.*use precision fp32"):
        open_session(digits_bundle, "onnxruntime", device="cpu", precision="fp16")


def test_the_reason_for_refusing_it_is_true(digits_bundle: Bundle, tmp_path: Path) -> None:
    """The profile of an FP16 graph on the CPU: every convolution reads float, not float16."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    options.log_severity_level = 3
    session = ort.InferenceSession(
        _graph(digits_bundle, "fp16"),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["NchwcTransformer"],
    )
    images, _ = digits_bundle.golden()
    session.run(None, {"image": images})
    events = json.loads(Path(session.end_profiling()).read_text())
    kinds = {
        kind
        for event in events
        if event.get("args", {}).get("op_name") in ("Conv", "FusedConv")
        for tensor in event["args"].get("input_type_shape", [])
        for kind in tensor
    }
    assert kinds == {"float"}


def _profile(graph: bytes, prefix: Path, size: int) -> str:
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(prefix)
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    session.run(None, {"image": np.zeros((1, size, size, 3), np.uint8)})
    return Path(session.end_profiling()).read_text()


def test_convolutions_are_counted_by_type(digits_bundle: Bundle, tmp_path: Path) -> None:
    images, _ = digits_bundle.golden()
    fp32 = _graph(digits_bundle, "fp32")
    calibrated = calibrate(fp32, images)
    assert check_profile(_profile(fp32, tmp_path / "fp32", 32), "fp32") == "20 of 20 convolutions in fp32"
    int8 = _profile(quantize(calibrated, "cpu"), tmp_path / "int8", 32)
    assert check_profile(int8, "int8") == "20 of 20 convolutions in int8"
    with pytest.raises(BackendUnavailable, match="too few convolutions in fp32: 20 in int8; at least 100 % are"):
        check_profile(int8, "fp32")
    with pytest.raises(BackendUnavailable, match="too few convolutions in int8: none at all"):
        check_profile("[]", "int8")


def test_an_int8_graph_that_is_not_quantised_is_refused(digits_bundle: Bundle) -> None:
    # INT8 by name alone: it would run at the speed of FP32.
    files = tuple(
        replace(file, precision="int8") if file.role == "graph" and file.precision == "fp32" else file
        for file in digits_bundle.files
    )
    with pytest.raises(BackendUnavailable, match="too few convolutions in int8: 20 in fp32; at least 50 %"):
        open_session(replace(digits_bundle, files=files), "onnxruntime", precision="int8")
    assert not list(Path(tempfile.gettempdir()).glob("samdeploy-*/profile*")), "a profile was left"


def test_emulation_shows_the_rounding_of_weights(digits_bundle: Bundle) -> None:
    images, logits = digits_bundle.golden()
    error = np.abs(backend.emulate(_graph(digits_bundle, "fp16"), images) - logits).max() / np.ptp(logits)
    assert 1e-5 < error < 5e-3  # FP32 gives less than 1e-5, FP16 weights carry 11 bits


def test_emulation_of_fp32_is_exact_enough(digits_bundle: Bundle) -> None:
    images, logits = digits_bundle.golden()
    error = np.abs(backend.emulate(_graph(digits_bundle, "fp32"), images) - logits).max() / np.ptp(logits)
    assert error < 1e-5


def test_emulation_of_no_graph() -> None:
    with pytest.raises(BackendUnavailable, match="cannot open the graph"):
        backend.emulate(b"", np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(("precision", "settings"), [("fp32", {"use_tf32": "0"}), ("fp16", {"prefer_nhwc": "1"})])
def test_only_fp32_forbids_tf32_on_cuda(
    digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, precision: str, settings: dict[str, str]
) -> None:
    """In FP16 the switch would take the convolutions off the tensor cores."""
    asked: list[object] = []

    class Found(Exception):
        pass

    def session(*_: object, providers: list[object], **__: object) -> None:
        asked.extend(providers)
        raise Found("CUDNN_STATUS_ALLOC_FAILED")

    monkeypatch.setattr(ort, "InferenceSession", session)
    with (
        SealedFile(_graph(digits_bundle, precision)) as graph,
        pytest.raises(BackendUnavailable, match="cannot open the graph: the GPU's memory is full: use a smaller batch"),
    ):
        open_inference(graph, Options(CUDA, fp16=precision == "fp16"))
    assert asked[0] == ("CUDAExecutionProvider", settings)


def test_a_full_memory_of_the_cpu_is_not_the_gpus() -> None:
    """A real one: an image repeated 2^50 times."""
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["N", 8, 8, 3])
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.UINT8, None)
    times = onnx.numpy_helper.from_array(np.array([1 << 50, 8, 8, 3], np.int64), "times")
    repeat = onnx.helper.make_node("Expand", ["image", "times"], ["logits"])
    graph = onnx.helper.make_graph([repeat], "repeat", [image], [logits], [times])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(BackendUnavailable, match="failed on a batch of 1: the machine's memory is full: use a smaller"):
        backend.emulate(model.SerializeToString(), np.zeros((1, 8, 8, 3), np.uint8))
