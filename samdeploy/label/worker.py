"""From rows of the input to one part of the results: images through the engine, and what is kept of the answers."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.classifier import Classifier
from samdeploy.data.duplicates.image_hashes import digests_of
from samdeploy.errors import AnswerError, ImageError
from samdeploy.images.decode import prepare_sized
from samdeploy.images.stream import Stream
from samdeploy.label.containers import Row
from samdeploy.label.features import Features
from samdeploy.label.inputs import Input
from samdeploy.label.options import LabelOptions
from samdeploy.label.parts import TOP, Labelled, part_path, schema, write_part
from samdeploy.ranking import Prediction, rank

WHERE = re.compile(r"rejected|error|probability *< *(0?\.\d+|0|1(?:\.0+)?)")
# The features where they are wanted.
_Answer = tuple[Prediction, Float32Array | None]


class Worker:
    """Makes parts with one engine."""

    def __init__(self, classifier: Classifier, options: LabelOptions, given: Input) -> None:
        """
        Raises:
            InputError, BackendUnavailable: features are wanted and not to be had.
        """
        self._classifier, self._options, self._given = classifier, options, given
        self._features = Features(classifier) if options.features else None
        vectors = {"logits": (options.logits, len(classifier.classes))} if options.logits else {}
        if self._features:
            vectors["features"] = (options.features, self._features.width)
        self._form = schema(vectors)
        self._keeps = _keeps(options.where)
        self.first_error = ""

    def work(self, number: int, rows: range, settings: Mapping[str, Any], step: Callable[[int, str], None]) -> None:
        """Make one part.

        Args:
            rows: of the input.
            settings: that are written into the part.
            step: called for each row, with the rate.
        """
        kept: list[Labelled] = []
        counts: Counter[str] = Counter()
        begin = time.perf_counter()
        for done, one in enumerate(self._labelled(rows.start, rows.stop), 1):
            counts["rows"] += 1
            counts["errors" if one.error else f"label {one.index}"] += 1
            self.first_error = self.first_error or one.error
            counts["rejected"] += bool(one.rejected)
            counts["written"] += self._keeps(one)
            if self._keeps(one):
                kept.append(one)
            step(1, f"{done / (time.perf_counter() - begin):,.0f} images/s  {counts['errors']:,} errors")
        write_part(part_path(self._options.out, number), number, kept, self._form, settings, counts)

    def _labelled(self, start: int, stop: int) -> Iterator[Labelled]:
        classifier, options = self._classifier, self._options
        size = classifier.bundle.spec.preprocessing
        stream = Stream[_Answer](
            _prepare(classifier),
            self._answers,
            (size.height, size.width, 3),
            batch=options.batch,
            threads=options.threads,
        )
        under_way: list[_Source] = []

        def sources() -> Iterator[Any]:
            for row in self._given.rows(start, stop):
                under_way.append(_Source(row))
                yield under_way[-1]

        for place, answer in enumerate(stream.answers(sources())):
            source = under_way[place]
            under_way[place] = None  # type: ignore[call-overload]  # its bytes
            row, uri = start + place, source.row.uri
            if isinstance(answer, ImageError):
                yield Labelled(row, uri, source.error or _why(answer), source.size, digest=source.digest)
                continue
            found, features = answer
            yield Labelled(
                row, uri, "", source.size, found.label, found.index, found.probability, found.rejected, found.top,
                found.logits if options.logits else None, features, source.digest,
            )  # fmt: skip

    def _answers(self, pixels: UInt8Array) -> Sequence[_Answer | AnswerError]:
        """Of a batch uint8 [N, H, W, 3]."""
        session, bundle = self._classifier.session, self._classifier.bundle
        features: Sequence[Float32Array | None] = [None] * len(pixels)
        if self._features is None:
            logits = session.run(pixels)
        else:
            logits, features = self._features.run(pixels)  # type: ignore[assignment]  # an array is no Sequence
        answers = rank(logits, bundle, session.precision, TOP)
        return [one if isinstance(one, AnswerError) else (one, row) for one, row in zip(answers, features, strict=True)]


class _Source:
    """A row on its way through the stream; what is found out about it stays here."""

    __slots__ = ("digest", "error", "row", "size")

    def __init__(self, row: Row) -> None:
        self.row, self.error, self.size, self.digest = row, "", (0, 0), b""


def _prepare(classifier: Classifier) -> Callable[[Any], UInt8Array]:
    limits = {"max_pixels": classifier.max_pixels, "max_bytes": classifier.max_bytes}
    preprocessing = classifier.bundle.spec.preprocessing

    def prepare(source: _Source) -> UInt8Array:
        given: Path | bytes = b""
        try:
            given = source.row.read()
            pixels, source.size = prepare_sized(given, preprocessing, **limits)
            source.digest = digests_of(pixels[None]).tobytes()
        except ImageError as error:
            # The same text on every machine, wherever its images lie.
            text, uri = str(error), source.row.uri
            source.error = (
                text.replace(str(given), uri)
                if isinstance(given, Path)
                else re.sub(r"^image(?=:)", lambda _: uri, text)
            )
            raise
        return pixels

    return prepare


def _why(error: ImageError) -> str:
    """Without the stream's name for the image."""
    return re.sub(r"^image \d+ of the stream: ", "", str(error))


def _keeps(where: str) -> Callable[[Labelled], bool]:
    if where == "rejected":
        return lambda one: bool(one.rejected)
    if where == "error":
        return lambda one: bool(one.error)
    if where:
        limit = float(where.partition("<")[2])
        return lambda one: one.probability is not None and one.probability < limit
    return lambda one: True
