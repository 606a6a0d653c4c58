"""What runs inside Triton's Python backend: decoding, and whole bundles.  Model repositories name these classes.

Triton hands over batches of requests, each with one input, texts [n, 1]: encoded images.  A broken image is the error
of its own request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # made by Triton, in its own processes alone

from samdeploy.arrays import UInt8Array
from samdeploy.bundle.fields import read
from samdeploy.bundle.spec import Preprocessing
from samdeploy.classifier import Classifier
from samdeploy.errors import BundleError, SamdeployError
from samdeploy.images.decode import prepare
from samdeploy.ranking import not_finite, softmax

# The outputs of some images, in the order of the configuration, each [n, ...]; and why an image has none, or "".
_Answers = tuple[tuple[Any, ...], Sequence[str]]


class _Model:
    """What Triton calls."""

    def initialize(self, arguments: dict[str, str]) -> None:
        """See Triton.

        Raises:
            RuntimeError: Triton and numpy do not work together.
            SamdeployError: the bundle cannot be opened, or its golden images fail.
        """
        _check_numpy()
        config = json.loads(arguments["model_config"])
        self._input = config["input"][0]["name"]
        self._outputs = [output["name"] for output in config["output"]]
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        self._open(Path(arguments["model_repository"]) / arguments["model_version"], parameters)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """See Triton."""
        images: list[UInt8Array] = []
        parts: list[slice | str] = []
        for request in requests:
            texts = pb_utils.get_input_tensor_by_name(request, self._input).as_numpy().ravel()
            try:
                own = [self._prepare(bytes(text)) for text in texts]
            except SamdeployError as error:
                parts.append(str(error))
            else:
                parts.append(slice(len(images), len(images) + len(own)))
                images += own
        if not images:
            return [self._response(part, (), ()) for part in parts]
        try:
            tensors, errors = self._answer(np.stack(images))
        except SamdeployError as error:
            return [self._response(str(error), (), ()) for _ in parts]
        return [self._response(part, tensors, errors) for part in parts]

    def _response(self, part: slice | str, tensors: tuple[Any, ...], errors: Sequence[str]) -> Any:
        error = part if isinstance(part, str) else next(filter(None, errors[part]), "")
        if error:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(error, pb_utils.TritonError.INVALID_ARG))
        named = zip(self._outputs, tensors, strict=True)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.ascontiguousarray(values[part])) for name, values in named]
        )

    _prepare: Callable[[bytes], UInt8Array]

    def _open(self, folder: Path, parameters: dict[str, str]) -> None:
        raise NotImplementedError

    def _answer(self, pixels: UInt8Array) -> _Answers:
        raise NotImplementedError


class Decode(_Model):
    """Encoded images to uint8 [n, H, W, 3]."""

    def _open(self, folder: Path, parameters: dict[str, str]) -> None:
        size = read(Preprocessing, json.loads(parameters["preprocessing"]), "config.pbtxt: preprocessing", BundleError)
        self._prepare = lambda text: prepare(text, size)

    def _answer(self, pixels: UInt8Array) -> _Answers:
        return (pixels,), [""] * len(pixels)


class Predict(_Model):
    """Encoded images to logits, classes and probabilities, by a bundle that lies beside model.py."""

    def _open(self, folder: Path, parameters: dict[str, str]) -> None:
        precision = parameters["precision"] or None
        self._classifier = Classifier.open(folder / "bundle", parameters["backend"], precision=precision)
        self._prepare = self._classifier.prepare
        self._names = np.array([name.encode() for name in self._classifier.classes], dtype=np.object_)

    def _answer(self, pixels: UInt8Array) -> _Answers:
        session = self._classifier.session
        logits = session.run(pixels)
        errors = [str(not_finite(row, session.precision) or "") for row in logits]
        shares = softmax(np.nan_to_num(logits), self._classifier.bundle.temperature).astype(np.float32)
        return (logits, self._names[logits.argmax(axis=1)][:, None], shares), errors

    def finalize(self) -> None:
        """See Triton."""
        self._classifier.close()


def _check_numpy() -> None:
    """Triton's Python backend may be built for another numpy; then it hands over other bytes without a word."""
    sent = np.array([b"abc", b"de"], dtype=np.object_)
    found = pb_utils.Tensor("probe", sent).as_numpy()
    if found.tolist() != sent.tolist():
        raise RuntimeError(
            f"this Triton's Python backend does not work with numpy {np.__version__}; give it an environment with "
            "numpy below 2 (EXECUTION_ENV_PATH)"
        )
