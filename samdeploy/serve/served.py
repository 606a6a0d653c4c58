"""A bundle that a server has opened: its engine, its queue, and whether it still answers as it was proven to."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from samdeploy.arrays import Float32Array, Int64Array, UInt8Array
from samdeploy.backends import open_session
from samdeploy.backends.golden import check_golden
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle.answers import CONFIDENCE_BINS
from samdeploy.bundle.spec import MAX_BYTES, MAX_PIXELS
from samdeploy.certainty.calibration import confidence, confidence_bins
from samdeploy.certainty.drift import LEAST, Window, index_by_chance, stability_index
from samdeploy.classifier import Classifier
from samdeploy.errors import AnswerError, BackendUnavailable, ImageError, InputError, SamdeployError
from samdeploy.ranking import Prediction, not_finite, rank
from samdeploy.serve.batcher import Batcher, Clock, Ran
from samdeploy.serve.decoding import Decoding, forget
from samdeploy.serve.errors import RequestError, TooManyImages
from samdeploy.serve.metrics import Metrics

_LOG = logging.getLogger("samdeploy.serve")
_DRIFT_EVERY = 2.0  # seconds
_COUNT_EVERY = 0.1  # likewise


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may take.

    Attributes:
        batch: images per call of the engine, at most.
        delay: seconds that an image may wait for others.
        queue: images that may wait for the engine, and as many for their decoding.
        timeout: seconds after which a request is not begun any more.
        max_bytes, max_pixels: of an encoded image; `max_bytes` also of a body.
    """

    batch: int = 16
    delay: float = 0.0
    queue: int = 128
    timeout: float = 10.0
    max_bytes: int = MAX_BYTES
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True, slots=True)
class Place:
    """One bundle to serve: NAME[:VERSION]=PATH, or a path alone."""

    name: str
    version: str
    path: Path


