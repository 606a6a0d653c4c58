"""The page about labels: its figures are the labels', its images are real, and it can be read on a telephone."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pip install 'samdeploy[label]'")
pytest.importorskip("jinja2", reason="pip install 'samdeploy[report]'")

import pyarrow.parquet as pq
from PIL import Image

from samdeploy import Classifier
from samdeploy.bundle import Bundle
from samdeploy.bundle.answers import Answered
from samdeploy.data import open_dataset
from samdeploy.errors import InputError
from samdeploy.label.label import LabelOptions, label
from samdeploy.label.results import input_of, labels_of
from samdeploy.report.labels import LEAST_CERTAIN, OF_A_CLASS, LabelsFound, look_at_labels
from samdeploy.report.labels_html import render_labels
from tests import packages
from tests.cli.typed import Inside
from tests.packages import CHROMIUM

COUNT = 300


@pytest.fixture(scope="module")
def photos(digits_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test digits and one broken file, whose name is hostile."""
    data = digits_bundle.data
    found = open_dataset("digits", val_fraction=data.val_fraction, seed=data.split_seed).test
    folder = tmp_path_factory.mktemp("photos")
    for index in range(COUNT):
        Image.fromarray(found.load(index)).save(folder / f"{index}.png")
    (folder / "<script>alert(1)<!--.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def out(digits_bundle: Bundle, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    with Classifier.open(digits_bundle.root, "onnxruntime") as classifier:
        label(classifier, LabelOptions(str(photos), folder, rows=70))
    return folder


@pytest.fixture(scope="module")
def rows(out: Path) -> list[dict[str, Any]]:
    every = [row for path in sorted(out.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]
    return [row for row in every if row["label"]]


@pytest.fixture(scope="module")
def found(digits_bundle: Bundle, photos: Path, out: Path) -> LabelsFound:
    labels = labels_of(digits_bundle, out)
    return look_at_labels(labels, digits_bundle, input_of(labels, str(photos), "", 1.0))


def test_figures_are_those_of_the_labels(found: LabelsFound, rows: list[dict[str, Any]], digits_bundle: Bundle) -> None:
    assert (found.rows, found.labelled, found.errors) == (COUNT + 1, COUNT, 1)
    for one in found.classes:
        mine = [row for row in rows if row["label"] == one.name]
        assert one.images == len(mine) and one.percent == pytest.approx(100 * len(mine) / COUNT)
        assert len(one.shown) == min(OF_A_CLASS, len(mine)) and {image.label for image in one.shown} == {one.name}
    bins = np.histogram([row["probability"] for row in rows], bins=10, range=(0, 1))[0]
    assert found.confidence == pytest.approx(100 * bins / COUNT)
    least = sorted(rows, key=lambda row: (row["probability"], row["row"]))[:LEAST_CERTAIN]
    assert [image.row for image in found.least] == [row["row"] for row in least]
    assert found.broken[0][0] == "<script>alert(1)<!--.png" and "not an image" in found.broken[0][1]
    assert digits_bundle.answered is not None and [one.of for one in found.drift] == ["classes", "confidence"]


def test_images_are_the_labelled_ones(found: LabelsFound, photos: Path) -> None:
    for image in (*found.least[:5], *found.classes[3].shown):
        assert image.thumbnail is not None
        content = base64.b64decode(image.thumbnail.uri.partition(",")[2])
        assert np.array_equal(np.array(Image.open(io.BytesIO(content))), np.array(Image.open(photos / image.name)))


def test_a_shift_is_seen_and_chance_is_not_one(digits_bundle: Bundle, out: Path, rows: list[dict[str, Any]]) -> None:
    labels = labels_of(digits_bundle, out)
    counts = [sum(row["index"] == index for row in rows) for index in range(10)]
    confident = (0, 0, 0, 0, 0, 0, 0, 0, 0, COUNT)
    same = replace(digits_bundle, answered=Answered(tuple(counts), confident))
    assert look_at_labels(labels, same, None).drift[0].index == pytest.approx(0)
    assert look_at_labels(labels, same, None).drift[0].kind == "good"
    other = replace(digits_bundle, answered=Answered((COUNT, *[0] * 9), confident))
    drift = look_at_labels(labels, other, None).drift[0]
    assert (drift.kind, drift.words) == ("bad", "a large shift")
    unknown = look_at_labels(labels, replace(digits_bundle, answered=None), None)
    assert unknown.drift == () and unknown.confidence_before is None
    page = render_labels(unknown, labels, replace(digits_bundle, answered=None), "samdeploy report")
    assert "does not say what validation images were answered with" in page and "--input INPUT" in page


def test_names_are_escaped(found: LabelsFound, out: Path, digits_bundle: Bundle) -> None:
    page = render_labels(found, labels_of(digits_bundle, out), digits_bundle, "samdeploy report")
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page


def test_command(inside: Inside, digits_bundle: Bundle, photos: Path, out: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ("report", digits_bundle.root, "--labels", out, "--out", page)
    code, output, errors = inside(*arguments, "--input", photos, cwd=tmp_path)
    assert code == 0 and output == f"{page}\n", errors
    assert f"{COUNT} of {COUNT + 1} images have a label" in page.read_text() and "data:image/png" in page.read_text()
    (tmp_path / "other").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "other" / "a.png")
    code, output, errors = inside(*arguments, "--input", tmp_path / "other", cwd=tmp_path)
    assert code == 2 and f"other: not the images labelled in {out}; give the INPUT" in errors
    code, output, errors = inside("report", digits_bundle.root, "--labels", tmp_path / "none", cwd=tmp_path)
    assert code == 2 and "none: no such folder; name a folder that samdeploy label wrote" in errors
    code, output, errors = inside("report", digits_bundle.root, cwd=tmp_path)
    assert code == 2 and "--labels is missing: the folder that samdeploy label wrote" in errors


def test_labels_of_another_bundle_or_of_some_rows_are_refused(
    digits_bundle: Bundle, photos: Path, out: Path, tmp_path: Path, inside: Inside
) -> None:
    settings = json.loads((out / "_label.json").read_text())
    settings["limit"] = 0
    (tmp_path / "_label.json").write_text(json.dumps({**settings, "bundle": {"manifest_sha256": "1" * 64}}))
    with pytest.raises(InputError, match="name that bundle, or label again"):
        labels_of(digits_bundle, tmp_path)
    with Classifier.open(digits_bundle.root, "onnxruntime") as classifier:
        label(classifier, LabelOptions(str(photos), tmp_path / "some", where="probability < 0.5"))
    code, _output, errors = inside("report", digits_bundle.root, "--labels", tmp_path / "some", cwd=tmp_path)
    assert code == 2 and "report needs every row; label without --where" in errors


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    reason = packages.reason("browser", ["'samdeploy[dev]'"], "pip")
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    if (why_not := packages.lacking("browser")) is not None:
        pytest.skip(str(why_not))
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_page_fits(
    browser: Any, width: int, found: LabelsFound, out: Path, digits_bundle: Bundle, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    file.write_text(render_labels(found, labels_of(digits_bundle, out), digits_bundle, "samdeploy report"), "utf-8")
    page = browser.new_page(viewport={"width": width, "height": 800})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(file.as_uri())
    assert said == [] and page.locator("section").count() == 7
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drift = "document.querySelector('[aria-label=Drift]')"
    assert page.evaluate(f"{drift}.scrollWidth <= {drift}.clientWidth")  # the finding is not cut
    page.evaluate("document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })")
    page.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.locator("img").count() == len(found.least) + sum(len(one.shown) for one in found.classes)
    page.close()
