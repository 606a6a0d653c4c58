"""The test set is counted in distinct images, and what makes it worth less is in the headline."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from samdeploy.bundle import Bundle
from samdeploy.data import open_dataset
from samdeploy.data.copies import TwoLabels
from samdeploy.data.picture_hashes import hash_pictures
from samdeploy.evaluate import EvalOptions, evaluate_bundle, verdict
from samdeploy.evaluate.report import Report
from samdeploy.evaluate.test_images import TestImages, count_test_images
from samdeploy.evaluate.test_set import TestSet


def test_copies_buy_no_verdict(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, short_latency: None) -> None:
    data = digits_bundle.data
    honest = open_dataset(data.name, val_fraction=data.val_fraction, seed=data.split_seed).test
    honest = honest.take(np.arange(150))
    copies = honest.take(np.tile(np.arange(150), 5))
    options = EvalOptions(backend="openvino", precision="bf16", device="cpu", consistency_s=0)
    reports = []
    for samples in (honest, copies):
        test_set = TestSet(samples, ())
        monkeypatch.setattr(
            "samdeploy.evaluate.pipeline.open_test_set", lambda bundle, root, test_set=test_set: test_set
        )
        reports.append(evaluate_bundle(digits_bundle, options))
    one, five = (report.results[0] for report in reports)
    assert one.comparison is not None and one.comparison == five.comparison
    assert (one.verdict, one.n_images_done) == (five.verdict, five.n_images_done) == ("cannot tell", 150)
    assert [report.n_images for report in reports] == [150, 150]
    assert "750 test images, 150 distinct" in verdict(reports[1]) and "distinct" not in verdict(reports[0])


def test_the_first_copy_stands_for_the_others_and_keeps_its_place(digits_bundle: Bundle) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)[[0, 1, 0, 2, 1]]
    hashes = hash_pictures([images], list("abcde"), np.array([0, 1, 0, 2, 1]))
    found, distinct = count_test_images(hashes, 10, TwoLabels(0))
    assert distinct.tolist() == [0, 1, 3]
    assert (found.images, found.distinct, found.classes_seen, found.near) == (5, 3, 3, 0)


def test_likenesses_are_counted_once_and_not_between_copies() -> None:
    base = np.random.default_rng(1).integers(0, 200, (2, 32, 32, 3), np.uint8)
    images = np.stack([base[0], base[0], base[0] + np.uint8(3), base[1], base[0] + np.uint8(5)])
    found, _ = count_test_images(hash_pictures([images], list("abcde"), np.arange(5)), 5, TwoLabels(0))
    assert (found.distinct, found.near) == (4, 2)
    assert found.near_example is not None and found.near_example[1] in "ac"


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((359, 359, 7, None, 10, 10, TwoLabels(0)), []),
        ((1795, 359, 0, None, 10, 10, TwoLabels(0)), ["1,795 test images, 359 distinct"]),
        ((359, 359, 8, ("a", "b"), 10, 10, TwoLabels(0)), ["8 test images look like another one"]),
        ((359, 359, None, None, 10, 10, TwoLabels(0)), []),
        ((10, 10, 0, None, 10, 1, TwoLabels(0)), ["only 10 test images", "test images of 1 of 10 classes only"]),
        ((359, 359, 0, None, 10, 10, TwoLabels(3)), ["3 test images have two labels"]),
    ],
)
def test_the_headline_names_what_makes_a_test_set_worth_less(
    report: Callable[..., Report], counts: tuple[object, ...], said: list[str]
) -> None:
    found = report(test_images=TestImages(*counts))  # type: ignore[arg-type]
    assert list(found.test_images.headline()) == found.to_json()["test_images"]["remarks"] == said
    assert all(text in verdict(found) for text in said)