class ServedModel:
    """One bundle behind a queue."""

    def __init__(self, place: Place, classifier: Classifier, limits: Limits, metrics: Metrics) -> None:
        self.name, self.version = place.name, place.version
        self.classifier, self.limits = classifier, limits
        self.bundle, self.spec = classifier.bundle, classifier.bundle.spec
        self.metrics = metrics
        self._labels = (self.name, self.version)
        self._runs: deque[Ran] = deque()
        self._uncounted: list[Float32Array] = []
        batches = engine_batches(classifier)
        self.batcher = Batcher(
            classifier.session.run,
            batch=min(limits.batch, batches) if batches else limits.batch,
            delay=limits.delay,
            queue=limits.queue,
            observe=self._runs.append,
        )
        self._golden = classifier.bundle.golden()
        self.decoding = Decoding(limits.queue)
        self.fault = "the golden images have not been run yet"
        self._drift, self._drift_due = self._windows(), 0.0
        self._maps: CheckedSession | None = None
        self._maps_lock = threading.Lock()

    @property
    def ready(self) -> bool:
        """Whether the golden images passed when they were run last."""
        return not self.fault

    def check_ready(self) -> None:
        """
        Raises:
            RequestError: the last self-test failed.
        """
        if self.fault:
            raise RequestError(503, f"model {self.name!r} is not ready: {self.fault}")

    def self_test(self) -> None:
        """Run the golden images; what they show is `fault` from then on."""
        session, (images, logits) = self.classifier.session, self._golden
        try:
            difference = check_golden(session, images, logits)
        except SamdeployError as error:
            if error.args and str(error) != self.fault:
                _LOG.error("%s:%s: %s", self.name, self.version, error)
            self.fault, difference = str(error), float("inf")
        else:
            if self.fault:
                _LOG.info("%s:%s is ready", self.name, self.version)
            self.fault = ""
        self.metrics.golden.labels(*self._labels).set(difference)
        self.metrics.ready.labels(*self._labels).set(not self.fault)

    def deadline(self, timeout: float | None) -> float:
        """When a request that comes now is too late, on the clock of the batcher; `timeout` is its own, in seconds."""
        return Clock() + min(self.limits.timeout, timeout or self.limits.timeout)

    async def answer(
        self, images: UInt8Array | list[bytes], timeout: float | None, pool: ThreadPoolExecutor
    ) -> Float32Array:
        """Logits float32 [N, K] of prepared or encoded images; see `decode` and `infer`.

        Raises:
            AnswerError: some are not finite.
        """
        deadline = self.deadline(timeout)
        pixels = await self.decode(images, deadline, pool) if isinstance(images, list) else images
        logits = await self.infer(pixels, deadline)
        if not np.isfinite(logits).all():
            raise next(filter(None, (not_finite(one, self.classifier.session.precision) for one in logits)))
        return logits

    async def infer(self, images: UInt8Array, deadline: float) -> Float32Array:
        """Logits float32 [N, K] of images uint8 [N, H, W, 3], which may be more than one batch.

        Raises:
            RequestError: not ready, no room, or too late.
        """
        self.check_ready()
        most = self.batcher.batch
        pieces = [images[start : start + most] for start in range(0, len(images), most)]
        futures: list[asyncio.Future[Float32Array]] = []
        try:
            futures.extend(self.batcher.submit(piece, deadline) for piece in pieces)
            answers = [await futures[place] for place in range(len(pieces))]
        except BaseException:
            forget(futures)
            raise
        return answers[0] if len(answers) == 1 else np.concatenate(answers)

    async def decode(
        self, images: Sequence[bytes], deadline: float, pool: ThreadPoolExecutor, names: Sequence[str] | None = None
    ) -> UInt8Array:
        """uint8 [N, H, W, 3] of encoded images, by the threads of the pool; `names` are for errors.

        Raises:
            RequestError: not ready, too many images, too many that are being decoded, or too late.
            ImageError: one cannot be read.
        """
        self.check_ready()
        if len(images) > self.limits.queue:
            raise TooManyImages(len(images), self.limits.queue)
        called = names or [""] * len(images)
        start = time.perf_counter()
        pixels = await self.decoding.run(
            pool, deadline, [partial(self._prepare, *one) for one in zip(images, called, strict=True)]
        )
        self.metrics.decode_seconds.labels(*self._labels).observe(time.perf_counter() - start)
        return pixels[0][None] if len(pixels) == 1 else np.stack(pixels)

    def _prepare(self, image: bytes, name: str) -> UInt8Array:
        try:
            return self.classifier.prepare(image)
        except ImageError as error:
            raise ImageError(f"{name}: {error}" if name else str(error)) from None

    def predictions(self, logits: Float32Array, top: int) -> list[Prediction]:
        """The answers to some logits, float32 [N, K].

        Raises:
            AnswerError: one has logits that are not finite.
        """
        answers: list[Prediction] = []
        for answer in rank(logits, self.bundle, self.classifier.session.precision, top):
            if isinstance(answer, AnswerError):
                raise answer
            answers.append(answer)
        return answers

    def count(self, logits: Float32Array) -> None:
        """Take answers into the metrics and the drift: soon, many at once, when no client waits for it."""
        self._uncounted.append(logits)
        if len(self._uncounted) == 1:
            asyncio.get_running_loop().call_later(_COUNT_EVERY, self.count_now)

    def count_now(self) -> None:
        """Count what `count` was given, and what the engine did; called by the loop."""
        while self._runs:
            self.metrics.ran(self.name, self.version, self._runs.popleft())
        uncounted, self._uncounted = self._uncounted, []
        if uncounted:
            self._count(np.concatenate(uncounted))

    def _count(self, logits: Float32Array) -> None:
        logits = logits[np.isfinite(logits).all(axis=1)]
        if not len(logits):
            return
        probabilities, answers = confidence(logits, self.bundle.temperature), logits.argmax(axis=1)
        observe = self.metrics.probability.labels(*self._labels).observe
        for index, probability in zip(answers.tolist(), probabilities.tolist(), strict=True):
            self.metrics.labels.labels(*self._labels, self.spec.classes[index]).inc()
            observe(probability)
        self.metrics.rejected.labels(*self._labels).inc(int((probabilities < self.bundle.threshold).sum()))
        if self._drift:
            for (window, _), bins in zip(
                self._drift.values(), (answers, confidence_bins(probabilities, CONFIDENCE_BINS)), strict=True
            ):
                window.add(bins)
            if (now := Clock()) > self._drift_due:
                self._drift_due = now + _DRIFT_EVERY
                self._measure_drift()

    def _measure_drift(self) -> None:
        for of, (window, before) in self._drift.items():
            if len(window) >= LEAST:
                drift = stability_index(window.counts, before)
                self.metrics.drift.labels(*self._labels, of).set(drift)
                above = drift - index_by_chance(window.counts, before)
                self.metrics.drift_above_chance.labels(*self._labels, of).set(above)

    def _windows(self) -> dict[str, tuple[Window, Int64Array]]:
        """By what is compared: the newest answers, and the counts of validation; empty where those are not known."""
        answered = self.bundle.answered
        if answered is None:
            return {}
        counts = {"labels": answered.labels, "probability": answered.confidence}
        return {of: (Window(len(before)), np.array(before, np.int64)) for of, before in counts.items()}

    def maps(self) -> CheckedSession:
        """A session with class activation maps, opened when it is asked for first.

        Raises:
            RequestError: the bundle, or the runtime that it is served with, has none.
        """
        with self._maps_lock:
            if self._maps is None:
                backend = self.classifier.session.backend
                try:
                    self._maps = open_session(self.bundle, backend, maps=True)
                except (BackendUnavailable, InputError) as error:
                    raise RequestError(501, f"no maps: {error}") from None
            return self._maps

    def close(self) -> None:
        """End the engine, after what is in its queue."""
        self.batcher.close()
        self.count_now()
        if self._maps is not None:
            self._maps.close()
        self.classifier.close()


def engine_batches(classifier: Classifier) -> int | None:
    """The largest batch of the engine's profile; None where it takes any."""
    session = classifier.session
    file = classifier.bundle.find("engine", backend=session.backend, precision=session.precision)
    return file.batches[1] if file is not None and file.batches is not None else None
