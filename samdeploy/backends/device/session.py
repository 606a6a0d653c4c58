"""One session for every runtime that computes on CUDA buffers: TensorRT, and ONNX Runtime's CUDA provider.

A runtime brings a `DeviceEngine`, which queues one batch on a stream.  Buffers, copies, CUDA graphs, order between
streams, batches that do not fit, and the arrays of other packages are here, once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.device.array import check_on_device, device_array, stream_handle
from samdeploy.backends.device.cuda import device_zero
from samdeploy.backends.device.objects import (
    LEGACY_DEFAULT_STREAM,
    DeviceMemory,
    Graph,
    PinnedMemory,
    Stream,
    is_capturing,
)
from samdeploy.bundle.spec import ModelSpec
from samdeploy.errors import BackendUnavailable, InputError

# Larger batches are copied from and to the caller's own memory: slower, but locking gigabytes starves the machine.
PINNED_LIMIT = 256 << 20
# A graph holds some megabytes of the device; more sizes than this in turn are run without one.
GRAPH_LIMIT = 16
# TensorRT's documentation asks for this of every address it is given.
_ALIGNMENT = 256


class DeviceEngine(Protocol):
    """What a runtime does with device memory.

    Attributes:
        min_batch, max_batch: the batch sizes it takes; no largest one is None.
    """

    min_batch: int
    max_batch: int | None

    def enqueue(self, images: int, logits: int, batch: int, stream: Stream) -> None:
        """Queue one batch on the stream, and do not wait.

        Args:
            images: address of uint8 [batch, H, W, 3].
            logits: address of float32 [batch, K], written to.

        Raises:
            BackendUnavailable: the runtime failed, for example for want of memory.
        """
        ...

    def can_be_captured(self, stream: Stream) -> bool:
        """Whether `enqueue` may be recorded in a CUDA graph."""
        ...

    def close(self) -> None: ...


class DeviceSession:
    """A `Session` on device 0, which also takes and fills arrays that are already there.

    Threads may share it and take turns.  All work is queued on one stream of its own; `run_async` ties that stream
    to the caller's with events, so that for the caller the work lies on the caller's stream.

    Attributes:
        cuda_graph: record one CUDA graph per batch size, on its second run, and replay it from then on.  May be
            switched at any time.  It is switched off where a runtime turns out not to be recordable, or where the
            graph does not give the same bytes as the run that it recorded.
        cuda_graph_note: at which batch size and why it was switched off; "" if it was not.
    """

    device = "cuda"

    def __init__(
        self,
        backend: str,
        precision: str,
        spec: ModelSpec,
        engine: DeviceEngine,
        stream: Stream,
        *,
        cuda_graph: bool = True,
    ) -> None:
        """Take over `engine` and `stream`, which this session closes."""
        self.backend = backend
        self.precision = precision
        self.cuda_graph = cuda_graph
        self.cuda_graph_note = ""
        self._engine = engine
        self._stream = stream
        self._pixels = tuple(int(length) for length in spec.input.shape[1:])
        self._image_bytes = int(np.prod(self._pixels))
        self._classes = len(spec.classes)
        self._row_bytes = 4 * self._classes
        self._lock = threading.Lock()
        self._closed = False
        self._rows = 0  # that the buffers hold
        self._memory: list[DeviceMemory] = []  # images, logits
        self._pinned: list[PinnedMemory] = []  # images, logits
        self._graphs: OrderedDict[int, Graph | None] = OrderedDict()  # by batch size; None: it ran once

    def run(self, batch: UInt8Array) -> Float32Array:
        """uint8 [N, H, W, 3], RGB, in host memory -> logits float32 [N, K], owned by the caller."""
        logits = np.empty((len(batch), self._classes), np.float32)
        with self._lock, device_zero():
            self._check_open()
            try:
                for start, stop in self._pieces(len(batch)):
                    self._run_piece(batch[start:stop], logits[start:stop])
            except BaseException:
                self._settle()
                raise
        return logits

    def run_async(self, images: object, logits: object, stream: object = None) -> None:
        """Queue a batch that is on the GPU already, and return without waiting for it.

        Both arrays come from any package with `__cuda_array_interface__` (PyCUDA, CuPy, PyTorch, Numba) and must
        stay as they are until the stream has passed this work.

        Args:
            images: uint8 [N, H, W, 3], RGB, C-contiguous, on device 0.
            logits: float32 [N, K], C-contiguous, on device 0; written to.
            stream: the caller's, as an int or as an object of those packages.  The work starts after what is queued
                on it now, and what is queued on it later starts after the work.  None takes the stream that the
                arrays name, and where they name none (PyTorch's never do) the default stream.

        Raises:
            InputError: dtype, shape, contiguity, device or stream are wrong, or the stream is being captured.
            BackendUnavailable: the runtime or CUDA failed, for example for want of memory.
        """
        source = device_array("images", images, "uint8", self._pixels)
        target = device_array("logits", logits, "float32", (self._classes,), writeable=True)
        if source.shape[0] != target.shape[0]:
            raise InputError(f"logits: {target.shape[0]} rows found, {source.shape[0]} expected: one for each image")
        named = source.stream or target.stream or LEGACY_DEFAULT_STREAM
        caller = named if stream is None else stream_handle(stream)
        with self._lock, device_zero():
            self._check_open()
            check_on_device("images", source)
            check_on_device("logits", target)
            if is_capturing(caller):
                raise InputError("stream: it is being captured; this session makes CUDA graphs of its own")
            for other in dict.fromkeys((caller, source.stream, target.stream)):
                if other is not None:
                    self._stream.wait_for(other)
            try:
                for start, stop in self._pieces(source.shape[0]):
                    self._queue_piece(
                        source.address + start * self._image_bytes,
                        target.address + start * self._row_bytes,
                        stop - start,
                    )
            except BaseException:
                self._settle()
                raise
            self._stream.release(caller)

    def device_ms(self, batch: UInt8Array) -> float:
        """Milliseconds that the device works on a batch: from buffers on the device to buffers on the device.

        Taken by two CUDA events around the work; the copy of the images to the device is over before the first.

        Args:
            batch: uint8 [N, H, W, 3], RGB, N within the engine's profile.

        Raises:
            InputError: N is outside the profile, so that the time would be that of another batch.
        """
        low, high = self._engine.min_batch, self._engine.max_batch or len(batch)
        if not low <= len(batch) <= high:
            raise InputError(f"batch of {len(batch)} found, {low} to {high} expected by the engine's profile")
        images = np.ascontiguousarray(batch)
        with self._lock, device_zero():
            self._check_open()
            try:
                self._reserve(len(images))
                self._stream.copy(self._memory[0].address, images.ctypes.data, images.nbytes)
                self._stream.synchronize()
                return self._stream.elapsed_ms(lambda: self._compute(len(images)))
            except BaseException:
                self._settle()
                raise

    def close(self) -> None:
        """Free the engine, its buffers and its stream; calling it again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with device_zero():
                self._settle()
                self._drop_buffers()
                self._engine.close()
                self._stream.close()

    def _check_open(self) -> None:
        if self._closed:
            raise InputError(f"this {self.backend} session is closed; open another with Classifier.open()")

    def _pieces(self, count: int) -> list[tuple[int, int]]:
        most = self._engine.max_batch or count
        return [(start, min(start + most, count)) for start in range(0, count, most)]

    def _run_piece(self, images: UInt8Array, logits: Float32Array) -> None:
        batch = max(len(images), self._engine.min_batch)
        self._reserve(batch)
        if not self._pinned and images.nbytes <= PINNED_LIMIT:
            self._pinned = [PinnedMemory(min(memory.nbytes, PINNED_LIMIT)) for memory in self._memory]
        images = np.ascontiguousarray(images)
        pinned = bool(self._pinned) and images.nbytes <= PINNED_LIMIT and logits.nbytes <= PINNED_LIMIT
        source, target = images.ctypes.data, logits.ctypes.data
        if pinned:
            self._pinned[0].array[: images.nbytes] = images.reshape(-1)
            source, target = self._pinned[0].address, self._pinned[1].address
        self._stream.copy(self._memory[0].address, source, images.nbytes)
        self._compute(batch)
        self._stream.copy(target, self._memory[1].address, logits.nbytes)
        self._stream.synchronize()
        if pinned:
            logits[:] = self._pinned[1].array[: logits.nbytes].view(np.float32).reshape(logits.shape)

    def _queue_piece(self, source: int, target: int, count: int) -> None:
        fits = count >= self._engine.min_batch and source % _ALIGNMENT == 0 and target % _ALIGNMENT == 0
        if fits and not self.cuda_graph:
            self._engine.enqueue(source, target, count, self._stream)
            return
        # A graph's addresses are fixed, and so is a smallest batch: both work on our own buffers.
        batch = max(count, self._engine.min_batch)
        self._reserve(batch)
        self._stream.copy(self._memory[0].address, source, count * self._image_bytes)
        self._compute(batch)
        self._stream.copy(target, self._memory[1].address, count * self._row_bytes)

    def _compute(self, batch: int) -> None:
        """Queue a batch from our buffers to our buffers."""
        graph = self._graphs.get(batch)
        if not self.cuda_graph:
            self._enqueue(batch)
        elif graph is not None:
            self._graphs.move_to_end(batch)
            graph.launch(self._stream)
        elif batch not in self._graphs:
            self._enqueue(batch)  # warm-up: runtimes choose kernels and take memory on a size's first run
            self._graphs[batch] = None
            self._evict()
        else:
            # Once more without capture: after another size TensorRT has updates to do that cannot be recorded.
            self._enqueue(batch)
            self._capture(batch)

    def _enqueue(self, batch: int) -> None:
        self._engine.enqueue(self._memory[0].address, self._memory[1].address, batch, self._stream)

    def _capture(self, batch: int) -> None:
        """Record the run that has just been queued, and trust the graph only if it repeats that run byte for byte."""
        expected = self._logits_now(batch)
        graph = None
        try:
            if not self._engine.can_be_captured(self._stream):
                raise BackendUnavailable(f"{self.backend} says that its work cannot be recorded")
            graph = self._stream.capture(lambda: self._enqueue(batch))
            self._stream.fill(self._memory[1].address, 0xFF, batch * self._row_bytes)  # a graph may be empty
            graph.launch(self._stream)
            if not np.array_equal(self._logits_now(batch), expected):
                raise BackendUnavailable(f"the recorded work of {self.backend} gives other logits than the work itself")
            self._graphs[batch] = graph
        except BackendUnavailable as error:
            self.cuda_graph = False
            self.cuda_graph_note = f"off since a batch of {batch}: {error}"
            if graph is not None:
                graph.close()
            self._drop_graphs()
            self._enqueue(batch)  # what the caller waits for

    def _logits_now(self, batch: int) -> UInt8Array:
        """The bytes of the logits in our buffer, after all that is queued."""
        logits = np.empty(batch * self._row_bytes, np.uint8)
        self._stream.copy(logits.ctypes.data, self._memory[1].address, logits.nbytes)
        self._stream.synchronize()
        return logits

    def _reserve(self, batch: int) -> None:
        """Make the buffers hold at least `batch` rows; graphs hold addresses, so they go with the old buffers."""
        if batch <= self._rows:
            return
        self._stream.synchronize()
        self._drop_buffers()
        rows = self._engine.max_batch or batch
        self._memory.append(DeviceMemory(rows * self._image_bytes))
        try:
            self._memory.append(DeviceMemory(rows * self._row_bytes))
        except BackendUnavailable:
            self._drop_buffers()
            raise
        self._rows = rows

    def _drop_buffers(self) -> None:
        self._drop_graphs()
        for memory in self._memory:
            memory.close()
        for pinned in self._pinned:
            pinned.close()
        self._memory, self._pinned, self._rows = [], [], 0

    def _drop_graphs(self) -> None:
        for graph in self._graphs.values():
            if graph is not None:
                graph.close()
        self._graphs.clear()

    def _evict(self) -> None:
        while len(self._graphs) > GRAPH_LIMIT:
            _, graph = self._graphs.popitem(last=False)
            if graph is not None:
                self._stream.synchronize()
                graph.close()

    def _settle(self) -> None:
        """After an error: nothing may still read or write the buffers when the next call fills them."""
        try:
            self._stream.synchronize()
        except BackendUnavailable:
            return  # the error that led here is the one to show
