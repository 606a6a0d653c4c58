"""Whether an engine reads the channels of an image in another order than red, green, blue.

Shown by images that are each other's with their channels in another order: the answer to one must be closer to what
the trained network answers it than to what it answers the other.  This holds for engines of any precision, also where
the difference between the two is smaller than the largest error that is allowed for one image.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import Float32Array, Float64Array, Int64Array, UInt8Array
from samdeploy.backends.difference import difference_shares

# Of the ranges: what is off by less is judged by the tolerance of the precision alone.
CHANNELS_FLOOR = 1e-2
# By how much the answers must be closer to those of the other order.  An engine that reads RGB would need errors of
# two thirds of the difference between the two; where the network sees no difference, the ratio is about 1.
CHANNELS_RATIO = 2.0

_ORDERS = {
    order: "".join("RGB"[channel] for channel in order)
    for order in itertools.permutations(range(3))
    if order != (0, 1, 2)
}


@dataclass(frozen=True, slots=True)
class Twins:
    """Pairs of images that differ by the order of their channels alone.

    Attributes:
        order: such as "BGR"; image `other[k]` is image `own[k]` with its channels in that order.
        own, other: int64 [pairs], indices of images.
    """

    order: str
    own: Int64Array
    other: Int64Array

    def mean_share(self, found: Float32Array, expected: Float32Array, ranges: Float64Array, to: str) -> float:
        """The mean difference of the answers for `own` from what is expected for `to`, "own" or "other".

        Args:
            found, expected: float32 [N, K]; those of the pairs' images are finite.
            ranges: float64 [N]; the larger one of a pair counts.
        """
        rows = self.own if to == "own" else self.other
        scale = np.maximum(ranges[self.own], ranges[self.other])
        return float(difference_shares(found[self.own], expected[rows], scale).mean())


def channel_twins(images: UInt8Array, usable: NDArray[np.bool_] | None = None) -> list[Twins]:
    """All pairs among images uint8 [N, H, W, 3], for each order that has some; `usable`: bool [N], those to look at."""
    places: dict[bytes, list[int]] = {}
    for index, image in enumerate(images):
        if usable is None or usable[index]:
            places.setdefault(image.tobytes(), []).append(index)
    found = []
    for order, name in _ORDERS.items():
        pairs = [
            (index, twin)
            for indices in places.values()
            for index in indices
            for twin in places.get(images[index][..., order].tobytes(), ())
            if twin != index
        ]
        if pairs:
            own, other = np.array(pairs, np.int64).T
            found.append(Twins(name, own, other))
    return found


def order_read(found: Float32Array, expected: Float32Array, ranges: Float64Array, twins: list[Twins]) -> str:
    """The order in which an engine reads channels, such as "BGR"; "" where it is RGB, or cannot be told.

    Args:
        found, expected: float32 [N, K]; those of `twins` are finite.
        ranges: float64 [N], the scale of each image.
        twins: of the images, from `channel_twins`.
    """
    seen = {}
    for pairs in twins:
        own, other = (pairs.mean_share(found, expected, ranges, to) for to in ("own", "other"))
        if own > CHANNELS_FLOOR and own > CHANNELS_RATIO * other:
            seen[pairs.order] = other
    return min(seen, key=seen.__getitem__, default="")
