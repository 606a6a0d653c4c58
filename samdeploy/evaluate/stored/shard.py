"""One of several parts of an evaluation: what each engine and the trained network answer to some of the test images.

A shard's file is an .npz of plain arrays: `facts` of each engine, hashes and thumbnails, and `meta` as JSON.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from samdeploy.arrays import BoolArray, Float32Array, Float64Array, Int64Array, UInt64Array
from samdeploy.backends import BACKENDS, open_session
from samdeploy.bundle import Bundle
from samdeploy.bundle.fields import short
from samdeploy.bundle.names import MANIFEST
from samdeploy.bundle.spec import PRECISIONS
from samdeploy.data.duplicates.image_hashes import hash_images
from samdeploy.errors import InputError, SamdeployError
from samdeploy.evaluate.accuracy.facts import ImageFacts, image_facts, logit_spread
from samdeploy.evaluate.evaluate import engines_of, reference_logits
from samdeploy.evaluate.options import ALL, EvalOptions
from samdeploy.evaluate.passes import BATCH, EngineStopped, engine_pass
from samdeploy.evaluate.test_set.distinct import MOST_COMPARED
from samdeploy.evaluate.test_set.examine import thumbnails_of
from samdeploy.evaluate.test_set.open import open_test_set
from samdeploy.evaluate.test_set.prepared import PreparedImages
from samdeploy.files import write_atomic

FORMAT, VERSION = "samdeploy-eval-shard", 1


@dataclass(frozen=True, slots=True)
class EngineShard:
    """One engine.

    Attributes:
        device: where it ran; "" if it did not.
        reason: why there are no answers; "" where there are.
        facts: of its answers, or None.
    """

    backend: str
    precision: str
    device: str
    reason: str
    facts: ImageFacts | None


@dataclass(frozen=True, slots=True)
class Shard:
    """The images from `start` on, n of the `total` of the test set.

    Attributes:
        number, count: which shard of how many, from 1.
        manifest_sha256: of the bundle.
        named: whether an engine was asked for by name.
        labels: int64 [n].
        digests, perceptual: uint64 [n, 2] and [n, 4], see `ImageHashes`.
        small: float32 [n, 64], `alike.thumbnails`; [0, 64] where the test set has more images than are compared.
        reference: int64 [n], the classes that the trained network names.
        spread: float64 [n], see `logit_spread`.
        engines: that were asked.
    """

    number: int
    count: int
    start: int
    total: int
    manifest_sha256: str
    named: bool
    labels: Int64Array
    digests: UInt64Array
    perceptual: UInt64Array
    small: Float32Array
    reference: Int64Array
    spread: Float64Array
    engines: tuple[EngineShard, ...]


_MAKE = "samdeploy eval --shard I/N --out FILE"
_MOST = float(np.finfo(np.float64).max)
# Type and shape of each image's row.
_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "labels": ("int64", ()), "digests": ("uint64", (2,)), "perceptual": ("uint64", (4,)), "small": ("float32", (64,)),
    "reference": ("int64", ()), "spread": ("float64", ()),
}  # fmt: skip
_FACTS = {
    **{field.name: "float64" for field in fields(ImageFacts)},
    **dict.fromkeys(("labels", "engine", "reference"), "int64"),
    **dict.fromkeys(("top5", "reference_top5"), "bool"),
}


def evaluate_shard(bundle: Bundle, options: EvalOptions, shard: tuple[int, int]) -> Shard:
    """Ask the trained network and each engine about the images of one shard.

    Args:
        options: backend, precision, device and data_root; the others matter to `evaluate_shards` alone.
        shard: (number from 1, how many).

    Raises:
        InputError: there are fewer test images than shards; or as `evaluate_bundle` does.
        BackendUnavailable, BundleError, DatasetError: as `evaluate_bundle` does.
    """
    bundle.verify()
    test = open_test_set(bundle, options.data_root)
    number, count = shard
    total = len(test.samples)
    if total < count:
        raise InputError(f"--shard {number}/{count}: the test set has {total:,} images; take no more shards than that")
    start, stop = _rows_of(number, count, total)
    samples = test.samples.take(np.arange(start, stop))
    size = bundle.spec.preprocessing
    with PreparedImages(len(samples), size.height, size.width) as images:
        with open_session(bundle, "pytorch", device=options.device, check=False) as session:
            reference, _ = reference_logits(bundle, session, samples, images)
        hashes = hash_images(images.batches(BATCH), samples.names, samples.labels)
        is_small = total <= MOST_COMPARED
        small = thumbnails_of(images, np.arange(len(images))) if is_small else np.empty((0, 64), np.float32)
        engines = tuple(
            _ask(bundle, options, engine, images, reference, samples.labels) for engine in engines_of(bundle, options)
        )
    return Shard(
        number, count, start, total, manifest_sha256(bundle), options.backend != ALL, samples.labels, hashes.digests,
        hashes.perceptual, small, reference.argmax(axis=1), logit_spread(reference), engines,
    )  # fmt: skip


def _rows_of(number: int, count: int, total: int) -> tuple[int, int]:
    """The first row of a shard, and the one after its last."""
    return (total * (number - 1)) // count, (total * number) // count


def manifest_sha256(bundle: Bundle) -> str:
    """Which bundle it is, to the last byte."""
    return hashlib.sha256((bundle.root / MANIFEST).read_bytes()).hexdigest()


def _ask(
    bundle: Bundle,
    options: EvalOptions,
    engine: tuple[str, str],
    images: PreparedImages,
    reference: Float32Array,
    labels: Int64Array,
) -> EngineShard:
    backend, precision = engine
    device = ""
    try:
        with open_session(bundle, backend, device=options.device, precision=precision, check=False) as session:
            device = session.device
            logits = engine_pass(session, images, reference.shape[1], f"{backend} {precision}")
    except (SamdeployError, EngineStopped) as error:
        if isinstance(error, InputError) and options.backend != ALL:
            raise
        return EngineShard(backend, precision, device, str(error), None)
    facts = image_facts(logits, reference, labels, bundle.temperature)
    return EngineShard(backend, precision, device, "", facts)


def write_shard(path: Path, shard: Shard) -> None:
    """Write a shard's file, whole or not at all."""
    arrays: dict[str, Any] = {name: getattr(shard, name) for name in _ARRAYS}
    for place, engine in enumerate(shard.engines):
        if engine.facts is not None:
            arrays |= {f"{place}.{field.name}": getattr(engine.facts, field.name) for field in fields(ImageFacts)}
    meta = {
        "format": FORMAT, "version": VERSION, "number": shard.number, "count": shard.count, "start": shard.start,
        "total": shard.total, "manifest_sha256": shard.manifest_sha256, "named": shard.named,
        "engines": [[engine.backend, engine.precision, engine.device, engine.reason] for engine in shard.engines],
    }  # fmt: skip
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_atomic(path, content.getvalue())


