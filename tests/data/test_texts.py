from __future__ import annotations

import pickle

import numpy as np
import pytest

from samdeploy.data.texts import PackedTexts, take_texts

TEXTS = ["a.png", "", "ü.png", "\udcff", "\ud800"]


def test_packed_texts_are_the_texts() -> None:
    packed = PackedTexts(TEXTS)
    assert list(packed) == TEXTS
    assert packed[-1] == TEXTS[-1]
    assert packed[1:3] == ("", "ü.png")
    with pytest.raises(IndexError):
        packed[len(TEXTS)]
    assert list(pickle.loads(pickle.dumps(packed))) == TEXTS


def test_extended_with_beginnings() -> None:
    both = PackedTexts()
    both.append("0", "one/")
    both.extend(*PackedTexts(TEXTS).packed(), "two/")
    both.append("9", "one/")
    assert list(both) == ["one/0", *(f"two/{text}" for text in TEXTS), "one/9"]


def test_taken_from_what_was_taken() -> None:
    indices = np.array([4, 0, 2])
    for texts in (TEXTS, PackedTexts(TEXTS)):
        taken = take_texts(take_texts(texts, indices), np.array([2, 0]))
        assert list(taken) == ["ü.png", "\ud800"]
