"""Device arrays, streams, CUDA graphs and memory on a real GPU, through ONNX Runtime and, where it runs, TensorRT."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from samdeploy.backends import availability, open_session
from samdeploy.backends.device.cuda import cuda_devices
from samdeploy.backends.device.session import DeviceSession
from samdeploy.backends.onnxruntime import session as onnxruntime
from samdeploy.backends.session import Wanted
from samdeploy.backends.tensorrt import session as tensorrt
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, InputError

_DEVICES, _WHY = cuda_devices()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not _DEVICES, reason=f"no CUDA device: {_WHY}")]

torch = pytest.importorskip("torch")

# As a share of the logits' range; FP32 without TF32 against PyTorch on the CPU, and FP16's 11 bits through 20 layers.
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
CASES = [("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("tensorrt", "fp16")]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def session(request: pytest.FixtureRequest, digits_bundle: Bundle) -> Iterator[DeviceSession]:
    backend, precision = request.param
    reason = availability(backend)
    if reason:
        pytest.skip(reason)
    if backend == "tensorrt":
        opened: Any = tensorrt.load(Wanted(request.getfixturevalue("engine_bundle"), "cuda", precision))
    else:
        try:
            opened = onnxruntime.load(Wanted(digits_bundle, "cuda", precision))
        except BackendUnavailable as error:
            pytest.skip(str(error))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def reference(digits_bundle: Bundle) -> Iterator[Any]:
    with open_session(digits_bundle, "pytorch", device="cpu") as opened:
        yield opened


def _images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def _assert_close(found: np.ndarray, expected: np.ndarray, precision: str) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[precision] * float(np.ptp(expected)))


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("count", [1, 3, 4, 11])
def test_run_and_run_async_equal_pytorch(session: DeviceSession, reference: Any, count: int, cuda_graph: bool) -> None:
    session.cuda_graph = cuda_graph
    stream = torch.cuda.Stream()
    for repeat in range(4):  # warm-up, capture, replay, replay
        images = _images(count, repeat)
        expected = reference.run(images)
        _assert_close(session.run(images), expected, session.precision)
        with torch.cuda.stream(stream):
            source = torch.from_numpy(images).cuda()
            target = torch.full((count, 10), float("nan"), device="cuda")
            session.run_async(source, target, stream)
            found = target.cpu().numpy()  # queued on the same stream: waits for the work and for nothing else
        np.testing.assert_array_equal(found, session.run(images))
    assert session.cuda_graph is cuda_graph, session.cuda_graph_note


def test_graph_replays_equal_eager_runs_200_times(session: DeviceSession) -> None:
    images = _images(4)
    session.cuda_graph = False
    eager = session.run(images)
    session.cuda_graph = True
    for _ in range(200):
        np.testing.assert_array_equal(session.run(images), eager)
    assert session.cuda_graph, session.cuda_graph_note
    session.cuda_graph = False
    for _ in range(200):
        np.testing.assert_array_equal(session.run(images), eager)


def test_the_callers_stream_orders_the_work(session: DeviceSession) -> None:
    """The input is written late on the caller's stream, and overwritten after: both must be kept apart from the run."""
    images = _images(4)
    expected = session.run(images)
    for cuda_graph in (False, True):
        session.cuda_graph = cuda_graph
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            real = torch.from_numpy(images).cuda()
            source, target = torch.zeros_like(real), torch.zeros((4, 10), device="cuda")
            for _ in range(20):
                torch.cuda._sleep(2_000_000)  # about a millisecond
                source.copy_(real)
                session.run_async(source, target, stream.cuda_stream)
                source.zero_()
                np.testing.assert_array_equal(target.cpu().numpy(), expected)
                target.zero_()


def test_cupy_arrays_and_streams(session: DeviceSession) -> None:
    cupy = pytest.importorskip("cupy")
    images = _images(4)
    expected = session.run(images)
    for stream in (cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream.null):
        for named in (stream, stream.ptr, None):  # None: CuPy's arrays name their stream
            with stream:
                source, target = cupy.asarray(images), cupy.zeros((4, 10), cupy.float32)
                session.run_async(source, target, named)
                np.testing.assert_array_equal(cupy.asnumpy(target), expected)


