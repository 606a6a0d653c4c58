"""CUDA simulated in host memory, and an engine on it.

`HostCuda` answers the calls of `cuda.bindings.runtime`.  Work is queued and done only when something waits for it, so
a missing wait gives wrong numbers here, as it would on a GPU.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from samdeploy.backends.device.objects import Stream
from samdeploy.bundle.spec import ModelSpec, Preprocessing, model_spec
from samdeploy.errors import BackendUnavailable

cuda_bindings = pytest.importorskip("cuda.bindings", reason="pip install 'cuda-python>=12.9'")
real = pytest.importorskip("cuda.bindings.runtime")

SPEC: ModelSpec = model_spec(
    "sam-resnet18", {"gate": "identity"}, ("cat", "dog", "owl"), Preprocessing(height=8, width=32)
)
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


def view(address: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
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
            view(logits, (batch, 3), np.float32)[:] = logits_of(view(images, (batch, 8, 32, 3), np.uint8))
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


def images_of(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 32, 3), dtype=np.uint8)


def to_device(cuda: HostCuda, images: np.ndarray, offset: int = 0) -> tuple[OnDevice, OnDevice]:
    address = cuda.allocate(images.nbytes + offset) + offset
    view(address, images.shape, np.uint8)[:] = images
    return OnDevice(address, images.shape, "|u1"), OnDevice(cuda.allocate(len(images) * 12), (len(images), 3), "<f4")
