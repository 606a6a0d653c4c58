"""Images that look alike: their perceptual hashes differ in few bits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from samdeploy.arrays import Int64Array, UInt64Array
from samdeploy.progress import Advance

# Bits of 256 in which near-duplicates may differ.  Of the pairs of Fashion-MNIST's test and training images that
# differ by no more, 14 in all, each shows the same article; at 17 to 24 bits others of the same cut begin.  Digits of
# 8x8 pixels differ by 28 or more, photographs by 95.  JPEG at quality 75 moves 97 % of the images of Fashion-MNIST by
# no more, and 77 % of photographs of 104x104: what is found is real, but not all that there is.
NEAR_BITS = 16
# Pairs of images that are compared at a time: 8 MB of 64-bit words, which stay in the processor's cache.
_PAIRS = 1 << 20


def find_likenesses(
    one: UInt64Array, other: UInt64Array, advance: Advance | None = None
) -> Iterator[tuple[int, int, int]]:
    """(row of `one`, its nearest row of `other`, bits between them), for all that are near enough.

    Args:
        one, other: uint64 [N, 4] and [M, 4], see `samdeploy.data.duplicates.image_hashes.perceptual_hashes`.
        advance: called with the number of rows of `one` done, and "".
    """
    # The last word holds the highest frequencies, in which images differ most: it alone excludes nearly all pairs.
    last_of_one, last_of_other = np.ascontiguousarray(one[:, -1]), np.ascontiguousarray(other[:, -1])
    seen, others_seen = np.asarray(one.any(axis=1)), np.asarray(other.any(axis=1))
    step = max(1, _PAIRS // max(1, len(other)))
    # Written again for every block: fresh memory for each would cost as much as the comparison.
    differing, counts = np.empty((step, len(other)), np.uint64), np.empty((step, len(other)), np.uint8)
    for start in range(0, len(one), step):
        block = last_of_one[start : start + step, None]
        np.bitwise_xor(block, last_of_other, out=differing[: len(block)])
        np.bitwise_count(differing[: len(block)], out=counts[: len(block)])
        # Flat: numpy looks for true values of a matrix twenty times as slowly.
        is_candidate: NDArray[np.bool_] = counts[: len(block)] <= NEAR_BITS
        rows, columns = np.divmod(np.flatnonzero(is_candidate), len(other))
        rows = rows + start
        is_seen = seen[rows] & others_seen[columns]  # flat images are no likenesses of one another
        rows, columns = rows[is_seen], columns[is_seen]
        bits = np.bitwise_count(one[rows] ^ other[columns]).sum(axis=1, dtype=np.int64)
        yield from _nearest(rows, columns, bits)
        if advance is not None:
            advance(len(block), "")


def _nearest(rows: Int64Array, columns: Int64Array, bits: Int64Array) -> Iterator[tuple[int, int, int]]:
    """Of each row's candidates the nearest, where it is near enough."""
    order = np.lexsort((columns, bits, rows))
    _, first = np.unique(rows[order], return_index=True)
    for place in order[first]:
        if bits[place] <= NEAR_BITS:
            yield int(rows[place]), int(columns[place]), int(bits[place])