def test_threads_take_turns(session: DeviceSession) -> None:
    session.cuda_graph = True
    batches = [_images(1 + seed % 4, seed) for seed in range(8)]
    alone = [session.run(images) for images in batches]

    def work(index: int) -> np.ndarray:
        if index % 2:
            return session.run(batches[index % 8])
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            source = torch.from_numpy(batches[index % 8]).cuda()
            target = torch.zeros((len(source), 10), device="cuda")
            session.run_async(source, target, stream)
            return np.asarray(target.cpu().numpy())

    with ThreadPoolExecutor(2) as pool:
        for index, logits in enumerate(pool.map(work, range(80))):
            _assert_close(logits, alone[index % 8], "fp32" if session.precision == "fp32" else "fp16")


def test_wrong_arrays_are_refused(session: DeviceSession) -> None:
    source, target = torch.from_numpy(_images(2)).cuda(), torch.zeros((2, 10), device="cuda")
    cases = [
        (source.float(), target, r"images: float32 \[2, 32, 32, 3\] found"),
        (source.permute(0, 3, 1, 2), target, r"images: uint8 \[2, 3, 32, 32\] found"),
        (source.flip(0).transpose(1, 2), target, "images: strides .* make a contiguous copy first"),
        (source, target.half(), r"logits: float16 \[2, 10\] found"),
        (source, target[:1], "logits: 1 rows found, 2 expected"),
        (_images(2), target, r"images: ndarray without __cuda_array_interface__"),
    ]
    for images, logits, text in cases:
        with pytest.raises(InputError, match=text):
            session.run_async(images, logits)
    host = type("Host", (), {"__cuda_array_interface__": {**source.__cuda_array_interface__}})
    pageable = _images(2)
    host.__cuda_array_interface__["data"] = (pageable.ctypes.data, False)
    with pytest.raises(InputError, match="is not in device memory; copy it to the GPU first"):
        session.run_async(host(), target)


def test_a_full_gpu_is_an_error_and_the_session_goes_on(digits_bundle: Bundle, reference: Any) -> None:
    try:
        opened: Any = onnxruntime.load(Wanted(digits_bundle, "cuda", "fp32"))
    except BackendUnavailable as error:
        pytest.skip(str(error))
    images = _images(2)
    _assert_close(opened.run(images), reference.run(images), "fp32")
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - (1 << 30), dtype=torch.uint8, device="cuda")
    try:
        with pytest.raises(BackendUnavailable, match="use a smaller batch"):
            opened.run(np.zeros((60_000, 32, 32, 3), np.uint8))  # 4 GB after the first layer
        _assert_close(opened.run(images), reference.run(images), "fp32")
    finally:
        del taken
        torch.cuda.empty_cache()
        opened.close()


def test_the_device_clock_is_below_the_hosts(session: DeviceSession) -> None:
    images = _images(4)
    for _ in range(20):
        session.run(images)
    device, host = [], []
    for _ in range(50):
        device.append(session.device_ms(images))
        start = time.perf_counter()
        session.run(images)
        host.append((time.perf_counter() - start) * 1e3)
    assert 0 < np.median(device) < np.median(host)


def test_fp16_runs_on_the_tensor_cores(digits_bundle: Bundle) -> None:
    """FP32 without TF32 cannot: where the two take as long as one another, FP16 does not either."""
    images, times = _images(1024), {}
    for precision in ("fp32", "fp16"):
        try:
            opened: Any = onnxruntime.load(Wanted(digits_bundle, "cuda", precision))
        except BackendUnavailable as error:
            pytest.skip(str(error))
        times[precision] = float(np.median([opened.device_ms(images) for _ in range(20)]))
        assert opened.cuda_graph, opened.cuda_graph_note
        opened.close()
    assert times["fp16"] < 0.6 * times["fp32"], times
