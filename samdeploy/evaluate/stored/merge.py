"""An evaluation out of its shards, by the same code as one that asks the engines about every image.

What does not grow with the test set is done here: golden and probe images, latency, consistency and maps.  Only the
images are decoded again, all or `MOST_COMPARED` of them: they must be those that the shards saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from samdeploy.arrays import Int64Array, UInt8Array, UInt64Array
from samdeploy.backends import open_session
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle import Bundle
from samdeploy.bundle.spec import Preprocessing
from samdeploy.data.cache import stream_prepared
from samdeploy.data.dataset import Samples
from samdeploy.data.duplicates.image_hashes import ImageHashes, digests_of, set_hashes
from samdeploy.data.images import Fingerprint
from samdeploy.errors import InputError
from samdeploy.evaluate.accuracy.against_training import compare_with_training
from samdeploy.evaluate.accuracy.facts import ImageFacts
from samdeploy.evaluate.consistency.probes import probe_reference
from samdeploy.evaluate.contradictions import find_contradictions
from samdeploy.evaluate.evaluate import TestSource, report_of
from samdeploy.evaluate.evaluate_engine import SAMPLE, Case, evaluate_engine
from samdeploy.evaluate.options import EvalOptions
from samdeploy.evaluate.passes import BATCH, EngineStopped
from samdeploy.evaluate.result import Report
from samdeploy.evaluate.stored.shard import Shard, read_shard
from samdeploy.evaluate.stored.test_set import stored_test_set
from samdeploy.evaluate.test_set.distinct import MOST_COMPARED
from samdeploy.evaluate.test_set.examine import examine_hashes
from samdeploy.evaluate.test_set.open import open_test_set
from samdeploy.evaluate.test_set.seen_in_training import known_images


def evaluate_shards(bundle: Bundle, options: EvalOptions, paths: Sequence[Path]) -> Report:
    """Judge the engines by what all shards together found.

    Args:
        options: as for `evaluate_bundle`, but for backend and precision, which the shards say.
        paths: the files of all shards, or folders of such files.

    Raises:
        InputError: a shard is missing, there twice, or of another bundle or test set.
        BackendUnavailable, BundleError, DatasetError: as `evaluate_bundle` does.
    """
    bundle.verify()
    shards = _all_shards(bundle, paths)
    test = open_test_set(bundle, options.data_root)
    labels, reference, spread, digests = (
        np.concatenate([getattr(shard, name) for shard in shards])
        for name in ("labels", "reference", "spread", "digests")
    )
    if not np.array_equal(labels, test.samples.labels):
        raise InputError(
            f"the shards are of {len(labels):,} test images, and other {len(test.samples):,} are found here; name "
            "theirs: --data PATH"
        )
    fingerprint = _check_images(bundle, test.samples, digests)
    contradictions = find_contradictions(bundle)
    perceptual, small = (np.concatenate([getattr(shard, name) for shard in shards]) for name in ("perceptual", "small"))
    hashes = ImageHashes(digests, perceptual, test.samples.names, labels)
    thumbnails = small.take if len(small) else None
    found = examine_hashes(
        bundle, hashes, known_images(bundle), None if thumbnails is None else partial(thumbnails, axis=0)
    )
    against = compare_with_training(bundle, digests, labels, reference)
    rows = found.distinct
    take = _Images(test.samples.take(rows), bundle.spec.preprocessing)
    spread_out = np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).round().astype(np.int64)
    sample = take(spread_out)
    golden = bundle.golden()
    with open_session(bundle, "pytorch", device=options.device, check=False) as session:
        probes = probe_reference(session, golden[0], spread)
    engines = [(engine.backend, engine.precision) for engine in shards[0].engines]
    if shards[0].named:  # one that cannot run here is then a promise not kept
        options = replace(options, backend=engines[0][0])
    case = Case(bundle, options, _Answers(shards, rows), take, rows, sample, golden, probes)
    results = [evaluate_engine(case, backend, precision) for backend, precision in engines]
    source = TestSource(fingerprint, stored_test_set(bundle, against), test.notes, options.data_root)
    return report_of(bundle, options, (found, against), results, source, contradictions)


def _check_images(bundle: Bundle, samples: Samples, digests: UInt64Array) -> str:
    """Compare the images with the shards', and give their fingerprint: the usual one where all were decoded."""
    size = bundle.spec.preprocessing
    fingerprint = Fingerprint((len(samples), size.height, size.width, 3))
    places = np.linspace(0, len(samples) - 1, min(MOST_COMPARED, len(samples))).round().astype(np.int64)
    start = 0
    blocks = stream_prepared(samples.take(places), size, description="the images of the shards", block=BATCH)
    with closing(blocks):
        for block in blocks:
            now = places[start : start + len(block)]
            same = (digests_of(block) == digests[now]).all(axis=1)
            if not same.all():
                raise InputError(
                    f"the test images found here are not those of the shards, {samples.names[now[same.argmin()]]} is "
                    "another; name theirs: --data PATH"
                )
            fingerprint.update(block)
            start += len(block)
    return fingerprint.hexdigest(samples.labels) if start == len(samples) else set_hashes(digests, samples.labels)[1]


