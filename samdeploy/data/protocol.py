"""What the splits are used for: the honest protocol, and the published ones that are repeated to compare with.

The original work of streamlined attention stopped its training on the test images and chose the weights on them; its
script for aircraft had the training folder as its test folder.  Its figures cannot be repeated otherwise, so both are
here, and every figure that comes of them says in words what it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from samdeploy.data.dataset import Dataset

HONEST = "honest"

# Name -> what the final figure is, in words.
PROTOCOLS: Mapping[str, str] = MappingProxyType(
    {
        HONEST: "accuracy on test images, looked at once",
        "chosen-on-test": "accuracy on test images that also stopped the training and chose its weights: too good for "
        "new images",
        "tested-on-train": "accuracy on training images: it says nothing about new images",
    }
)


def apply_protocol(dataset: Dataset, protocol: str) -> Dataset:
    """The data set with its splits as the protocol uses them.

    "chosen-on-test": no val is kept aside, and test takes its place.  "tested-on-train": val and test are the training
    images; the official test images are not used at all.
    """
    if protocol == HONEST:
        return dataset
    train = dataset.train + dataset.val
    test = train if protocol == "tested-on-train" else dataset.test
    note = f"protocol {protocol!r}: the figure called test is the {PROTOCOLS[protocol]}"
    return dataclasses.replace(
        dataset, train=train, val=test, test=test, protocol=protocol, cut=(), notes=(*dataset.notes, note)
    )
