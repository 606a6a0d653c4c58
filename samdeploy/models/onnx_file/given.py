"""The reference: a file as it was given, run node by node by ONNX Runtime in FP32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from samdeploy.arrays import Float32Array
from samdeploy.errors import InputError
from samdeploy.graphs.edit import with_outputs
from samdeploy.graphs.inference import Options, open_inference, run_inference
from samdeploy.models.onnx_file.interface import interface_of
from samdeploy.models.onnx_file.read import given_model


class GivenFile:
    """A network in an ONNX file; threads may share it."""

    def __init__(self, content: bytes, tensors: Sequence[str] = ()) -> None:
        """`tensors` are computed besides the logits.

        Raises:
            InputError: it is not one classifier of images, or holds what `read_onnx` refuses.
            BackendUnavailable: ONNX Runtime refuses it.
        """
        model = given_model(content)
        self.interface = interface_of(model)
        graph = with_outputs(model, [self.interface.logits, *tensors]).SerializeToString()
        self._inference = open_inference(graph, Options(optimized=False, quiet=True))

    def run(self, images: Float32Array) -> list[Float32Array]:
        """In batches of the file's own size; the last one is filled up.

        Args:
            images: float32 [N, 3, H, W], normalised.

        Returns:
            Logits float32 [N, K], and the other tensors.

        Raises:
            InputError: the images are of another size.
            BackendUnavailable: ONNX Runtime fails.
        """
        own = self.interface
        if images.shape[2:] != (own.height, own.width):
            found = "x".join(map(str, images.shape[2:]))
            raise InputError(
                f"the network takes images of {own.height}x{own.width}, {found} found: --size {own.height}x{own.width}"
            )
        batch, count = own.batch or len(images), len(images)
        filled = np.concatenate([images, np.repeat(images[-1:], -count % batch, axis=0)])
        if own.channels_last:
            filled = filled.transpose(0, 2, 3, 1)
        parts = [
            run_inference(self._inference, {own.input: np.ascontiguousarray(filled[start : start + batch])})
            for start in range(0, len(filled), batch)
        ]
        logits, *others = (np.concatenate(part)[:count].astype(np.float32) for part in zip(*parts, strict=True))
        return [logits.reshape(logits.shape[0], -1) if logits.shape[2:] == (1, 1) else logits, *others]
