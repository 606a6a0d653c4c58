"""Buffers, pieces, order between streams and CUDA graphs of `DeviceSession`, on a CUDA simulated in host memory.

`HostCuda` answers the calls of `cuda.bindings.runtime`.  Work is queued and done only when something waits for it, so
a missing wait gives wrong numbers here, as it would on a GPU.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from samdeploy.backends import device_session
from samdeploy.backends.cuda_objects import Stream
from samdeploy.backends.device_session import GRAPH_LIMIT, DeviceSession
from samdeploy.errors import BackendUnavailable, InputError
from samdeploy.spec import ModelSpec, Preprocessing, model_spec

cuda_bindings = pytest.importorskip("cuda.bindings", reason="pip install 'cuda-python>=12.9'")
real = pytest.importorskip("cuda.bindings.runtime")

SPEC: ModelSpec = model_spec("sam-resnet18", "identity", ("cat", "dog", "owl"), Preprocessing(height=8, width=32))
OK = real.cudaError_t.cudaSuccess
FULL = real.cudaError_t.cudaErrorMemoryAllocation
Work = Callable[[], None]


class HostCuda:
    """The CUDA runtime's functions on host memory, with streams that do nothing until they must."""

    def __init__(self) -> None:
        self.queues: dict[int, list[Work]] = {1: []}
        self.events: dict[int, Work] = {}
        self.captures: dict[int, list[Work]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.arrays: dict[int, np.ndarray] = {}
        self.free_bytes = 1 << 30
        self.device = 0
        self.log: list[str] = []
        self.now = 0.0  # a batch takes 1 ms, a copy 100 ms
        self.reached: dict[int, float] = {}  # when the stream passed an event
        self._next = 100

    def __getattr__(self, name: str) -> Any:  # constants and enumerations are the real ones
        if not name.startswith("cuda"):
            raise AttributeError(name)
        assert not callable(getattr(real, name)) or isinstance(getattr(real, name), type), f"{name} is not simulated"
        return getattr(real, name)

    def _handle(self) -> int:
        self._next += 1
        return self._next

    def queue(self, stream: int, work: Work) -> None:
        self.captures.get(int(stream), self.queues[int(stream)]).append(work)

    def finish(self, stream: int, count: int | None = None) -> None:
        queue = self.queues[stream]
        for _ in range(len(queue) if count is None else min(count, len(queue))):
            queue.pop(0)()

    def allocate(self, nbytes: int) -> int:
        memory = np.full(nbytes + 256, 0xA5, np.uint8)
        address = -(-memory.ctypes.data // 256) * 256
        self.arrays[address] = memory
        return address

    def cudaGetLastError(self) -> tuple[Any]:  # noqa: N802 - CUDA's names, here and below
        return (OK,)

    def cudaGetDevice(self) -> tuple[Any, int]:  # noqa: N802
        return OK, self.device

    def cudaSetDevice(self, device: int) -> tuple[Any]:  # noqa: N802
        self.device = device
        return (OK,)

    def cudaMalloc(self, nbytes: int) -> tuple[Any, int]:  # noqa: N802
        if nbytes > self.free_bytes:
            return FULL, 0
        self.log.append(f"malloc {nbytes}")
        return OK, self.allocate(nbytes)

    def cudaHostAlloc(self, nbytes: int, flags: int) -> tuple[Any, int]:  # noqa: N802
        return OK, self.allocate(nbytes)

    def cudaFree(self, address: int) -> tuple[Any]:  # noqa: N802
        self.arrays.pop(address)[:] = 0xEE
        return (OK,)

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, int]:  # noqa: N802
        handle = self._handle()
        self.queues[handle] = []
        return OK, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[Any]:  # noqa: N802
        assert not self.queues.pop(stream)
        return (OK,)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Any, int]:  # noqa: N802
        return OK, self._handle()

    def cudaEventDestroy(self, event: int) -> tuple[Any]:  # noqa: N802
        return (OK,)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Any]:  # noqa: N802
        reached = SimpleNamespace(done=False)

        def pass_by() -> None:
            reached.done, self.reached[int(event)] = True, self.now

        self.queue(stream, pass_by)

        def wait() -> None:
            while not reached.done:
                self.finish(stream, 1)

        self.events[event] = wait
        return (OK,)

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple[Any, float]:  # noqa: N802
        return OK, self.reached[end] - self.reached[start]

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[Any]:  # noqa: N802
        self.queue(stream, self.events[event])
        return (OK,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any]:  # noqa: N802
        assert stream not in self.captures, "a capture forbids this"
        self.finish(stream)
        return (OK,)

    def cudaMemcpyAsync(self, target: int, source: int, nbytes: int, kind: Any, stream: int) -> tuple[Any]:  # noqa: N802
        def copy() -> None:
            ctypes.memmove(target, source, nbytes)
            self.now += 100

        self.queue(stream, copy)
        return (OK,)

    def cudaMemsetAsync(self, target: int, value: int, nbytes: int, stream: int) -> tuple[Any]:  # noqa: N802
        self.queue(stream, lambda: ctypes.memset(target, value, nbytes) and None)
        return (OK,)

    def cudaStreamBeginCapture(self, stream: int, mode: Any) -> tuple[Any]:  # noqa: N802
        self.captures[stream] = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, int]:  # noqa: N802
        handle = self._handle()
        self.graphs[handle] = self.captures.pop(stream)
        return OK, handle

    def cudaStreamIsCapturing(self, stream: int) -> tuple[Any, Any]:  # noqa: N802
        kinds = real.cudaStreamCaptureStatus
        active = stream in self.captures
        return OK, kinds.cudaStreamCaptureStatusActive if active else kinds.cudaStreamCaptureStatusNone

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, int]:  # noqa: N802
        handle = self._handle()
        self.graphs[handle] = self.graphs[graph]
        self.log.append("graph")
        return OK, handle

    def cudaGraphDestroy(self, graph: int) -> tuple[Any]:  # noqa: N802
        del self.graphs[graph]
        return (OK,)

    cudaGraphExecDestroy = cudaGraphDestroy  # noqa: N815

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Any]:  # noqa: N802
        self.log.append("launch")
        for work in self.graphs[graph]:
            self.queue(stream, work)
        return (OK,)

    def cudaPointerGetAttributes(self, address: int) -> tuple[Any, Any]:  # noqa: N802
        kinds = real.cudaMemoryType
        inside = any(start <= address < start + len(memory) for start, memory in self.arrays.items())
        kind = kinds.cudaMemoryTypeDevice if inside else kinds.cudaMemoryTypeUnregistered
        return OK, SimpleNamespace(type=kind, device=self.device_of.get(address, 0))

    device_of: dict[int, int] = {}  # noqa: RUF012


