"""The page: all sections, the truth in them, and nothing that a hostile name could do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samdeploy.bundle import Bundle
from samdeploy.evaluate.accuracy.compare import compare
from samdeploy.evaluate.map_agreement import CamAgreement
from samdeploy.evaluate.result import NotMeasured, Report
from samdeploy.report.evidence import MOST_IMAGES, gather
from samdeploy.report.html import render_html
from samdeploy.report.write import write_report

SECTIONS = (
    "accuracy", "flips", "confusion", "classes", "calibration", "rejection", "probes", "consistency", "headroom",
    "latency", "throughput", "maps", "provenance",
)  # fmt: skip
VOID = {"meta", "br", "img", "link"}


class Page(HTMLParser):
    """What a test asks of a page: elements with their attributes, headings, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[int] = []
        self.unbalanced: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(written: Path) -> Page:
    return Page((written / "report.html").read_text(encoding="utf-8"))


def rendered(report: Report, bundle: Bundle, **changes: Any) -> Page:
    evaluation = {**json.loads(json.dumps(report.to_json())), **changes}
    return Page(render_html(evaluation, gather(bundle, evaluation, report, data_root=None, command="c"), bundle))


def test_the_page_is_whole(page: Page) -> None:
    assert (page.unbalanced, page.open) == ([], [])
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert [found["aria-labelledby"] for found in page.all("section")] == list(SECTIONS)
    assert [found["href"] for found in page.all("a")] == [f"#{name}" for name in SECTIONS]
    # Headings go down one step at a time.
    assert page.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))


def test_everything_can_be_told_without_seeing(page: Page) -> None:
    assert page.all("img") and all(image["alt"] for image in page.all("img"))
    plots = [found for found in page.all("svg") if found.get("aria-hidden") != "true"]
    assert plots and all(found["role"] == "img" and found["aria-label"] for found in plots)
    assert page.all("th") and all(found.get("scope") in ("row", "col") for found in page.all("th"))
    assert all(found["aria-label"] for found in page.all("div") if found.get("role") == "region")


def test_nothing_comes_from_elsewhere(written: Path, page: Page) -> None:
    text = (written / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href|url|@import)\s*[=(]?\s*["']?(?:https?:)?//""", text)
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert all((image["src"] or "").startswith("data:image/") for image in page.all("img"))
    (policy,) = [found["content"] for found in page.all("meta") if "http-equiv" in found]
    assert (policy or "").startswith("default-src 'none'; img-src data:;")
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]


def test_the_verdict_comes_first_and_says_what_it_does_not_cover(page: Page) -> None:
    begin = page.text[: page.text.index("Accuracy, engine by engine")]
    assert "✗ FAILED" in begin
    assert "Do not use openvino bf16 and tensorrt fp32 (cuda) in place of the trained network" in begin
    for gap in (
        "tensorrt fp16 was not run: no CUDA device: no driver.",
        "Not judged: model.fp16.onnx, which no engine ran.",
        "The times of openvino int8 are too noisy to be relied on.",
        "Other batch sizes, threads and repeats were not tried with openvino int8.",
        "3 of 359 test images stand in val too: accuracy on them says nothing about new images.",
        "1 of 359 test images look like one in val; where they are copies, accuracy on them says nothing",
    ):
        assert gap in begin


def test_each_engine_has_its_figures(page: Page, everything: Report) -> None:
    text = page.text
    assert "onnxruntime fp32 ✓ passed 97.21 97.21" in text
    assert "openvino int8 ? inconclusive 96.94 97.21" in text
    assert "tensorrt fp32 (cuda) ✗ stopped answered 64 of 359 images" in text
    assert "tensorrt fp16 - not run no figures" in text
    comparison = everything.results[1].comparison
    assert comparison is not None
    low, high = (f"{value:+.2f}".replace("-", "−") for value in (comparison.change.low, comparison.change.high))  # noqa: RUF001
    assert f"openvino int8 2 1 −0.28 {low} to {high} 1.000" in text  # noqa: RUF001
    assert "stopped after 64 of 359 images: the GPU fell off the bus" in text
    assert "✗ failed not finite of 0.1 allowed" in text and "wrong at batch size 7, in every row" in text
    assert "Where openvino bf16 departs layer2.0.conv2 overflows" in text
    assert "pixels 0 0 255.0 8.0 → layer2.0.conv2 not finite 0 0.000 –" in text  # noqa: RUF001
    assert "? not finished" in text and "time was up after 3 runs" in text


