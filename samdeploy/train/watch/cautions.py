"""What the data, and a finished training, do not support: each once, with the number and a cure.

The limits are rules of thumb: below 100 validation images one image is more than a point of top-1; from 10:1 on a
network gains by ignoring the rare class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from samdeploy.arrays import Int64Array
from samdeploy.train.loop.measure import Measured
from samdeploy.train.watch.history import EpochRow

_FEW_VAL, _FEW_OF_A_CLASS, _IMBALANCE = 100, 10, 10
_LEARNT, _GAP, _EPOCHS = 90.0, 25.0, 3
_SHOWN = 5


def data_cautions(counts: Mapping[str, Int64Array], classes: Sequence[str]) -> tuple[str, ...]:
    """What can be known before training.

    Args:
        counts: split -> images of each class, int64 [K].
    """
    found = []
    train, val, test = counts["train"], counts["val"], counts["test"]
    if (images := int(val.sum())) < _FEW_VAL:
        found.append(
            f"only {images} validation images: each is {100 / images:.1f} points of top-1, so the choice of the best "
            "epoch is partly chance; add images, or --set data.val_fraction=0.3"
        )
    rare, common = int(train.argmin()), int(train.argmax())
    if train[rare] and train[common] >= _IMBALANCE * train[rare]:
        found.append(
            f"class {classes[common]!r} has {train[common] / train[rare]:.0f} times the training images of "
            f"{classes[rare]!r} ({train[common]:,} and {train[rare]:,}), so the rare class may be ignored; add images "
            "of it, and check it: samdeploy eval --min-class-recall PERCENT"
        )
    few = [f"{name!r} ({count})" for name, count in zip(classes, train, strict=True) if count < _FEW_OF_A_CLASS]
    if few:
        found.append(f"fewer than {_FEW_OF_A_CLASS} training images of {_some(few)}; add images, or join classes")
    for split, of_classes in (("validation", val), ("test", test)):
        if none := [repr(name) for name, count in zip(classes, of_classes, strict=True) if not count]:
            found.append(f"no {split} image of {_some(none)}, so nothing is known about it; add images")
    return tuple(found)


def training_cautions(
    best: EpochRow, test: Measured, of_classes: Int64Array, classes: Sequence[str], epochs: int
) -> tuple[str, ...]:
    """What a finished training shows.

    Args:
        best: the best epoch.
        test: of the best weights, with its figures per class.
        of_classes: test images of each class, int64 [K].
        epochs: that were trained; after fewer than 3 a class that is not recognised yet is worth a word only where the
            others are, twice as often as by chance.
    """
    found = []
    if best.train_top1 >= _LEARNT and best.train_top1 - best.val_top1 >= _GAP:
        found.append(
            f"train top-1 is {best.train_top1:.1f} %, validation {best.val_top1:.1f} %: the network knows its "
            "training images by heart; add images, start from pretrained weights, or --set augment.flip=true --set "
            "augment.policy=trivial"
        )
    confusion = test.confusion
    if confusion is None:
        return tuple(found)
    (answered,) = confusion.sum(0).nonzero()
    if len(answered) == 1:
        share = 100 * int(confusion[:, answered[0]].sum()) / test.images
        found.append(
            f"every test image is taken for {classes[answered[0]]!r} ({share:.0f} %): nothing was learnt; look at the "
            "images (samdeploy data), train longer, or try another --lr"
        )
    elif epochs >= _EPOCHS or test.top1 >= 200 / len(classes):
        found += _lost(np.diagonal(confusion), of_classes, classes)
    return tuple(found)


def _lost(right: Int64Array, of_classes: Int64Array, classes: Sequence[str]) -> list[str]:
    """Classes of which nothing is recognised; that more images help is advised for rare ones alone."""
    lost = [index for index, count in enumerate(of_classes) if count and not right[index]]
    if not lost:
        return []
    rare = [repr(classes[index]) for index in lost if of_classes[index] < np.median(of_classes) / 2]
    names = _some([f"{classes[index]!r} (0 of {of_classes[index]})" for index in lost])
    return [
        f"no test image of {names} is recognised; train longer" + (f", or add images of {_some(rare)}" if rare else "")
    ]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
