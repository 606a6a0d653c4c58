"""Golden images with colour: one image in all six orders of its channels, so that opening an engine shows the order."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.channels import CHANNELS_FLOOR, CHANNELS_RATIO, channel_twins
from samdeploy.backends.difference import image_ranges
from samdeploy.data.probe_images import coloured

# The answers may have so many times the range of the median golden image's: what explodes, INT8 and FP16 cannot follow.
CALM = 2.0
# INT8 engines answer such images with errors up to 2e-2 of the range; see docs/figures.md.
_INT8_ERROR = 2e-2


def with_colour(golden: UInt8Array, answer: Callable[[UInt8Array], Float32Array]) -> UInt8Array:
    """`golden` and the coloured image whose answers depend most on the order of channels, in its six orders.

    Prints a note where the network hardly looks at colour, so that an exchange of channels cannot be seen.

    Args:
        golden: uint8 [n, H, W, 3], real images.
        answer: the trained network: images -> float32 [n, K].

    Returns:
        uint8 [n + 6, H, W, 3]; `golden` itself where no coloured image can be made or its answers explode.
    """
    calm = CALM * float(np.median(np.ptp(answer(golden), axis=1)))
    best, best_seen = golden[:0], 0.0
    tinted = (golden.astype(np.int32) * (4, 2, 1) // 4).astype(np.uint8)
    for image in (*coloured(golden), *tinted):
        orders = np.stack([image[..., order] for order in itertools.permutations(range(3))])
        logits = answer(np.ascontiguousarray(orders))
        if np.isfinite(logits).all() and np.ptp(logits, axis=1).max() <= calm:
            seen = _smallest_difference(orders, logits)
            if seen > best_seen:
                best, best_seen = orders, seen
    if best_seen < max(CHANNELS_FLOOR, CHANNELS_RATIO * _INT8_ERROR):
        why = f"the network's answers depend on the order of channels by {best_seen:.1e} of their range only"
        which = "an engine below FP32"
        if not len(best):
            why, which = "the network's answers to all coloured images are not finite, or all equal", "an engine"
        print(f"golden images: {why}; opening {which} will not show exchanged channels", file=sys.stderr)
    return np.concatenate([golden, best])


def _smallest_difference(images: UInt8Array, logits: Float32Array) -> float:
    """By how much the answers differ, as a share of their range, for the order that changes them least."""
    twins, ranges = channel_twins(images), image_ranges(logits)
    if len(twins) < 5:
        return 0.0
    return min(pairs.mean_share(logits, logits, ranges, "other") for pairs in twins)
