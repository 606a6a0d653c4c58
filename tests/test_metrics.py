"""Figures of a confusion matrix, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_recall_fscore_support

from samdeploy.metrics import balanced_accuracy, class_figures, classes_csv, confusion_csv, confusion_matrix, macro_f1


def test_they_are_scikit_learns() -> None:
    draw = np.random.default_rng(0)
    labels = draw.choice(4, 60, p=[0.6, 0.3, 0.1, 0])  # no image of the last class
    answers = np.where(draw.random(60) < 0.7, labels, draw.integers(0, 4, 60))
    confusion = confusion_matrix(labels, answers, 4)
    expected = precision_recall_fscore_support(labels, answers, labels=range(4), zero_division=0)
    found = class_figures(confusion)
    for one, other in zip((found.precision, found.recall, found.f1, found.support), expected, strict=True):
        np.testing.assert_allclose(one, other)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert balanced_accuracy(confusion) == pytest.approx(100 * balanced_accuracy_score(labels, answers))
    assert macro_f1(confusion) == pytest.approx(f1_score(labels, answers, average="macro"))


def test_tables() -> None:
    confusion = np.array([[2, 1], [0, 1]], np.int64)
    assert confusion_csv(confusion, ("cat", 'a "dog"')) == 'true \\ answer,cat,"a ""dog"""\ncat,2,1\n"a ""dog""",0,1\n'
    none = confusion_matrix(np.array([0, 0, 1]), np.array([0, -1, 0]), 2)
    assert confusion_csv(none, ("cat", "dog")) == "true \\ answer,cat,dog,none\ncat,1,0,1\ndog,1,0,0\n"
    assert balanced_accuracy(none) == 25
    assert classes_csv(confusion, ("cat", "dog")) == (
        "class,precision,recall,f1,support\ncat,1.0000,0.6667,0.8000,3\ndog,0.5000,1.0000,0.6667,1\n"
    )
