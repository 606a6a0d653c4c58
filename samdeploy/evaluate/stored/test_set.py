"""Test images of which hashes alone are at hand."""

from __future__ import annotations

from samdeploy.bundle import Bundle
from samdeploy.evaluate.accuracy.against_training import AgainstTraining
from samdeploy.evaluate.test_set.open import AS_AT_TRAINING, TRAINED_ELSEWHERE


def stored_test_set(bundle: Bundle, against: AgainstTraining | None) -> str:
    """Whether the images are those that training measured, by their hashes alone: `Report.test_set`."""
    if against is not None:
        return AS_AT_TRAINING if against.same_labels else "differs from the one at training"
    return TRAINED_ELSEWHERE if bundle.is_imported else "not compared with the one at training"
