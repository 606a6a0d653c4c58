"""PyTorch's accuracy beside the one that training measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.bundle import Bundle
from samdeploy.data import load_images, open_dataset
from samdeploy.data.duplicates.image_hashes import digests_of
from samdeploy.evaluate import EvalOptions, Report, evaluate_bundle
from samdeploy.evaluate.accuracy.against_training import AgainstTraining, compare_with_training, not_recorded
from samdeploy.report.junit import junit_xml
from samdeploy.report.text.evaluation import verdict
from samdeploy.report.verdict import verdict_of
from tests.evaluate.test_contradictions import edit


@pytest.mark.parametrize(
    ("images", "right", "measured", "is_fault"),
    [
        (359, 353, 353, False),
        (359, 352, 353, False),
        (359, 351, 353, True),
        (10_000, 9300, 9320, False),
        (10_000, 9299, 9320, True),
        (10_000, 9341, 9320, True),  # better than measured is not what was measured, either
        (359, 35, 353, True),
    ],
)
def test_allowed_difference(images: int, right: int, measured: int, is_fault: bool) -> None:
    found = AgainstTraining(True, True, 100 * right / images, images, 100 * measured / images, images)
    assert bool(found.fault) is is_fault
    assert not found.remark


def test_nothing_recorded(digits_bundle: Bundle) -> None:
    measured = digits_bundle.measured
    assert measured is not None and not_recorded(digits_bundle) == ""
    old = dataclasses.replace(digits_bundle, measured=None)
    untested = dataclasses.replace(digits_bundle, measured=dataclasses.replace(measured, test=None))
    for bundle, text in ((old, "not recorded in this bundle"), (untested, "did not come to its test")):
        assert text in not_recorded(bundle)
        assert compare_with_training(bundle, np.zeros((1, 2), np.uint64), np.zeros(1, int), np.zeros(1, int)) is None


@pytest.fixture(scope="module")
def test_digits(digits_bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    data = digits_bundle.data
    dataset = open_dataset("digits", Path("data"), options={}, val_fraction=data.val_fraction, seed=data.split_seed)
    return load_images(dataset.test, digits_bundle.spec.preprocessing, description="test")


@pytest.fixture
def judged(digits_bundle: Bundle, short_latency: None, tmp_path: Path) -> Callable[[np.ndarray, np.ndarray], Report]:
    """`judged(images, labels)`: evaluate the bundle on a folder of them."""
    data = dataclasses.replace(digits_bundle.data, name="folder", options={})
    bundle = dataclasses.replace(digits_bundle, data=data)

    def judge(images: np.ndarray, labels: np.ndarray) -> Report:
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = tmp_path / "test" / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{index}.png", compress_level=0)
        return evaluate_bundle(bundle, EvalOptions("onnxruntime", "fp32", data_root=tmp_path, consistency_s=0))

    return judge


def test_same_images_in_another_order(
    judged: Callable[..., Report], test_digits: tuple[np.ndarray, np.ndarray]
) -> None:
    report = judged(*test_digits)
    assert report.passed and report.test_set == "as at training"
    assert report.against_training is not None and report.against_training.same_labels


def test_same_images_under_other_labels_fail(
    judged: Callable[..., Report], test_digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = test_digits
    report = judged(images, np.random.default_rng(0).permutation(labels))
    assert not report.passed
    (fault,) = report.faults
    assert fault.startswith("the test images are those that training measured, their labels are not (PyTorch's top-1: ")
    assert fault in verdict(report) and fault in verdict_of(report.to_json()).sentence
    assert b"their labels are not" in junit_xml(report)


def test_other_images_have_both_figures_in_the_headline(
    judged: Callable[..., Report], test_digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = test_digits
    report = judged(images[:120], labels[:120])
    found = report.against_training
    assert report.passed and found is not None and not found.same_images
    both = f"PyTorch's top-1 is {found.top1:.2f} %, {found.measured_top1:.2f} % at training"
    assert f"other test images than training measured: {both}" in verdict(report)
    assert f"was {found.measured_top1:.2f} % on those" in " ".join(verdict_of(report.to_json()).not_covered)


@pytest.mark.usefixtures("short_latency")
def test_accuracy_that_was_edited_fails(copy_of_bundle: Path, seal: Callable[[Path], Bundle]) -> None:
    edit(copy_of_bundle, lambda values: values["measured"]["test"].update(top1=50.0))
    report = evaluate_bundle(seal(copy_of_bundle), EvalOptions("onnxruntime", "fp32", consistency_s=0))
    assert report.results[0].passed and not report.passed
    assert report.faults[0].startswith("PyTorch's top-1 on the test images that training measured is ")


def test_copies_are_part_of_what_was_measured(
    digits_bundle: Bundle, test_digits: tuple[np.ndarray, np.ndarray]
) -> None:
    images, labels = test_digits
    twice = np.concatenate([digests_of(images)] * 2), np.concatenate([labels] * 2)
    found = compare_with_training(digits_bundle, *twice, np.zeros(2 * len(labels), int))
    assert found is not None and not found.same_images
