"""scikit-learn's digits: 1,797 images of 8x8 in 10 classes, inside scikit-learn itself.

Source: UCI ML hand-written digits, test part (E. Alpaydin, C. Kaynak, 1998), values 0..16.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from samdeploy.data.dataset import Dataset, OptionValue, array_samples
from samdeploy.data.split import TEST_FRACTION, TEST_SEED, hold_out

CLASSES = tuple("0123456789")


def open_digits(
    root: Path, *, options: Mapping[str, OptionValue], val_fraction: float, seed: int, download: bool
) -> Dataset:
    """The digits; `root`, `options` and `download` are not used.

    The set has no official test split: 20 % (359 images) are cut off, stratified, always the same ones.
    `val_fraction` is of the remaining 1,438.
    """
    data = load_digits()
    # 0..16 to 0..255, rounded half up; exact in integers: v * 255 / 16 is a half only for v = 8.
    images = ((data.images.astype(np.int64) * 255 + 8) // 16).astype(np.uint8)
    everything = array_samples(images, data.target.astype(np.int64), "digits", is_cheap=True)
    rest, test = hold_out(everything, TEST_FRACTION, TEST_SEED, classes=CLASSES, part="test", dataset="digits")
    train, val = hold_out(rest, val_fraction, seed, classes=CLASSES, part="val", dataset="digits")
    return Dataset("digits", CLASSES, train, val, test, cut=("val", "test"))
