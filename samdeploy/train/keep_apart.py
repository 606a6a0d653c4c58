"""Copies in the splits that samdeploy cut itself: an image that is in val or test is not trained on.

Files of the same bytes are on one side already, see `samdeploy.data.split`.  Here go images that were saved twice, in
two formats for example: only their pixels are equal, and those are known once all are decoded.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable

import numpy as np

from samdeploy.data.cache import PreparedSplit
from samdeploy.data.dataset import SPLITS, Dataset, Samples
from samdeploy.data.duplicates.leaks import is_among


def keep_apart(
    dataset: Dataset, splits: dict[str, PreparedSplit], prepare: Callable[[Samples, str], PreparedSplit]
) -> tuple[Dataset, dict[str, PreparedSplit]]:
    """Leave out of train what is in a val or test that was cut off it, and of val what is in such a test.

    Test stays as it is: `eval` opens the same one without decoding the others.

    Args:
        dataset, splits: as opened and as prepared.
        prepare: (samples, split's name) -> them prepared; asked only for splits that lose an image.

    Returns:
        Both, without those images; how many is printed to stderr.
    """
    from_train = [name for name in SPLITS if name == "train" or name in dataset.cut]
    splits = dict(splits)
    for place, name in enumerate(from_train[:-1]):
        others = from_train[place + 1 :]
        taken = np.concatenate([splits[other].hashes.digests for other in others])
        is_copy = is_among(splits[name].hashes.digests, taken)
        if not is_copy.any():
            continue
        samples = dataset.split(name).take(np.flatnonzero(~is_copy))
        print(
            f"{int(is_copy.sum()):,} of {len(is_copy):,} {name} images left out: copies of {' or '.join(others)} "
            "images, pixel by pixel",
            file=sys.stderr,
        )
        dataset = (
            dataclasses.replace(dataset, train=samples)
            if name == "train"
            else dataclasses.replace(dataset, val=samples)
        )
        splits[name] = prepare(samples, name)
    return dataset, splits
