"""The images an export looks at are never test images, whatever the splits say."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle.names import HASHES_FILE
from samdeploy.data import load_images, open_dataset
from samdeploy.data.duplicates.image_hashes import ImageHashes, digests_of, read_hashes, write_hashes
from samdeploy.data.duplicates.leaks import is_among
from samdeploy.errors import ExportError
from samdeploy.export.run_images import (
    CALIBRATION_IMAGES,
    GOLDEN_IMAGES,
    export_images,
    headroom_images,
    validation_images,
)
from samdeploy.runs.record import open_run


def leaky_run(digits_run: Path, tmp_path: Path, digests: np.ndarray) -> Path:
    """A copy of the run's records, with these digests as those of its test images."""
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(digits_run / "run.json", run)
    hashes = read_hashes(digits_run / HASHES_FILE)
    test = ImageHashes(
        digests,
        np.zeros((len(digests), 4), np.uint64),
        [str(n) for n in range(len(digests))],
        np.zeros(len(digests), np.int64),
    )
    write_hashes(run / HASHES_FILE, {**hashes, "test": test})
    return run


def test_an_honest_run_gives_all_images_and_none_of_test(digits_run: Path) -> None:
    record = open_run(digits_run)
    examples = export_images(digits_run, record, None)
    assert (len(examples.golden), len(examples.calibration)) == (GOLDEN_IMAGES, CALIBRATION_IMAGES)
    dataset = open_dataset("digits", val_fraction=record.val_fraction, seed=record.split_seed)
    test, _ = load_images(dataset.test, record.preprocessing, description="test")
    known = {image.tobytes() for image in test}
    assert len(known) == 359
    assert len(examples.headroom) == record.counts["train"] == 719  # fewer than are wanted: all of them
    every = (*examples.golden, *examples.calibration, *examples.headroom)
    assert not [image for image in every if image.tobytes() in known]


def test_what_a_image_costs_decides_how_many_are_measured(digits_run: Path) -> None:
    assert [headroom_images(cost) for cost in (10**6, 390_625_000, 10**9, 10**10)] == [1024, 1024, 400, 128]
    assert len(export_images(digits_run, open_run(digits_run), None, 400).headroom) == 400


def test_images_that_are_test_images_too_are_left_out(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = open_run(digits_run)
    before = export_images(digits_run, record, None)
    leaked = np.concatenate([digests_of(before.golden[2:4]), digests_of(before.calibration[5:8])])
    run = leaky_run(digits_run, tmp_path, leaked)
    after = export_images(run, record, None)
    assert np.array_equal(after.golden, np.delete(before.golden, [2, 3], axis=0))
    assert np.array_equal(after.calibration, np.delete(before.calibration, [5, 6, 7], axis=0))
    said = capsys.readouterr().err
    assert "golden images: 2 of 8 are test images too and were left out" in said
    assert "calibration images: 3 of 128 are test images too and were left out" in said
    images, labels = validation_images(run, record, None)
    assert len(images) == len(labels) == record.counts["val"] - 2
    assert not is_among(digests_of(images), leaked).any()


def test_an_export_with_nothing_but_test_images_is_refused(digits_run: Path, tmp_path: Path) -> None:
    record = open_run(digits_run)
    run = leaky_run(digits_run, tmp_path, read_hashes(digits_run / HASHES_FILE)["val"].digests)
    with pytest.raises(ExportError, match="golden images: all 8 are test images too, pixel by pixel"):
        export_images(run, record, None)
    with pytest.raises(ExportError, match="must not look at those; import again with other images in train/ than in"):
        export_images(run, dataclasses.replace(record, status="imported"), None)


def test_a_run_without_hashes_reads_the_test_images(digits_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    # Of another seed: some of what was val is test now.
    record = open_run(digits_run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("samdeploy.data.sets.digits.TEST_SEED", 1)
        moved = open_dataset("digits", val_fraction=record.val_fraction, seed=record.split_seed)
    honest = open_dataset("digits", val_fraction=record.val_fraction, seed=record.split_seed)
    mixed = dataclasses.replace(honest, test=moved.test)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("samdeploy.export.run_images.open_dataset", lambda *args, **options: mixed)
        examples = export_images(run, record, None)
    test, _ = load_images(mixed.test, record.preprocessing, description="test")
    known = {image.tobytes() for image in test}
    assert 0 < len(examples.calibration) < CALIBRATION_IMAGES
    assert not [image for image in (*examples.golden, *examples.calibration) if image.tobytes() in known]


@pytest.mark.parametrize("protocol", ["chosen-on-test", "tested-on-train"])
def test_a_published_protocol_exports_with_training_images(protocol: str, digits_run: Path, tmp_path: Path) -> None:
    """It keeps no val: golden images come of train, and only where test is train are they test images too."""
    record = dataclasses.replace(open_run(digits_run), data_options={"protocol": protocol})
    dataset = open_dataset("digits", options=record.data_options)
    images = {
        name: load_images(dataset.split(name), record.preprocessing, description=name)[0] for name in ("train", "test")
    }
    examples = export_images(tmp_path, record, None)  # without hashes: the test images are read
    assert (len(examples.golden), len(examples.calibration)) == (GOLDEN_IMAGES, CALIBRATION_IMAGES)
    found = digests_of(np.concatenate([examples.golden, examples.calibration]))
    assert is_among(found, digests_of(images["train"])).all()
    assert is_among(found, digests_of(images["test"])).any() == (protocol == "tested-on-train")
