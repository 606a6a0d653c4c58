"""Streams, graphs and memory of CUDA, as far as the sessions need them.

Device 0 must be the thread's current device (`cuda.device_zero`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from samdeploy.backends.device.cuda import call, runtime
from samdeploy.errors import BackendUnavailable

# The handle of the legacy default stream; 0 means the same to CUDA, and nothing to `__cuda_array_interface__`.
LEGACY_DEFAULT_STREAM = 1


class Stream:
    """A stream of its own, which does not wait for the default stream."""

    def __init__(self) -> None:
        self._stream = call("cudaStreamCreateWithFlags", runtime().cudaStreamNonBlocking)
        try:
            self._event = call("cudaEventCreateWithFlags", runtime().cudaEventDisableTiming)
        except BackendUnavailable:
            call("cudaStreamDestroy", self._stream)
            raise

    @property
    def handle(self) -> int:
        """The address that TensorRT and ONNX Runtime take."""
        return int(self._stream)

    def wait_for(self, other: int) -> None:
        """What is queued here from now on starts after all that is queued on the stream `other` now."""
        self._order(other, self.handle)

    def release(self, other: int) -> None:
        """What is queued on the stream `other` from now on starts after all that is queued here now."""
        self._order(self.handle, other)

    def _order(self, first: int, second: int) -> None:
        if first != second:
            # A wait is bound to the event's latest record when it is queued, so one event serves all.
            call("cudaEventRecord", self._event, first)
            call("cudaStreamWaitEvent", second, self._event, 0)

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Queue a copy between two addresses, each of the device or of host memory."""
        call("cudaMemcpyAsync", target, source, nbytes, runtime().cudaMemcpyKind.cudaMemcpyDefault, self._stream)

    def fill(self, target: int, value: int, nbytes: int) -> None:
        """Queue setting every byte of device memory to `value`."""
        call("cudaMemsetAsync", target, value, nbytes, self._stream)

    def synchronize(self) -> None:
        """Wait until everything on the stream is done; errors of its kernels come out here."""
        call("cudaStreamSynchronize", self._stream)

    def elapsed_ms(self, enqueue: Callable[[], None]) -> float:
        """Milliseconds on the device between two events around what `enqueue` queues on this stream; waits for it.

        Where the host queues more slowly than the device works, the gaps count: a caller has them, too.
        """
        events: list[object] = []
        try:
            events.extend(call("cudaEventCreateWithFlags", runtime().cudaEventDefault) for _ in range(2))
            call("cudaEventRecord", events[0], self._stream)
            enqueue()
            call("cudaEventRecord", events[1], self._stream)
            self.synchronize()
            return float(call("cudaEventElapsedTime", *events))
        finally:
            for event in events:
                call("cudaEventDestroy", event)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """Record what `enqueue` queues on this stream, without running it.

        Raises:
            BackendUnavailable: `enqueue` did something that cannot be recorded, such as allocating memory.
        """
        # Thread-local: other threads may go on allocating memory meanwhile.
        mode = runtime().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        call("cudaStreamBeginCapture", self._stream, mode)
        try:
            enqueue()
        except BaseException:
            _, graph = runtime().cudaStreamEndCapture(self._stream)  # takes the stream out of capture in any case
            if int(graph or 0):
                runtime().cudaGraphDestroy(graph)
            runtime().cudaGetLastError()
            raise
        graph = call("cudaStreamEndCapture", self._stream)
        try:
            return Graph(call("cudaGraphInstantiate", graph, 0))
        finally:
            call("cudaGraphDestroy", graph)

    def close(self) -> None:
        call("cudaEventDestroy", self._event)
        call("cudaStreamDestroy", self._stream)


def is_capturing(stream: int) -> bool:
    """Whether work queued on this stream is recorded rather than run."""
    status = call("cudaStreamIsCapturing", stream)
    return int(status) != int(runtime().cudaStreamCaptureStatus.cudaStreamCaptureStatusNone)


class Graph:
    """Recorded work with fixed addresses and sizes: one call to start it instead of one for each kernel."""

    def __init__(self, executable: object) -> None:
        self._executable = executable

    def launch(self, stream: Stream) -> None:
        call("cudaGraphLaunch", self._executable, stream.handle)

    def close(self) -> None:
        call("cudaGraphExecDestroy", self._executable)


class DeviceMemory:
    """Memory of the device; `address` is aligned to 256 bytes, as TensorRT wants it."""

    def __init__(self, nbytes: int) -> None:
        self.address = int(call("cudaMalloc", nbytes))
        self.nbytes = nbytes

    def close(self) -> None:
        call("cudaFree", self.address)


class PinnedMemory:
    """Page-locked host memory, from and to which the GPU copies at full speed and without waiting for the host.

    Attributes:
        array: uint8 [nbytes]; belongs to this object, so copy out of it before `close`.
    """

    def __init__(self, nbytes: int) -> None:
        self.address = int(call("cudaHostAlloc", nbytes, runtime().cudaHostAllocDefault))
        self.array: NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(self.address))

    def close(self) -> None:
        self.array = np.empty(0, np.uint8)
        call("cudaFreeHost", self.address)
