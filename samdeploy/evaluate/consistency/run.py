"""Whether an engine answers the same to the same image, whatever the circumstances.

Accuracy over a test set cannot see an engine that is wrong at batch size 7 alone, or with two threads: the set goes
through in batches of one size, in one thread.  Here the engine is held against itself, so neither labels nor a
reference nor PyTorch are needed.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from samdeploy.arrays import UInt8Array
from samdeploy.backends.session import Session
from samdeploy.bundle import Bundle
from samdeploy.errors import InputError
from samdeploy.evaluate.consistency.checks import Check, Consistency, judge, judge_sizes, judge_sizes_and_positions
from samdeploy.evaluate.consistency.questions import (
    Asked,
    Examined,
    equal_images,
    images_for,
    kept_answers,
    large_batches,
    repeats,
    shuffled_order,
    sizes_and_positions,
    two_sessions,
    two_threads,
)
from samdeploy.progress import progress_bar

__all__ = ["TOLERANCE", "Check", "Consistency", "check_consistency", "different_images", "largest_batch"]

# Largest share of the range by which an answer may depart from the others to its image.  The order of sums may change
# with the batch size, and with it every rounding, so an honest engine can be as far from itself as from the model
# (`GOLDEN_TOLERANCE`); what a fault of this kind does is of the order of 1.  Measured on two CPUs, 36 and 41 engines
# of six networks (benchmarks/evaluate/honest_exports.py):
# fp32: PyTorch departs by up to 3e-6 between batch sizes, ONNX Runtime and OpenVINO not by a bit; a decade and a half.
# bf16: not by a bit on one, by up to 1.5e-3 on the other (AMX); 6e-03 to 3e-02 from the model.
# int8: not by a bit, for sums of integers have no order; 1e-02 to 8e-02 from the model.  Half of what the golden
#   images allow: what a range cuts off is cut off in all circumstances.
# fp16: not by a bit (OpenVINO with AVX-512 FP16); 1e-03 to 6e-03 from the model, 2.5e-2 where hardly trained.
TOLERANCE = {"fp32": 1e-4, "fp16": 5e-2, "bf16": 1e-1, "int8": 1e-1}

# Where an engine takes any batch size: all up to one more than this, and then sizes that services use, each once.
DEFAULT_MAX_BATCH = 16
LARGE_BATCHES = (24, 32, 48, 64, 96, 128)
# Pixels of a batch, of which more could fill the memory; `eval` runs the test set in batches of 64 whatever their size.
MOST_PIXELS = 128 * 224 * 224
ALWAYS_RUN = 64
DEFAULT_REPEATS = 200

Judge = Callable[[str, Asked, float], list[Check]]


def check_consistency(
    open_again: Callable[[], Session],
    session: Session,
    images: UInt8Array,
    *,
    max_batch: int = DEFAULT_MAX_BATCH,
    large: Sequence[int] = (),
    repeats_wanted: int = DEFAULT_REPEATS,
    limit_s: float | None = None,
) -> Consistency:
    """Ask one engine the same in many ways, and hold its answers against each other.

    Args:
        open_again: opens another session of the same engine; it is closed here.
        session: an open engine.
        images: uint8 [N, H, W, 3], real images, at least one.  2 * max_batch + 2 different ones are best; where
            there are fewer, mirrored and shifted copies are added.
        max_batch: all batch sizes up to this and one more are asked; see `largest_batch`.
        large: larger batch sizes, each of which is asked once; see `larger_batches`.
        repeats_wanted: runs of the check "repeats".
        limit_s: seconds for all checks together, shared out evenly; a check whose time is up stops after the run it
            is in, and is "not finished".  None: no limit.

    Raises:
        InputError: no images, or a batch size or number of repeats below 1.
    """
    if len(images) == 0:
        raise InputError("consistency: no images found, at least 1 expected")
    for name, value in (("max_batch", max_batch), ("repeats_wanted", repeats_wanted)):
        if value < 1:
            raise InputError(f"consistency: {name} {value} found, 1 or more expected")
    begin = time.monotonic()
    examined = Examined(session, different_images(images, images_for(max_batch)), max_batch)
    allowed = TOLERANCE[session.precision]
    # Threads come last: a session that they leave hanging cannot be asked anything else.
    plan: list[tuple[str, Callable[[float], Asked], Judge, float]] = [
        # An answer that was written again is wrong by its very nature, however small the difference.
        ("kept answers", partial(kept_answers, examined), judge, 0.0),
        ("equal images", partial(equal_images, examined), judge_sizes, allowed),
        ("batch sizes", partial(sizes_and_positions, examined), judge_sizes_and_positions, allowed),
        *([("large batches", partial(large_batches, examined, large), judge_sizes, allowed)] if large else []),
        ("shuffled order", partial(shuffled_order, examined), judge, allowed),
        ("two sessions", partial(two_sessions, examined, open_again), judge, allowed),
        ("repeats", partial(repeats, examined, repeats_wanted), judge, allowed),
        ("two threads", partial(two_threads, examined), judge, allowed),
    ]
    checks: list[Check] = []
    exact, sizes = True, set[int]()
    with progress_bar(f"{session.backend} against itself"[:30], len(plan)) as advance:
        for done, (name, ask, judge_it, most) in enumerate(plan):
            advance(0, name)
            now = time.monotonic()
            left = math.inf if limit_s is None else (begin + limit_s - now) / (len(plan) - done)
            asked = ask(now + left)
            exact = exact and asked.exact is not False
            if name in ("batch sizes", "large batches"):
                sizes |= asked.answers.sizes()
            checks += judge_it(name, asked, most)
            advance(1, name)
    return Consistency(tuple(checks), tuple(sorted(sizes)), exact, time.monotonic() - begin)


def largest_batch(bundle: Bundle, backend: str, precision: str) -> int:
    """Up to which batch size an engine of a bundle is asked: the end of a TensorRT plan's profile, else 16."""
    engines = bundle.select("engine", backend=backend, precision=precision)
    return max((file.batches[1] for file in engines if file.batches), default=0) or DEFAULT_MAX_BATCH