def _view(address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address)).view(dtype).reshape(shape)


def logits_of(images: np.ndarray) -> np.ndarray:
    """What the engine below computes: the mean of each colour."""
    return images.astype(np.float32).mean(axis=(1, 2))


class Engine:
    """Takes `min_batch` to `max_batch` images."""

    def __init__(self, cuda: HostCuda, min_batch: int = 1, max_batch: int | None = None) -> None:
        self.cuda, self.min_batch, self.max_batch = cuda, min_batch, max_batch
        self.batches: list[int] = []
        self.recordable, self.fails, self.closed = True, False, 0
        self.elsewhere = False  # computes where a capture does not see it

    def enqueue(self, images: int, logits: int, batch: int, stream: Stream) -> None:
        assert self.min_batch <= batch and (self.max_batch is None or batch <= self.max_batch)
        assert images % 256 == 0 and logits % 256 == 0
        if self.fails or (self.cuda.captures and not self.recordable):
            raise BackendUnavailable("the engine failed")
        self.batches.append(batch)

        def work() -> None:
            _view(logits, (batch, 3), np.float32)[:] = logits_of(_view(images, (batch, 8, 32, 3), np.uint8))
            self.cuda.now += 1

        if self.elsewhere:
            self.cuda.finish(stream.handle)
            work()
        else:
            self.cuda.queue(stream.handle, work)

    def can_be_captured(self, stream: Stream) -> bool:
        return True

    def close(self) -> None:
        self.closed += 1


