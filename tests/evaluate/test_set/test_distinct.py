"""The test set is counted in distinct images, and what makes it worth less is in the headline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.bundle import Bundle
from samdeploy.bundle.spec import Preprocessing
from samdeploy.data import load_images, open_dataset
from samdeploy.data.duplicates.alike import find_alike, thumbnails
from samdeploy.data.duplicates.copies import TwoLabels
from samdeploy.data.duplicates.image_hashes import hash_images
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from samdeploy.evaluate.result import Report
from samdeploy.evaluate.test_set.distinct import TestImages, count_test_images, distinct_images
from samdeploy.evaluate.test_set.open import TestSet
from samdeploy.images.decode import prepare
from samdeploy.report.text.evaluation import verdict


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
            "samdeploy.evaluate.evaluate.open_test_set", lambda bundle, root, test_set=test_set: test_set
        )
        reports.append(evaluate_bundle(digits_bundle, options))
    one, five = (report.results[0] for report in reports)
    assert one.comparison is not None and one.comparison == five.comparison
    assert (one.verdict, one.n_images_done) == (five.verdict, five.n_images_done) == ("cannot tell", 150)
    assert [report.n_images for report in reports] == [150, 150]
    assert "750 test images, 150 distinct" in verdict(reports[1]) and "distinct" not in verdict(reports[0])


def test_the_first_copy_stands_for_the_others() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)[[0, 1, 0, 2, 1]]
    hashes = hash_images([images], list("abcde"), np.array([0, 1, 0, 2, 1]))
    distinct = distinct_images(hashes)
    assert distinct.tolist() == [0, 1, 3]
    found = count_test_images(hashes, distinct, lambda: thumbnails(images[distinct]), 10, TwoLabels(0))
    assert (found.images, found.distinct, found.classes_seen, found.near) == (5, 3, 3, 0)


@pytest.mark.parametrize("name", ["jpeg", "bigger", "brighter"])
def test_resaved_digits_look_like_themselves_and_like_no_other(name: str, tmp_path: Path) -> None:
    images, labels = load_images(open_dataset("digits").test, Preprocessing(32, 32), description="test")
    images, labels = images[:100], labels[:100]
    copies = np.empty_like(images)
    for copy, image in zip(copies, map(Image.fromarray, images), strict=True):
        file = tmp_path / "copy.jpg"
        image = image.resize((64, 64), Image.Resampling.BICUBIC) if name == "bigger" else image
        image.point(lambda value: value * 0.9 + 20 if name == "brighter" else value).save(file, quality=75)
        copy[:] = prepare(file, Preprocessing(32, 32))
    both = np.concatenate([images, copies])
    hashes = hash_images([both], [str(index) for index in range(200)], np.tile(labels, 2))
    found = count_test_images(hashes, np.arange(200), lambda: thumbnails(both), 10, TwoLabels(0))
    assert (found.distinct, found.near, found.near_example) == (200, 100, ("100", "0"))
    assert "100 test images look like another one" in list(found.headline())


def test_thumbnails_are_means_over_cells_of_any_size() -> None:
    images = np.random.default_rng(2).integers(0, 256, (3, 40, 24, 3), np.uint8)
    grey = images.astype(np.float64) @ [0.299, 0.587, 0.114]
    cells = grey.reshape(3, 8, 5, 8, 3).mean(axis=(2, 4)).reshape(3, 64)
    expected = [np.corrcoef(cells[0], cells[other])[0, 1] for other in range(3)]
    found = thumbnails(images)
    assert found[0] @ found.T == pytest.approx(expected, abs=1e-5)
    assert not thumbnails(np.full((1, 5, 3, 3), 90, np.uint8)).any()
    assert find_alike(thumbnails(np.full((2, 9, 9, 3), 90, np.uint8))).tolist() == []


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
