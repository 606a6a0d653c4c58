"""What applications embed: pictures in, classes and probabilities out.  Needs numpy, Pillow and one runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from samdeploy.backends import Session, availability, open_session
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.errors import BackendUnavailable, InputError
from samdeploy.preprocess import Source, UInt8Array, prepare

Float32Array = NDArray[np.float32]

# With backend "auto": a GPU engine first, then the CPU runtimes, then the reference.
_PREFERENCE = ("tensorrt", "onnxruntime", "openvino", "pytorch")

# Pictures are prepared and run in groups of this many, so that a long list does not fill the memory.
_GROUP = 64


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one picture.

    Attributes:
        label: name of the most probable class.
        index: its column in the logits.
        probability: its softmax value, in [0, 1].
        top: (class, probability) of the most probable classes, best first.
        logits: float32 [K], as the engine gave them.
    """

    label: str
    index: int
    probability: float
    top: tuple[tuple[str, float], ...]
    logits: Float32Array


class Classifier:
    """An opened bundle with one engine, checked on its golden images.

    >>> with Classifier.open("bundle") as classifier:
    ...     print(classifier.predict("photo.jpg").label)
    """

    def __init__(self, bundle: Bundle, session: Session) -> None:
        """`session` must have been opened from `bundle`; it is closed with the classifier."""
        self.bundle = bundle
        self.session = session

    @classmethod
    def open(
        cls, path: str | Path, backend: str = "auto", *, device: str = "auto", precision: str | None = None
    ) -> Classifier:
        """Open a bundle.

        Args:
            path: the bundle's folder.
            backend: "pytorch", "onnxruntime", "openvino", "tensorrt", or "auto": the first of tensorrt (with an
                engine that runs here), onnxruntime, openvino and pytorch that can be opened.
            device: "cpu", "cuda" or "auto".
            precision: None takes the backend's own.

        Raises:
            BundleError: the bundle is damaged, unsafe, or its engine does not answer as its model did.
            BackendUnavailable: the runtime is not installed or cannot run the engine here.
            InputError: an unknown backend, device or precision.
        """
        bundle = open_bundle(path)
        if backend != "auto":
            return cls(bundle, open_session(bundle, backend, device=device, precision=precision))
        reasons = []
        for name in _PREFERENCE:
            reason = availability(name)
            if reason is None:
                try:
                    return cls(bundle, open_session(bundle, name, device=device, precision=precision))
                except (BackendUnavailable, InputError) as error:
                    reason = str(error)
            reasons.append(f"{name}: {reason}")
        raise BackendUnavailable("no runtime can open this bundle here. " + "; ".join(reasons))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the index is the logit's column."""
        return self.bundle.spec.classes

    def predict(self, source: Source, *, top: int = 5) -> Prediction:
        """Classify one picture.

        Args:
            source: a path, encoded bytes, a Pillow image, or an array uint8 [h, w, 3] RGB of any size.
            top: how many classes to name, at most.

        Raises:
            ImageError: the picture cannot be read.
        """
        return self.predict_batch([source], top=top)[0]

    def predict_batch(self, sources: Sequence[Source], *, top: int = 5) -> list[Prediction]:
        """Classify many pictures; see `predict`.  An empty list gives an empty list."""
        predictions: list[Prediction] = []
        for start in range(0, len(sources), _GROUP):
            group = [prepare(source, self.bundle.spec.preprocessing) for source in sources[start : start + _GROUP]]
            predictions += self.predict_prepared(np.stack(group), top=top)
        return predictions

    def predict_prepared(self, batch: UInt8Array, *, top: int = 5) -> list[Prediction]:
        """Classify pictures that `samdeploy.preprocess.prepare` has made: uint8 [N, H, W, 3] RGB."""
        if top < 1:
            raise InputError(f"top: {top} found, at least 1 expected")
        logits = self.session.run(batch)
        return [_prediction(row, self.classes, top) for row in logits]

    def close(self) -> None:
        """Release the engine."""
        self.session.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def softmax(logits: Float32Array) -> NDArray[np.float64]:
    """``exp(x - max) / sum`` over the last axis, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    result: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def _prediction(logits: Float32Array, classes: tuple[str, ...], top: int) -> Prediction:
    probabilities = softmax(logits)
    # Stable: of equal logits the lower index comes first, in every language that sorts stably.
    order = np.argsort(-logits, kind="stable")[:top]
    best = int(order[0])
    return Prediction(
        label=classes[best],
        index=best,
        probability=float(probabilities[best]),
        top=tuple((classes[i], float(probabilities[i])) for i in order),
        logits=logits.copy(),
    )
