"""ONNX Runtime's CUDA provider as a `DeviceEngine`: it works on addresses and on the stream that it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from samdeploy.bundle.spec import ModelSpec
from samdeploy.errors import BackendUnavailable, first_line
from samdeploy.graphs.inference import memory_full

if TYPE_CHECKING:
    from samdeploy.backends.device.objects import Stream


class CudaEngine:
    """One graph on the CUDA provider, working on addresses that it is given: a `DeviceEngine`."""

    min_batch = 1
    max_batch: int | None = None

    def __init__(self, inference: Any, spec: ModelSpec) -> None:
        """`inference` must have been made with the stream that `enqueue` is called with."""
        self._inference: Any = inference
        self._input, self._output = spec.input.name, spec.output.name
        self._pixels = [int(length) for length in spec.input.shape[1:]]
        self._classes = len(spec.classes)
        self._options = ort.RunOptions()
        # Else every run waits for the stream, which a capture forbids.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        # No graph of ONNX Runtime's own; without this entry 1.31 throws and catches an exception in every run, 0.1 ms.
        self._options.add_run_config_entry("gpu_graph_id", "-1")

    def enqueue(self, images: int, logits: int, batch: int, stream: Stream) -> None:
        binding = self._inference.io_binding()
        binding.bind_input(self._input, "cuda", 0, np.uint8, [batch, *self._pixels], images)
        binding.bind_output(self._output, "cuda", 0, np.float32, [batch, self._classes], logits)
        try:
            self._inference.run_with_iobinding(binding, self._options)
        except Exception as error:  # its exception classes are private and share no other base
            why = memory_full(error, "cuda") or first_line(error)
            raise BackendUnavailable(f"ONNX Runtime failed on a batch of {batch}: {why}") from error

    def can_be_captured(self, stream: Stream) -> bool:
        return True

    def close(self) -> None:
        self._inference = None