def read_shard(path: Path, bundle: Bundle) -> Shard:
    """What `write_shard` wrote.

    Args:
        bundle: of which it must be.

    Raises:
        InputError: missing, damaged, of another version or bundle, or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            meta = json.loads(file["meta"].tobytes())
            if (meta["format"], meta["version"]) != (FORMAT, VERSION):
                found = f"{short(meta['format'])} version {short(meta['version'])}"
                raise ValueError(f"{found} found, {FORMAT} {VERSION} expected")
            if meta["manifest_sha256"] != manifest_sha256(bundle):
                raise InputError(f"{path}: of another bundle than {bundle.root}; make it again: {_MAKE}")
            shard = Shard(
                **{name: meta[name] for name in ("number", "count", "start", "total", "manifest_sha256", "named")},
                **{name: file[name] for name in _ARRAYS},
                engines=tuple(_engines(meta["engines"], file)),
            )
            _check_rows(shard)
            _check_values(shard, len(bundle.spec.classes))
            return shard
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it: {_MAKE}") from None
    except (OSError, ValueError, TypeError, KeyError, EOFError, RecursionError, zipfile.BadZipFile) as error:
        reason = "" if "allow_pickle" in str(error) else f" ({error})"  # numpy's advice to load a file unsafely
        text = f"{path}: not a shard of an evaluation, or damaged{reason}; make it again: {_MAKE}"
        raise InputError(text) from None


def _check_rows(shard: Shard) -> None:
    """
    Raises:
        ValueError: it does not hold the rows that its number says.
    """
    number, count, total = shard.number, shard.count, shard.total
    if any(type(one) is not int or one >> 63 for one in (number, count, shard.start, total)):
        raise ValueError("number, count, start and total: integers of 64 bits expected")
    if not 1 <= number <= count <= total:
        raise ValueError(f"shard {number} of {count} for {total} images")
    start, stop = _rows_of(number, count, total)
    if shard.start != start:
        raise ValueError(f"images from {shard.start} on found, from {start} on expected")
    n = stop - start
    arrays = [
        (name, getattr(shard, name), type_, (n if name != "small" or total <= MOST_COMPARED else 0, *row))
        for name, (type_, row) in _ARRAYS.items()
    ]
    for engine in shard.engines:
        if engine.facts is not None:
            arrays += [(name, getattr(engine.facts, name), type_, (n,)) for name, type_ in _FACTS.items()]
    for name, array, type_, shape in arrays:
        if (array.dtype, array.shape) != (np.dtype(type_), shape):
            found = f"{array.dtype} {list(array.shape)}"
            raise ValueError(f"{name}: {found} found, {type_} {list(shape)} expected")


def _check_values(shard: Shard, classes: int) -> None:
    """
    Raises:
        ValueError: no images and no engine have such answers, or what is written twice differs.
    """
    asked = [(engine.backend, engine.precision) for engine in shard.engines]
    for backend, precision in asked:
        if backend not in BACKENDS or precision not in PRECISIONS:
            raise ValueError(f"{short(f'{backend} {precision}')} is no engine")
    if len(set(asked)) < max(len(asked), bool(shard.named)):
        raise ValueError("an engine stands twice" if asked else "no engine")
    _refuse(shard, "small", np.asarray(np.isfinite(shard.small).all(axis=1)))
    _refuse(shard, "spread", _within(shard.spread, 0, _MOST))
    _refuse(shard, "reference", _within(shard.reference, 0, classes - 1))
    for engine in shard.engines:
        facts = engine.facts
        if facts is None:
            continue
        for name in ("labels", "reference", "spread"):
            _refuse(shard, name, getattr(facts, name) == getattr(shard, name))
        known = facts.engine >= 0
        _refuse(shard, "engine", _within(facts.engine, -1, classes - 1))
        _refuse(shard, "top5", (facts.top5 >= (facts.engine == facts.labels)) & (facts.top5 <= known))
        _refuse(shard, "reference_top5", facts.reference_top5 >= (facts.reference == facts.labels))
        _refuse(shard, "reference_sure", _within(facts.reference_sure, 0, 1))
        _refuse(shard, "difference", (facts.difference >= 0) & (np.isfinite(facts.difference) == known))
        for name, most in (("sure", 1), ("raw_sure", 1), ("nll", _MOST), ("raw_nll", _MOST)):
            _refuse(shard, name, ~known | _within(getattr(facts, name), 0, most))


def _within(values: Int64Array | Float64Array, least: float, most: float) -> BoolArray:
    return (values >= least) & (values <= most)


def _refuse(shard: Shard, name: str, holds: BoolArray) -> None:
    if not holds.all():
        raise ValueError(
            f"{name} of test image {shard.start + int(holds.argmin())} is impossible, or stands otherwise elsewhere"
        )


def _engines(rows: list[list[str]], file: Any) -> Iterator[EngineShard]:
    for place, (backend, precision, device, reason) in enumerate(rows):
        facts = None if reason else ImageFacts(*(file[f"{place}.{field.name}"] for field in fields(ImageFacts)))
        yield EngineShard(backend, precision, device, reason, facts)
