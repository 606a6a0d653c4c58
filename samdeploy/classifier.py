"""What applications embed: images in, classes and probabilities out.  Needs numpy, Pillow and one runtime."""

from __future__ import annotations

import operator
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn, overload

from samdeploy.backends import open_session
from samdeploy.backends.names import check_names
from samdeploy.backends.registry import open_first
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.spec import MAX_BYTES, MAX_PIXELS
from samdeploy.errors import AnswerError, ImageError, InputError, check_name

# All that needs numpy is imported where it is used: `open_session` says why.
if TYPE_CHECKING:
    from samdeploy.arrays import UInt8Array
    from samdeploy.backends.session import Session
    from samdeploy.images.decode import Source
    from samdeploy.ranking import Prediction

# What `stream` does with an image that cannot be read.
ON_ERROR = ("raise", "yield")

# Images are prepared and run in groups of this many, so that a long list does not fill the memory.
_GROUP = 64


class Classifier:
    """An opened bundle with one engine, checked on its golden images.

    Examples:
        >>> with Classifier.open("bundle") as classifier:
        ...     print(classifier.predict("photo.jpg").label)

    Many threads may use one classifier at once, and get the answers that one alone would get.  In asyncio a thread
    waits, not the loop: ``await asyncio.to_thread(classifier.predict, path)``.  A process that was forked off after
    `open` needs a classifier of its own, and is told so.

    Attributes:
        passed_over: with backend "auto", each backend that was tried before this one -> why it was not taken.
    """

    passed_over: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self, bundle: Bundle, session: Session, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
    ) -> None:
        """`session` must have been opened from `bundle`; it is closed with the classifier.

        Raises:
            InputError: `max_pixels` or `max_bytes` is below 1.
        """
        from samdeploy.backends.session import CheckedSession

        _check_count("max_pixels", max_pixels)
        _check_count("max_bytes", max_bytes)
        self.bundle = bundle
        self.session = session if isinstance(session, CheckedSession) else CheckedSession(session, bundle.spec)
        self.max_pixels, self.max_bytes = max_pixels, max_bytes

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        backend: str = "auto",
        *,
        device: str = "auto",
        precision: str | None = None,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
        trust: str | os.PathLike[str] | None = None,
    ) -> Classifier:
        """Open a bundle.

        Args:
            path: the bundle's folder.
            backend: "pytorch", "onnxruntime", "openvino", "tensorrt", or "auto": the first of tensorrt (with an
                engine that runs here), onnxruntime, openvino and pytorch that can be opened.
            device: "cpu", "cuda" or "auto".
            precision: None takes the backend's own.
            max_pixels: an image whose header (or array's shape) says more is refused before memory is reserved for it.
            max_bytes: a longer image file is refused before it is read.
            trust: file of a public key (PEM, elliptic curve): the bundle must be signed by it (`samdeploy sign`), and
                no file may have been changed, added or removed since.  None: no signature is looked at.

        Raises:
            BundleError: the bundle is damaged, unsafe, not signed as `trust` asks, or its engine does not answer as its
                model did.
            BackendUnavailable: the runtime is not installed or cannot run the engine here.
            InputError: `path` is no path, an unknown backend, device or precision, `trust` is no public key, or
                `max_pixels` or `max_bytes` is below 1.
        """
        _check_count("max_pixels", max_pixels)
        _check_count("max_bytes", max_bytes)
        if not isinstance(path, str | os.PathLike):
            raise InputError(f"path: {type(path).__name__} found, a bundle's folder expected, as str or pathlib.Path")
        if trust is not None and not isinstance(trust, str | os.PathLike):
            raise InputError(
                f"trust: {type(trust).__name__} found, a public key's file expected, as str or pathlib.Path"
            )
        check_names(backend, device, precision, also="auto")
        key = None if trust is None else Path(trust)
        bundle = open_bundle(path if isinstance(path, str) else Path(path), trust=key)
        passed_over: Mapping[str, str] = cls.passed_over
        if backend == "auto":
            session, passed_over = open_first(bundle, device=device, precision=precision, meanwhile=_import_decoders)
        else:
            session = open_session(bundle, backend, device=device, precision=precision, meanwhile=_import_decoders)
        opened = cls(bundle, session, max_pixels=max_pixels, max_bytes=max_bytes)
        opened.passed_over = passed_over
        return opened

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; the index is the logit's column."""
        return self.bundle.spec.classes

    def predict(self, source: Source, *, top: int = 5) -> Prediction:
        """Classify one image.

        Args:
            source: a path, encoded bytes, a Pillow image, or an array uint8 [h, w, 3] RGB or [h, w] grey.
            top: how many classes to name, at most.

        Raises:
            ImageError: the image cannot be read.
            AnswerError: the logits are not finite: the image drives the network out of the precision's range.
            InputError: `top` is below 1, or the classifier is closed.
            BackendUnavailable: the runtime failed, for example for want of memory.
        """
        return self.predict_batch([source], top=top)[0]

    def predict_batch(self, sources: Sequence[Source], *, top: int = 5) -> list[Prediction]:
        """Classify many images; see `predict`.  An empty list gives an empty list."""
        import numpy as np

        _check_many("predict_batch", sources)
        _check_count("top", top)
        self.session.check_usable()
        images = list(sources)
        predictions: list[Prediction] = []
        for start in range(0, len(images), _GROUP):
            group = images[start : start + _GROUP]
            answers = self._answers(np.stack([self.prepare(image) for image in group]), top)
            for image, answer in zip(group, answers, strict=True):
                if isinstance(answer, AnswerError):
                    raise AnswerError(f"{image if isinstance(image, str | Path) else 'image'}: {answer}")
                predictions.append(answer)
        return predictions

    @overload
    def stream(
        self, sources: Iterable[Source], *, batch: int = ..., top: int = ..., on_error: Literal["raise"] = ...,
        threads: int | None = ...,
    ) -> Generator[Prediction, None, None]: ...  # fmt: skip

    @overload
    def stream(
        self, sources: Iterable[Source], *, batch: int = ..., top: int = ..., on_error: Literal["yield"],
        threads: int | None = ...,
    ) -> Generator[Prediction | ImageError, None, None]: ...  # fmt: skip

    def stream(
        self,
        sources: Iterable[Source],
        *,
        batch: int = 16,
        top: int = 5,
        on_error: Literal["raise", "yield"] = "raise",
        threads: int | None = None,
    ) -> Generator[Prediction | ImageError, None, None]:
        """Classify images one after another, decoding the next ones while the engine works.

        Examples:
            >>> for path, prediction in zip(paths, classifier.stream(paths)):
            ...     print(path, prediction.label)

        The answers come in the order of the images, each as soon as its batch is done.  The iterable may be endless:
        it is read in the caller's thread, at most four batches ahead of the answers that were taken, and what is ready
        is handed over before the next image is asked for.  (Where images come slower than the engine works, as from
        a camera at rest, the answer to one goes out with the next; `predict` answers at once.)  An exception of the
        iterable comes after the answers to what was before it.  Closing the generator (`contextlib.closing`, or the end
        of its life) ends its threads.

        Args:
            sources: what `predict` takes, each.
            batch: images per call of the engine; 1 for the lowest latency.
            top: how many classes to name, at most.
            on_error: "raise" ends with the ImageError of the first image that cannot be read (or, an AnswerError,
                to which the engine has no finite answer), after the answers to those before it; "yield" gives the
                ImageError in the place of its answer, and goes on.
            threads: that decode and resize; None: as many as there are processors for this process.

        Raises:
            ImageError: see `on_error`.
            InputError: an argument is wrong, or the classifier is closed.
            BackendUnavailable: the runtime failed, for example for want of memory.
        """
        from samdeploy.images.stream import Stream  # late: its pools cost a start 10 ms

        _check_many("stream", sources)
        for name, value in (("batch", batch), ("top", top), ("threads", 1 if threads is None else threads)):
            _check_count(name, value)
        check_name("on_error", on_error, ON_ERROR)
        self.session.check_usable()
        size = self.bundle.spec.preprocessing
        running = Stream(
            self.prepare,
            lambda pixels: self._answers(pixels, top),
            (size.height, size.width, 3),
            batch=batch,
            threads=threads,
        )
        answers = running.answers(sources)
        return answers if on_error == "yield" else _raising(answers)

    def prepare(self, source: Source) -> UInt8Array:
        """Decode and resize one image to what the engine takes: uint8 [H, W, 3] RGB.

        Raises:
            ImageError: the image cannot be read.
        """
        from samdeploy.images.decode import prepare  # late: see `_import_decoders`

        limits = {"max_pixels": self.max_pixels, "max_bytes": self.max_bytes}
        return prepare(source, self.bundle.spec.preprocessing, **limits)

    def predict_prepared(self, batch: UInt8Array, *, top: int = 5) -> list[Prediction]:
        """Classify images that `prepare` has made: uint8 [N, H, W, 3] RGB.

        Raises:
            InputError: another dtype or shape, `top` below 1, or the classifier is closed.
            AnswerError: the logits of one of them are not finite; the text says of which.
            BackendUnavailable: the runtime failed, for example for want of memory.
        """
        _check_count("top", top)
        predictions: list[Prediction] = []
        for place, answer in enumerate(self._answers(batch, top)):
            if isinstance(answer, AnswerError):
                raise AnswerError(f"image {place} of {len(batch)}: {answer}")
            predictions.append(answer)
        return predictions

    def _answers(self, batch: UInt8Array, top: int) -> list[Prediction | AnswerError]:
        from samdeploy.ranking import rank

        return rank(self.session.run(batch), self.bundle, self.session.precision, top)

    def close(self) -> None:
        """Release the engine, once the batches that it is running have ended; calling it again does nothing.

        A prediction whose images are still being decoded fails: the classifier is closed.
        """
        self.session.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Classifier holds a runtime and cannot be pickled; open the bundle in each process")

    def __enter__(self) -> Classifier:
        self.session.check_usable()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _import_decoders() -> None:
    """Load Pillow and its formats, which the first image would wait for: 25 ms."""
    import samdeploy.images.decode  # noqa: F401


def _raising(answers: Generator[Prediction | ImageError, None, None]) -> Generator[Prediction, None, None]:
    """The answers up to the first that is an error, which is raised."""
    with closing(answers):
        for answer in answers:
            if isinstance(answer, ImageError):
                raise answer
            yield answer


def _check_count(name: str, value: object) -> None:
    # What comes from a request or a configuration file is a text; numpy's integers have __index__ too.
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InputError(f"{name}: {value!r} ({type(value).__name__}) found, a whole number expected")
    if operator.index(value) < 1:
        raise InputError(f"{name}: {value} found, at least 1 expected")


def _check_many(name: str, sources: object) -> None:
    import numpy as np

    # A path is a sequence of letters, and an image's array one of its rows.
    if isinstance(sources, np.ndarray) and sources.ndim != 4:
        found = f"an array {list(sources.shape)}"
    elif isinstance(sources, str | bytes) or not isinstance(sources, Iterable):
        found = type(sources).__name__
    else:
        return
    raise InputError(f"{name}: {found} found, several images expected, such as a list; for one image: predict")