def test_changed_images_are_shown(page: Page, everything: Report, written: Path) -> None:
    text = page.text
    assert "openvino int8: 4 of 359" in text
    assert text.count("✗ lost") == 2 + MOST_IMAGES // 2 and text.count("✓ gained") == 1
    assert "openvino bf16: 102 of 359 The first 48 are shown, lost ones first." in text
    assert "The other 36" in text
    images = page.all("img")
    assert len(images) == 4 + MOST_IMAGES // 2
    assert all(image["class"] == "tiny" for image in images)  # 8x8 digits, each pixel a square
    evidence = json.loads((written / "report.json").read_text())["report"]
    (shown,) = [each["shown"] for each in evidence["flips"] if each["engine"] == "openvino int8"]
    assert [flip["kind"] for flip in shown] == ["lost", "lost", "gained", "other"]
    assert [flip["index"] for flip in shown] == [0, 1, 200, 201]
    assert all("thumbnail" not in flip and flip["name"].startswith("digits[") for flip in shown)


def test_the_image_is_the_test_image(page: Page, digits_bundle: Bundle) -> None:
    import base64
    import io

    from PIL import Image

    from samdeploy.data import open_dataset

    data = digits_bundle.data
    test = open_dataset(data.name, val_fraction=data.val_fraction, seed=data.split_seed).test
    content = base64.b64decode((page.all("img")[2]["src"] or "").partition(",")[2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), test.load(200))


def test_confusion_of_engines_that_answer_alike_stands_once(written: Path) -> None:
    groups = json.loads((written / "report.json").read_text())["report"]["confusions"]
    assert [group["names"] for group in groups] == [
        ["PyTorch", "onnxruntime fp32"],
        ["openvino int8"],
        ["openvino bf16"],
    ]
    assert [group["mistakes"] for group in groups] == [10, 11, 109]
    assert [sum(map(sum, group["counts"])) for group in groups] == [359] * 3


def test_what_is_missing_is_said_with_its_cure(page: Page, digits_bundle: Bundle) -> None:
    assert f"samdeploy bench {digits_bundle.root} --json {digits_bundle.root}/bench.json" in page.text
    assert f"samdeploy bench {digits_bundle.root} --against --json" in page.text
    assert "at 32x32 pixels a map is one cell" in page.text


def test_what_bench_measured_is_drawn(everything: Report, with_bench: Bundle) -> None:
    found = rendered(everything, with_bench)
    labels = [plot.get("aria-label") or "" for plot in found.all("svg")]
    assert any(label.startswith("Images per second over the batch size for onnxruntime fp32") for label in labels)
    assert any("samdeploy openvino fp32 2.50x (2.00 to 3.00)" in label for label in labels)
    assert "trtexec: not run not installed" in found.text
    assert "not measured" not in found.text[found.text.index("Throughput, and") :]


def test_a_damaged_bench_file_costs_its_section_alone(everything: Report, with_bench: Bundle) -> None:
    (with_bench.root / "bench.json").write_text('{"date": 3, "machine": "m", "engines": [], "against": []}')
    found = rendered(everything, with_bench)
    assert "bench.json: 'date' must be text, integer 3 found; make it again: samdeploy bench --json" in found.text
    assert "2.50x (2.00 to 3.00)" in found.text


NAMES = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "{{ 7*7 }}", "a\x00b\u202eGröße")


def test_hostile_names_are_text(everything: Report, digits_bundle: Bundle) -> None:
    names = (*NAMES, *digits_bundle.spec.classes[len(NAMES) :])
    report = replace(everything, class_names=names)
    bundle = replace(digits_bundle, spec=replace(digits_bundle.spec, classes=names))
    evaluation = json.loads(json.dumps(report.to_json()))
    evidence = gather(digits_bundle, evaluation, report, data_root=None, command='x "<b>"')
    text = render_html(evaluation, evidence, bundle)
    assert not re.search('<script|<img src=x|<b>"', text)
    found = Page(text)
    assert found.all("script") == [] and (found.unbalanced, found.open) == ([], [])
    assert "\u202e" not in text and "\x00" not in text and r"a\x00b\u202eGröße" in found.text
    assert "<script>alert(1)</script>" in found.text and "{{ 7*7 }}" in found.text