@dataclasses.dataclass
class OnDevice:
    """An array as another package would hand it over."""

    address: int
    shape: tuple[int, ...]
    typestr: str
    stream: int | None = None
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        data = {"shape": self.shape, "typestr": self.typestr, "data": (self.address, False), "version": 3}
        return {**data, "strides": None, "stream": self.stream, **self.changes}


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> HostCuda:
    host = HostCuda()
    monkeypatch.setattr(cuda_bindings, "runtime", host)
    monkeypatch.setattr(host, "device_of", {})
    return host


@pytest.fixture
def engine(cuda: HostCuda) -> Engine:
    return Engine(cuda)


@pytest.fixture
def session(cuda: HostCuda, engine: Engine) -> Iterator[DeviceSession]:
    opened = DeviceSession("tensorrt", "fp16", SPEC, engine, Stream())
    yield opened
    opened.close()
    assert not cuda.arrays and not cuda.graphs and list(cuda.queues) == [1]  # all that was taken was given back


def _images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 32, 3), dtype=np.uint8)


def _to_device(cuda: HostCuda, images: np.ndarray, offset: int = 0) -> tuple[OnDevice, OnDevice]:
    address = cuda.allocate(images.nbytes + offset) + offset
    _view(address, images.shape, np.uint8)[:] = images
    return OnDevice(address, images.shape, "|u1"), OnDevice(cuda.allocate(len(images) * 12), (len(images), 3), "<f4")


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 11])
def test_any_batch_size_runs_in_pieces_that_fit(cuda: HostCuda, count: int, cuda_graph: bool) -> None:
    engine = Engine(cuda, 2, 4)
    session = DeviceSession("tensorrt", "fp16", SPEC, engine, Stream(), cuda_graph=cuda_graph)
    for repeat in range(4):
        images = _images(count, repeat)
        np.testing.assert_array_equal(session.run(images), logits_of(images))
    session.close()
    assert engine.closed == 1 and not cuda.arrays


def test_a_graph_is_recorded_on_the_second_run_and_replayed_from_then_on(
    cuda: HostCuda, engine: Engine, session: DeviceSession
) -> None:
    for repeat in range(5):
        images = _images(3, repeat)
        np.testing.assert_array_equal(session.run(images), logits_of(images))
    assert [line for line in cuda.log if "malloc" not in line] == ["graph", *["launch"] * 4]  # one to check it
    assert engine.batches == [3, 3, 3]  # run; run again and recorded


def test_graphs_follow_when_the_buffers_grow(cuda: HostCuda, engine: Engine, session: DeviceSession) -> None:
    for count in (2, 2, 2, 5, 2, 2, 2, 5, 5, 5):
        images = _images(count, count)
        np.testing.assert_array_equal(session.run(images), logits_of(images))
    assert cuda.log.count("graph") == 3  # 2, and after the buffers moved 2 and 5


def test_graphs_can_be_switched_off_and_on(cuda: HostCuda, engine: Engine, session: DeviceSession) -> None:
    images = _images(2)
    session.cuda_graph = False
    for _ in range(3):
        session.run(images)
    assert "launch" not in cuda.log and engine.batches == [2, 2, 2]
    session.cuda_graph = True
    for _ in range(3):
        np.testing.assert_array_equal(session.run(images), logits_of(images))
    assert cuda.log.count("launch") == 2  # one to check it


def test_only_so_many_graphs_are_kept(cuda: HostCuda, session: DeviceSession) -> None:
    session.run(_images(40))
    for count in range(1, 40):
        for _ in range(2):
            session.run(_images(count))
    assert cuda.log.count("graph") == 39
    assert len(cuda.graphs) == GRAPH_LIMIT


def test_a_runtime_that_cannot_be_recorded_runs_without(engine: Engine, session: DeviceSession) -> None:
    engine.recordable = False
    for repeat in range(4):
        images = _images(2, repeat)
        np.testing.assert_array_equal(session.run(images), logits_of(images))
    assert not session.cuda_graph
    assert session.cuda_graph_note == "the engine failed"


def test_a_graph_that_gives_other_logits_is_not_used(engine: Engine, session: DeviceSession) -> None:
    engine.elsewhere = True
    for repeat in range(4):
        images = _images(2, repeat)
        np.testing.assert_array_equal(session.run(images), logits_of(images))
    assert not session.cuda_graph
    assert session.cuda_graph_note == "the recorded work of tensorrt gives other logits than the work itself"


