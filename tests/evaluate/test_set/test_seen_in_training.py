"""`eval` fails where its test images were trained on, next to the run and away from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.names import HASHES_FILE
from samdeploy.data import Samples, load_images, open_dataset
from samdeploy.data.duplicates.bundle_hashes import ROLES, bundle_hashes, from_bundle_hashes
from samdeploy.data.duplicates.copies import find_two_labels
from samdeploy.data.duplicates.image_hashes import ImageHashes, hash_images, read_hashes, write_hashes
from samdeploy.data.duplicates.leaks import LeakReport
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from samdeploy.evaluate.test_set.open import TestSet
from samdeploy.evaluate.test_set.seen_in_training import beside, find_test_leaks, known_images, trained_on
from samdeploy.report.text.evaluation import evaluation_tables, verdict


def samples_of(bundle: Bundle, split: str) -> Samples:
    return open_dataset("digits", val_fraction=bundle.data.val_fraction, seed=bundle.data.split_seed).split(split)


def hashed(samples: Samples, bundle: Bundle) -> ImageHashes:
    images, labels = load_images(samples, bundle.spec.preprocessing, description="test")
    return hash_images([images], samples.names, labels)


def leaks_of(bundle: Bundle, samples: Samples) -> LeakReport:
    report = find_test_leaks(known_images(bundle), hashed(samples, bundle))
    assert report is not None
    return report


@pytest.fixture
def alone(digits_bundle: Bundle, tmp_path: Path) -> Bundle:
    """The bundle away from its run."""
    shutil.copytree(digits_bundle.root, tmp_path / "alone")
    return open_bundle(tmp_path / "alone")


def test_honest_test_images_were_not_trained_on(digits_bundle: Bundle, alone: Bundle) -> None:
    samples = samples_of(digits_bundle, "test")
    for bundle, near in ((digits_bundle, 0), (alone, None)):
        report = leaks_of(bundle, samples)
        assert report.lines() == ()
        assert [(row.split, row.other, row.images, row.exact, row.near) for row in report.overlaps] == [
            ("test", "train", 359, 0, near), ("test", "val", 359, 0, near),
        ]  # fmt: skip


def test_training_images_in_the_test_set_are_named(digits_bundle: Bundle, alone: Bundle) -> None:
    train = samples_of(digits_bundle, "train")
    for bundle, name in ((digits_bundle, train.names[40]), (alone, "an image of train")):
        on_train, on_val = leaks_of(bundle, train.take(np.arange(40, 60))).overlaps
        assert (on_train.exact, on_train.images, on_val.exact) == (20, 20, 0)
        assert on_train.examples[0].other == name


def test_two_percent_are_accepted_and_a_declared_protocol_too(alone: Bundle) -> None:
    train, test = samples_of(alone, "train"), samples_of(alone, "test").take(np.arange(98))
    few, many = (leaks_of(alone, test + train.take(np.arange(count))) for count in (2, 3))
    assert (trained_on(few, "honest"), trained_on(many, "tested-on-train"), trained_on(None, "honest")) == ((), (), ())
    assert trained_on(many, "honest") == (
        "3 of 101 test images (3.0 %) were trained on, at most 2 % is accepted: give images that were not, with --data",
    )


def test_a_bundle_keeps_sixteen_bytes_an_image(digits_bundle: Bundle, digits_run: Path) -> None:
    run = read_hashes(digits_run / HASHES_FILE)
    for split, role in ROLES.items():
        file = digits_bundle.find(role)
        assert file is not None and file.bytes == 128 + 16 * len(run[split])
        again = from_bundle_hashes(digits_bundle.array(role, np.dtype(np.uint64), (2,)), split)
        pairs = {(int(one), int(label)) for (one, _), label in zip(run[split].digests, run[split].labels, strict=True)}
        assert {(int(one), int(label)) for (one,), label in zip(again.digests, again.labels, strict=True)} == pairs


def test_labels_that_nobody_wrote_down_survive_as_unknown(digits_run: Path) -> None:
    hashes = read_hashes(digits_run / HASHES_FILE)["val"].take(np.arange(3))
    hashes.labels[:] = [-1, 4, -1]
    again = from_bundle_hashes(bundle_hashes(hashes), "val")
    assert sorted(again.labels.tolist()) == [-1, -1, 4]


def test_hashes_of_another_run_beside_the_bundle_are_not_believed(
    digits_bundle: Bundle, digits_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(digits_bundle.root, tmp_path / "bundle")
    run = read_hashes(digits_run / HASHES_FILE)
    write_hashes(tmp_path / HASHES_FILE, {**run, "train": run["train"].take(np.arange(5))})
    report = leaks_of(open_bundle(tmp_path / "bundle"), samples_of(digits_bundle, "train").take(np.arange(20)))
    assert report.overlaps[0].exact == 20


def test_a_test_image_that_was_trained_on_under_another_label_has_two(digits_bundle: Bundle, alone: Bundle) -> None:
    train = hashed(samples_of(digits_bundle, "train").take(np.arange(4)), digits_bundle)
    wrong = ImageHashes(train.digests, train.perceptual, ["a", "b", "c", "d"], train.labels.copy())
    wrong.labels[2] = (wrong.labels[2] + 1) % 10
    for bundle in (digits_bundle, alone):
        found = find_two_labels(beside(known_images(bundle), wrong), bundle.spec.classes, of="test")
        assert found.images == 1
        name, label, _, other_label = found.examples[0]
        assert (name, label, other_label) == ("c", str(wrong.labels[2]), str(train.labels[2]))


def test_a_test_set_that_is_the_training_set_fails_away_from_the_run(
    alone: Bundle, monkeypatch: pytest.MonkeyPatch, short_latency: None
) -> None:
    train = samples_of(alone, "train").take(np.arange(100))
    monkeypatch.setattr("samdeploy.evaluate.evaluate.open_test_set", lambda bundle, root: TestSet(train, ()))
    report = evaluate_bundle(alone, EvalOptions(backend="onnxruntime", device="cpu", consistency_s=0))
    assert not report.passed and all(row.passed for row in report.results)
    assert verdict(report).startswith("FAILED (100 of 100 test images (100.0 %) were trained on, at most 2 %")
    assert verdict(report).count("were trained on") == 1
    assert "100 of 100 test images (100.00 %) are also in train, with the same pixels" in " ".join(
        evaluation_tables(report).split()
    )
    row = json.loads(json.dumps(report.to_json()))["leaks"]["overlaps"][0]
    assert (row["other"], row["exact"], row["near"], row["near_percent"]) == ("train", 100, None, None)
