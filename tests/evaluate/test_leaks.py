"""`eval` says where its test pictures were trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import Bundle, open_bundle
from samdeploy.data import Samples, load_images, open_dataset
from samdeploy.evaluate import EvalOptions, evaluate_bundle, table
from samdeploy.evaluate.leaks import find_test_leaks
from samdeploy.evaluate.pictures import PreparedPictures
from samdeploy.evaluate.test_set import TestSet
from samdeploy.run import HASHES_FILE


def prepared(samples: Samples, bundle: Bundle) -> PreparedPictures:
    images, _ = load_images(samples, bundle.spec.preprocessing, description="test")
    pictures = PreparedPictures(len(images), *images.shape[1:3])
    pictures.append(images)
    return pictures


def samples_of(bundle: Bundle, split: str) -> Samples:
    return open_dataset("digits", val_fraction=bundle.data.val_fraction, seed=bundle.data.split_seed).split(split)


def test_the_test_pictures_were_not_trained_on(digits_bundle: Bundle) -> None:
    samples = samples_of(digits_bundle, "test")
    with prepared(samples, digits_bundle) as pictures:
        report = find_test_leaks(digits_bundle, pictures, samples.names)
    assert report is not None and report.lines() == ()
    assert [(found.split, found.other, found.images, found.exact) for found in report.overlaps] == [
        ("test", "train", 359, 0), ("test", "val", 359, 0),
    ]  # fmt: skip


def test_training_pictures_in_the_test_set_are_named(digits_bundle: Bundle) -> None:
    train, test = samples_of(digits_bundle, "train"), samples_of(digits_bundle, "test")
    with prepared(train.take(np.arange(40, 60)), digits_bundle) as pictures:
        report = find_test_leaks(digits_bundle, pictures, test.names[:20])
    assert report is not None
    on_train, on_val = report.overlaps
    assert (on_train.exact, on_train.images, on_val.exact) == (20, 20, 0)
    assert on_train.examples[0].other == train.names[40]


def test_a_bundle_without_its_run_says_that_it_was_not_compared(digits_bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(digits_bundle.root, tmp_path / "bundle")
    with prepared(samples_of(digits_bundle, "val").take(np.arange(3)), digits_bundle) as pictures:
        assert find_test_leaks(open_bundle(tmp_path / "bundle"), pictures, ["a", "b", "c"]) is None


@pytest.mark.usefixtures("short_latency")
def test_the_report_says_it_in_words_and_in_json(
    digits_bundle: Bundle, digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`eval --data` with the training pictures as test pictures: the engines pass, and the mistake is said."""
    shutil.copytree(digits_bundle.root, tmp_path / "run" / "bundle")
    shutil.copy(digits_run / HASHES_FILE, tmp_path / "run")
    train = samples_of(digits_bundle, "train").take(np.arange(100))
    monkeypatch.setattr("samdeploy.evaluate.pipeline.open_test_set", lambda bundle, root: TestSet(train, ()))
    options = EvalOptions(backend="onnxruntime", device="cpu")
    report = evaluate_bundle(open_bundle(tmp_path / "run" / "bundle"), options)
    text = "100 of 100 test images (100.00 %) are also in train, pixel by pixel"
    assert report.notes[0].startswith(text)
    assert text in " ".join(table(report).split())
    row = json.loads(json.dumps(report.to_json()))["leaks"]["overlaps"][0]
    assert (row["other"], row["exact"], row["exact_percent"]) == ("train", 100, 100.0)