def test_large_batches_do_not_lock_memory(
    cuda: HostCuda, session: DeviceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_session, "PINNED_LIMIT", 5 * 8 * 32 * 3)
    for count in (6, 5, 6, 1):
        images = _images(count)
        np.testing.assert_array_equal(session.run(images), logits_of(images))


def test_threads_take_turns(session: DeviceSession) -> None:
    batches = [_images(1 + seed % 4, seed) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for images, logits in zip(batches, pool.map(session.run, batches), strict=True):
            np.testing.assert_array_equal(logits, logits_of(images))


def test_too_little_memory_is_an_error_and_the_session_goes_on(cuda: HostCuda, session: DeviceSession) -> None:
    images = _images(2)
    session.run(images)
    cuda.free_bytes = 100 * 768
    with pytest.raises(
        BackendUnavailable, match=r"cudaMalloc failed: cudaErrorMemoryAllocation \(2\).*use a smaller batch"
    ):
        session.run(_images(101))
    np.testing.assert_array_equal(session.run(images), logits_of(images))


def test_an_error_of_the_engine_leaves_a_usable_session(engine: Engine, session: DeviceSession) -> None:
    engine.fails = True
    with pytest.raises(BackendUnavailable, match="the engine failed"):
        session.run(_images(2))
    engine.fails = False
    images = _images(2, 1)
    np.testing.assert_array_equal(session.run(images), logits_of(images))


def test_the_callers_device_is_left_as_it_was(cuda: HostCuda, session: DeviceSession) -> None:
    cuda.device = 3
    session.run(_images(1))
    assert cuda.device == 3
    cuda.device = 0


class TestAsync:
    """Arrays of the caller, on the caller's stream."""

    @pytest.fixture
    def session(self, cuda: HostCuda, engine: Engine) -> Iterator[DeviceSession]:
        opened = DeviceSession("tensorrt", "fp16", SPEC, engine, Stream())
        yield opened
        opened.close()

    @pytest.mark.parametrize("cuda_graph", [True, False])
    def test_it_starts_after_the_callers_work_and_before_what_follows(
        self, cuda: HostCuda, session: DeviceSession, cuda_graph: bool
    ) -> None:
        session.cuda_graph = cuda_graph
        _, mine = cuda.cudaStreamCreateWithFlags(0)
        for repeat in range(4):
            images = _images(4, repeat)
            source, target = _to_device(cuda, np.zeros_like(images))
            after = np.zeros((4, 3), np.float32)
            cuda.queue(mine, lambda s=source, i=images: _view(s.address, i.shape, np.uint8).__setitem__(..., i))
            session.run_async(source, target, mine)
            cuda.queue(mine, lambda t=target, a=after: a.__setitem__(..., _view(t.address, a.shape, np.float32)))
            assert not after.any()  # nothing waited
            cuda.finish(mine)
            np.testing.assert_array_equal(after, logits_of(images))

    @pytest.mark.parametrize("stream", [None, 0, 1])
    def test_no_stream_is_the_default_stream(self, cuda: HostCuda, session: DeviceSession, stream: int | None) -> None:
        images = _images(2)
        source, target = _to_device(cuda, images)
        session.run_async(source, target, stream)
        cuda.finish(1)
        np.testing.assert_array_equal(_view(target.address, (2, 3), np.float32), logits_of(images))

    def test_streams_that_the_arrays_name_are_waited_for(self, cuda: HostCuda, session: DeviceSession) -> None:
        _, mine = cuda.cudaStreamCreateWithFlags(0)
        _, producer = cuda.cudaStreamCreateWithFlags(0)
        images = _images(4)
        source, target = _to_device(cuda, np.zeros_like(images))
        cuda.queue(producer, lambda: _view(source.address, images.shape, np.uint8).__setitem__(..., images))
        source.stream = producer
        session.run_async(source, target, mine)
        cuda.finish(mine)
        np.testing.assert_array_equal(_view(target.address, (4, 3), np.float32), logits_of(images))

    @pytest.mark.parametrize("cuda_graph", [True, False])
    @pytest.mark.parametrize(("count", "offset"), [(1, 0), (4, 0), (11, 0), (4, 4)])
    def test_pieces_small_batches_and_odd_addresses(
        self, cuda: HostCuda, count: int, offset: int, cuda_graph: bool
    ) -> None:
        session = DeviceSession("tensorrt", "fp16", SPEC, Engine(cuda, 2, 4), Stream(), cuda_graph=cuda_graph)
        for repeat in range(3):
            images = _images(count, repeat)
            source, target = _to_device(cuda, images, offset)
            session.run_async(source, target)
            cuda.finish(1)
            np.testing.assert_array_equal(_view(target.address, (count, 3), np.float32), logits_of(images))
        session.close()

    @pytest.mark.parametrize(
        ("images", "logits", "text"),
        [
            ({"typestr": "<f4"}, {}, r"images: float32 \[2, 8, 32, 3\] found, uint8 \[N, 8, 32, 3\], C-contiguous"),
            ({"shape": (8, 32, 3)}, {}, r"images: uint8 \[8, 32, 3\] found"),
            ({"shape": (2, 3, 8, 32)}, {}, r"images: uint8 \[2, 3, 8, 32\] found"),
            ({"shape": (0, 8, 32, 3)}, {}, r"images: uint8 \[0, 8, 32, 3\] found"),
            ({"strides": (768, 3, 24, 1)}, {}, r"images: strides \(768, 3, 24, 1\) found.*make a contiguous copy"),
            ({"version": 1}, {}, "images: __cuda_array_interface__ version 1 found, 2 or 3 expected"),
            ({"stream": 0}, {}, "images: stream 0 found in its __cuda_array_interface__"),
            ({"mask": object()}, {}, "images: a masked array found"),
            ({"data": (0, False)}, {}, "images: address 0 found"),
            ({"data": None}, {}, "images: its __cuda_array_interface__ is damaged"),
            ({"typestr": "zebra"}, {}, "images: its __cuda_array_interface__ is damaged"),
            ({}, {"typestr": "<f2"}, r"logits: float16 \[2, 3\] found, float32 \[N, 3\]"),
            ({}, {"typestr": ">f4"}, r"logits: >f4 \[2, 3\] found, float32 \[N, 3\]"),
            ({}, {"shape": (2, 4)}, r"logits: float32 \[2, 4\] found"),
            ({}, {"shape": (3, 3)}, "logits: 3 rows found, 2 expected: one for each image"),
        ],
    )
    def test_wrong_arrays(
        self, cuda: HostCuda, session: DeviceSession, images: dict[str, Any], logits: dict[str, Any], text: str
    ) -> None:
        source, target = _to_device(cuda, _images(2))
        source.changes, target.changes = images, logits
        with pytest.raises(InputError, match=text):
            session.run_async(source, target)

    def test_a_read_only_target(self, cuda: HostCuda, session: DeviceSession) -> None:
        source, target = _to_device(cuda, _images(2))
        source.changes = {"data": (source.address, True)}  # allowed: it is only read
        session.run_async(source, target)
        target.changes = {"data": (target.address, True)}
        with pytest.raises(InputError, match="logits: a read-only array found"):
            session.run_async(source, target)

    def test_strides_of_axes_of_length_one_do_not_matter(self, cuda: HostCuda, session: DeviceSession) -> None:
        images = _images(1)
        source, target = _to_device(cuda, images)
        source.changes = {"strides": (7, 96, 3, 1)}
        session.run_async(source, target)
        cuda.finish(1)
        np.testing.assert_array_equal(_view(target.address, (1, 3), np.float32), logits_of(images))

    def test_host_arrays_and_other_devices(self, cuda: HostCuda, session: DeviceSession) -> None:
        source, target = _to_device(cuda, _images(2))
        with pytest.raises(InputError, match=r"images: ndarray without __cuda_array_interface__.*go to run\(\)"):
            session.run_async(_images(2), target)
        host = np.zeros((2, 3), np.float32)
        with pytest.raises(InputError, match=r"logits: the address 0x[0-9a-f]+ is not in device memory"):
            session.run_async(source, OnDevice(host.ctypes.data, (2, 3), "<f4"))
        cuda.device_of[source.address] = 1
        with pytest.raises(InputError, match=r"images: it lies on device 1, .*CUDA_VISIBLE_DEVICES"):
            session.run_async(source, target)

    @pytest.mark.parametrize("stream", ["main", 1.5j, -1, True, object()])
    def test_wrong_streams(self, cuda: HostCuda, session: DeviceSession, stream: object) -> None:
        source, target = _to_device(cuda, _images(2))
        with pytest.raises(InputError, match=r"stream: \w+ found; an int, or a stream of PyTorch, CuPy, PyCUDA"):
            session.run_async(source, target, stream)

    @pytest.mark.parametrize("kind", ["cuda_stream", "ptr", "handle", "ctypes", "protocol"])
    def test_streams_of_other_packages(self, cuda: HostCuda, session: DeviceSession, kind: str) -> None:
        _, handle = cuda.cudaStreamCreateWithFlags(0)
        stream: Any = SimpleNamespace(**{kind: handle})
        if kind == "ctypes":
            stream = SimpleNamespace(handle=ctypes.c_void_p(handle))
        if kind == "protocol":
            stream = type("Stream", (), {"__cuda_stream__": lambda self: (0, handle)})()
        images = _images(2)
        source, target = _to_device(cuda, images)
        session.run_async(source, target, stream)
        cuda.finish(handle)
        np.testing.assert_array_equal(_view(target.address, (2, 3), np.float32), logits_of(images))

    def test_a_stream_that_is_being_captured(self, cuda: HostCuda, session: DeviceSession) -> None:
        source, target = _to_device(cuda, _images(2))
        _, mine = cuda.cudaStreamCreateWithFlags(0)
        cuda.cudaStreamBeginCapture(mine, None)
        with pytest.raises(InputError, match="it is being captured"):
            session.run_async(source, target, mine)

    def test_a_closed_session(self, cuda: HostCuda, session: DeviceSession) -> None:
        source, target = _to_device(cuda, _images(2))
        session.close()
        session.close()
        with pytest.raises(InputError, match="this tensorrt session is closed"):
            session.run_async(source, target)


# --- the device's clock -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_the_device_clock_holds_the_work_without_copies(
    session: DeviceSession, engine: Engine, cuda: HostCuda, cuda_graph: bool
) -> None:
    session.cuda_graph = cuda_graph
    images = _images(3)
    session.run(images)
    session.run(images)
    assert [session.device_ms(images) for _ in range(3)] == [1.0, 1.0, 1.0]
    assert ("launch" in cuda.log) == cuda_graph
    np.testing.assert_array_equal(session.run(images), logits_of(images))