def larger_batches(images: UInt8Array, max_batch: int) -> tuple[int, ...]:
    """Batch sizes beyond `DEFAULT_MAX_BATCH` for images uint8 [N, H, W, 3]; a profile that ends is asked to its end."""
    if max_batch != DEFAULT_MAX_BATCH:
        return ()
    most = max(ALWAYS_RUN, MOST_PIXELS // (images.shape[1] * images.shape[2]))
    return tuple(size for size in LARGE_BATCHES if size <= most)


def different_images(images: UInt8Array, count: int) -> UInt8Array:
    """`count` images of which no two are equal, evenly taken from `images`; uint8 [count, H, W, 3].

    Where there are too few, they are mirrored and shifted: these keep their values, so that activations stay in their
    usual size.  Images of one colour have no other forms, and are repeated.
    """
    spread = images[np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(np.int64)]
    found: dict[bytes, UInt8Array] = {}
    # Each form brings a new image, but for patterns that repeat within themselves: they must not be tried for ever.
    for form in itertools.islice(_forms(spread), 2 * count + 4):
        for image in form:
            found.setdefault(image.tobytes(), image)
            if len(found) == count:
                return np.stack(list(found.values()))
    return np.stack([image for image, _ in zip(itertools.cycle(found.values()), range(count), strict=False)])


def _forms(images: UInt8Array) -> Iterator[UInt8Array]:
    yield images
    yield images[:, :, ::-1]
    yield images[:, ::-1]
    yield images[:, ::-1, ::-1]
    for rows, columns in itertools.product(range(images.shape[1]), range(1, images.shape[2])):
        yield np.roll(images, (rows, columns), axis=(1, 2))