def _all_shards(bundle: Bundle, paths: Sequence[Path]) -> list[Shard]:
    files = [file for path in paths for file in (sorted(path.glob("*.npz")) if path.is_dir() else [path])]
    if not files:
        raise InputError(
            f"--merge {', '.join(map(str, paths))}: no shard found; make all, such as: samdeploy eval "
            "BUNDLE --shard 1/4 --out 1.npz"
        )
    shards = sorted((read_shard(file, bundle) for file in files), key=lambda shard: shard.number)
    first = shards[0]
    numbers = [shard.number for shard in shards]
    if numbers != list(range(1, first.count + 1)):
        missing = sorted(set(range(1, first.count + 1)) - set(numbers))
        twice = [number for number in numbers if numbers.count(number) > 1]
        what = f"{twice[0]}/{first.count} is there twice" if twice else f"{missing[0]}/{first.count} is missing"
        raise InputError(f"--merge: {len(set(numbers))} of {first.count} shards found; {what}")
    for shard in shards:
        if _what(shard) != _what(first):
            raise InputError(f"--merge: shard {shard.number} asked other engines or images than shard {first.number}")
    return shards


def _what(shard: Shard) -> tuple[object, ...]:
    engines = tuple((engine.backend, engine.precision) for engine in shard.engines)
    return shard.count, shard.total, shard.named, engines


@dataclass(frozen=True, slots=True)
class _Images:
    """Some test images, decoded when they are asked for."""

    samples: Samples
    preprocessing: Preprocessing

    def __call__(self, places: Int64Array) -> UInt8Array:
        blocks = stream_prepared(
            self.samples.take(places), self.preprocessing, description="some test images", block=BATCH
        )
        return np.concatenate(list(blocks))


@dataclass(frozen=True, slots=True)
class _Answers:
    """What an engine answered to the distinct images, wherever it was asked."""

    shards: Sequence[Shard]
    rows: Int64Array

    def __call__(self, session: CheckedSession) -> ImageFacts:
        found, done, total = list[ImageFacts](), 0, self.shards[0].total
        for shard in self.shards:
            engine = next(
                one for one in shard.engines if (one.backend, one.precision) == (session.backend, session.precision)
            )
            which = f"shard {shard.number}/{shard.count}"
            if engine.facts is None:
                raise EngineStopped(done, total, f"{which}: {engine.reason}")
            if engine.device != session.device:
                raise EngineStopped(done, total, f"{which} ran on {engine.device}, here it is {session.device}")
            found.append(engine.facts)
            done += len(engine.facts)
        return ImageFacts.joined(found).take(self.rows)