def test_the_copy_is_over_before_the_device_clock_starts(
    session: DeviceSession, engine: Engine, cuda: HostCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.cuda_graph = False
    plain, found = engine.enqueue, []
    monkeypatch.setattr(engine, "enqueue", lambda *arguments: (found.append(cuda.now), plain(*arguments)))
    session.device_ms(_images(2))
    assert found == [100.0]


def test_the_device_clock_works_on_the_pictures_it_was_given(session: DeviceSession, cuda: HostCuda) -> None:
    session.cuda_graph = False
    images = _images(2, seed=5)
    session.device_ms(images)
    logits = _view(session._memory[1].address, (2, 3), np.float32)
    np.testing.assert_array_equal(logits, logits_of(images))


def test_the_device_clock_refuses_a_batch_that_it_would_have_to_split_or_fill(cuda: HostCuda) -> None:
    opened = DeviceSession("tensorrt", "fp16", SPEC, Engine(cuda, 2, 4), Stream())
    for count in (1, 5):
        with pytest.raises(InputError, match=rf"batch of {count} found, 2 to 4 expected by the engine's profile"):
            opened.device_ms(_images(count))
    assert opened.device_ms(_images(4)) == 1.0
    opened.close()


def test_an_engine_that_fails_under_the_device_clock_leaves_the_session_usable(
    session: DeviceSession, engine: Engine
) -> None:
    engine.fails = True
    with pytest.raises(BackendUnavailable, match="the engine failed"):
        session.device_ms(_images(2))
    engine.fails = False
    images = _images(2)
    np.testing.assert_array_equal(session.run(images), logits_of(images))