def test_many_classes_get_pairs_instead_of_a_matrix(
    everything: Report, digits_bundle: Bundle, logits: Callable[..., Any]
) -> None:
    names = tuple(f"class {index}" for index in range(100))
    engine, reference, labels = logits(np.arange(359) % 100, lost=150, gained=0, other=0, classes=100)
    comparison = compare(engine, reference, labels)
    row = replace(everything.results[1], comparison=comparison)
    report = replace(everything, results=(row,), class_names=names)
    bundle = replace(digits_bundle, spec=replace(digits_bundle.spec, classes=names))
    found = rendered(report, bundle)
    # The first fifty lose two or three of their images, the others one.
    first = found.text[found.text.index("Classes that lose most") : found.text.index("All 100 classes")]
    shown = [int(number) for number in re.findall(r"class (\d+) ", first)]
    assert len(shown) == 10 and max(shown) < 50
    assert not [table for table in found.all("table") if table.get("class") == "heat"]
    assert "label taken for images in PyTorch class 0 class 1 3 1" in found.text


def test_no_engine_at_all(everything: Report, digits_bundle: Bundle) -> None:
    found = rendered(replace(everything, results=everything.results[4:]), digits_bundle)
    assert "No engine could run on this machine, so nothing is shown." in found.text
    found = rendered(replace(everything, results=everything.results[3:4]), digits_bundle)
    assert found.text.count("Not shown") >= 3
    assert not [plot for plot in found.all("svg") if "Change of top-1" in (plot.get("aria-label") or "")]


def test_an_image_that_is_gone_costs_its_image_alone(
    everything: Report, digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from samdeploy.errors import DatasetError

    def gone(*_: object) -> None:
        raise DatasetError("no digits here")

    monkeypatch.setattr("samdeploy.report.evidence.open_test_set", gone)
    found = rendered(everything, digits_bundle)
    assert found.all("img") == []
    assert "Not shown: no digits here." in found.text and "(cannot be read any more)" in found.text


def test_the_largest_report_stays_small(
    everything: Report, digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Images that no compression makes small, for as many engines as there are."""
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    monkeypatch.setattr("samdeploy.report.evidence._TestImages.load", lambda self, index: noise)
    report = replace(everything, results=(everything.results[2],) * 4)
    path = write_report(tmp_path, digits_bundle, report, data_root=None, command="c")
    size = path.stat().st_size
    assert Page(path.read_text()).all("img")
    assert 500_000 < size < 5_000_000


def test_maps_are_drawn(cam_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'samdeploy[report]'")
    from samdeploy.report.maps import draw_maps

    images = list(cam_bundle.golden()[0][:3])
    sheet = draw_maps(cam_bundle, images, [4, 5, 6], ["e", "..", "e"])
    assert sheet.cells == (3, 2)
    assert [found.index for found in sheet.maps] == [4, 5, 6]
    logits = cam_bundle.golden()[1][:3]
    assert [found.named for found in sheet.maps] == [cam_bundle.spec.classes[row.argmax()] for row in logits]
    assert all(found.drawn.uri.startswith("data:image/jpeg") and 0 < found.probability <= 100 for found in sheet.maps)
    assert len({found.drawn.uri for found in sheet.maps}) == 3


def test_what_a_check_could_not_say_is_said(everything: Report, digits_bundle: Bundle) -> None:
    nothing = NotMeasured("the GPU is too old")
    row = replace(everything.results[0], parts={"cam": nothing})
    found = rendered(replace(everything, results=(row,)), digits_bundle)
    assert "onnxruntime fp32, maps not compared: the GPU is too old." in found.text
    maps = CamAgreement(64, 60, (3, 3), 0.5, 0.975)
    found = rendered(replace(everything, results=(replace(row, parts={"cam": maps}),)), digits_bundle)
    assert "onnxruntime fp32 0.9750 0.5000 60 of 64 4 of 64 maps are constant" in found.text
