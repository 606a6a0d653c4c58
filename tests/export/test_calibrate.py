"""Which validation images calibrate a network's probabilities, and what is refused before any of them is decoded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samdeploy.backends import open_session
from samdeploy.bundle import Bundle
from samdeploy.data.dataset import Dataset, array_samples
from samdeploy.data.duplicates.image_hashes import digests_of
from samdeploy.errors import InputError
from samdeploy.export import run_images
from samdeploy.export.calibrate import check_rejection, probabilities
from samdeploy.export.network import network_of_run
from samdeploy.export.run_images import count_validation, new_images
from samdeploy.export.temperature import fit_temperature
from samdeploy.runs.record import open_run


def test_temperature_of_a_bundle_is_that_of_its_validation_images(digits_run: Path, digits_bundle: Bundle) -> None:
    images, labels = new_images(digits_run, open_run(digits_run), None, 10_000)
    with open_session(digits_bundle, "pytorch", device="cpu") as session:
        expected = fit_temperature(session.run(images), labels)
    found = digits_bundle.calibration
    assert found is not None and not isinstance(expected, str)
    assert found.images == expected.images == len(images) == open_run(digits_run).counts["val"]
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert found.nll_after < found.nll_before and digits_bundle.rejection is None


def test_threshold_is_proven_on_images_that_fitted_nothing(digits_run: Path) -> None:
    found = probabilities(digits_run, open_run(digits_run), network_of_run(digits_run, open_run(digits_run)), None, 10)
    assert found.calibration is not None and found.rejection is not None
    assert found.calibration.images + found.rejection.images == len(found.images)
    assert found.rejection.images == 3 * found.calibration.images + len(found.images) % 4
    assert found.rejection.bound <= found.rejection.wanted_error == 10


def test_copies_and_images_of_train_and_test_prove_nothing(digits_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = open_run(digits_run)
    size = record.preprocessing
    images = np.random.default_rng(0).integers(0, 256, (40, size.height, size.width, 3), dtype=np.uint8)
    shown = np.concatenate([images[:30], images[5:10]])  # five of them twice
    val = array_samples(shown, np.arange(len(shown)), "val")
    none = array_samples(images[:0], np.empty(0, np.int64), "none")
    dataset = Dataset("digits", record.classes, none, val, none)
    monkeypatch.setattr(run_images, "_dataset", lambda *_: dataset)
    monkeypatch.setattr(run_images, "_train_digests", lambda *_: digests_of(images[:3]))
    monkeypatch.setattr(run_images, "_test_digests", lambda *_: digests_of(images[28:]))
    found, labels = new_images(digits_run, record, None, 100)
    assert {image.tobytes() for image in found} == {image.tobytes() for image in images[3:28]}
    assert len(found) == 25 and all(
        np.array_equal(shown[label], image) for image, label in zip(found, labels, strict=True)
    )
    assert len(new_images(digits_run, record, None, 10)[0]) <= 10
    monkeypatch.setattr(run_images, "_dataset", lambda *_: replace(dataset, protocol="chosen-on-test"))
    assert count_validation(record, None) == 0


def test_what_cannot_be_proven_is_refused_before_an_image_is_decoded(
    digits_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_images, "load_images", lambda *_, **__: pytest.fail("an image was decoded"))
    record = open_run(digits_run)
    check_rejection(record, None, 2)
    few = "the run has 719 validation images, and at least 19,970 are needed for 0.02 % "
    with pytest.raises(InputError, match=f"{few}.for 2 %: --reject-error 2.; ask for a higher percentage"):
        check_rejection(record, None, 0.02)
    with pytest.raises(InputError, match=r"at least 797 are needed for 0\.5 %; ask for a higher percentage"):
        check_rejection(record, None, 0.5)
    with pytest.raises(InputError, match="the run has no validation images that could prove it"):
        check_rejection(replace(record, data_root=""), None, 2)
    for wanted in (0, 100, -1, float("nan")):
        with pytest.raises(InputError, match="a percentage above 0 and below 100 expected"):
            check_rejection(record, None, wanted)
