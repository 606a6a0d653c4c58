"""The gate over labels: the verdict and the counts of the evaluation that reads the images, without reading any."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from samdeploy.bundle import Bundle
from samdeploy.errors import InputError
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from samdeploy.evaluate.accuracy.floors import Floors
from samdeploy.evaluate.result import NotMeasured, Report
from samdeploy.evaluate.stored.labels import LabelSets, _paired, evaluate_labels
from samdeploy.label.parts import sealed
from samdeploy.label.results import open_labels
from tests.cli.typed import Inside

Labelled = Callable[..., Path]


def judged(bundle: Bundle, engine: Path, reference: Path, **options: Any) -> Report:
    return evaluate_labels(bundle, LabelSets((engine,), reference), EvalOptions(**options))


def changed(folder: Path, out: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of labels of which every row was changed."""
    shutil.copytree(folder, out)
    for path in out.glob("part-*.parquet"):
        table = pq.read_table(path)
        rows = table.to_pylist()
        for row in rows:
            change(row)
        meta = {b"samdeploy": table.schema.metadata[b"samdeploy"]}
        path.write_bytes(sealed(pa.Table.from_pylist(rows, schema=table.schema.with_metadata(meta))))
    return out


@pytest.mark.usefixtures("short_latency")
def test_it_is_the_verdict_of_the_evaluation(digits_bundle: Bundle, engine: Path, reference: Path) -> None:
    plain = evaluate_bundle(digits_bundle, EvalOptions("onnxruntime", "fp32", consistency_s=0))
    stored = judged(digits_bundle, engine, reference)
    assert plain.passed and stored.passed and stored.faults == plain.faults == ()
    for name in ("n_images", "dataset", "test_set", "against_training", "is_chance"):
        assert getattr(stored, name) == getattr(plain, name), name
    one, other = stored.results[0], plain.results[0]
    assert one.comparison is not None and other.comparison is not None
    for name in (
        "top1", "reference_top1", "top1_agreement", "top5", "reference_top5", "change", "mcnemar_p", "classes",
        "balanced_accuracy", "macro_f1", "finite",
    ):  # fmt: skip
        assert getattr(one.comparison, name) == getattr(other.comparison, name), name
    assert one.comparison.ece == pytest.approx(other.comparison.ece, abs=1e-6)
    # Other batch sizes add in another order.
    assert one.comparison.max_difference_of_range == pytest.approx(other.comparison.max_difference_of_range, abs=1e-5)
    assert one.parts["probabilities"].to_json()["accepted"] == other.parts["probabilities"].to_json()["accepted"]
    assert stored.leaks is not None and plain.leaks is not None
    assert [row.exact for row in stored.leaks.overlaps] == [row.exact for row in plain.leaks.overlaps]


@pytest.mark.usefixtures("short_latency")
def test_classes_alone_decide_about_a_lower_precision(
    leaning_bundle: Bundle, digit_files: Path, labelled: Labelled
) -> None:
    plain = evaluate_bundle(leaning_bundle, EvalOptions("onnxruntime", "int8", consistency_s=0)).results[0]
    folders = [labelled(leaning_bundle, digit_files, *which) for which in (("onnxruntime", "int8"), ("pytorch",))]
    stored = judged(leaning_bundle, *folders).results[0]
    assert plain.comparison is not None and stored.comparison is not None
    assert plain.comparison.change.lost + plain.comparison.change.gained > 0
    for name in ("top1", "top1_agreement", "top5", "change", "mcnemar_p", "classes"):
        assert getattr(stored.comparison, name) == getattr(plain.comparison, name), name
    assert (stored.verdict, stored.n_needed) == (plain.verdict, plain.n_needed)
    assert stored.comparison.max_difference_of_range is None
    assert stored.comparison.ece == pytest.approx(plain.comparison.ece, abs=1e-4)
    assert isinstance(stored.parts["probabilities"], NotMeasured)


def test_other_answers_fail(digits_bundle: Bundle, engine: Path, reference: Path, tmp_path: Path) -> None:
    flipped = []

    def flip(row: dict[str, Any]) -> None:
        if row["row"] in (3, 80, 200):
            logits = row["logits"]
            logits[(row["index"] + 1) % 10] = max(logits) + 1
            row["index"] = (row["index"] + 1) % 10
            flipped.append(row["row"])

    report = judged(digits_bundle, changed(engine, tmp_path / "flipped", flip), reference)
    assert len(flipped) == 3 and not report.passed and report.results[0].verdict == "fails"
    assert "agreement 99.164 %" in report.results[0].reason
    comparison = report.results[0].comparison
    assert comparison is not None and comparison.change.lost + comparison.change.gained == 3
    assert [comparison.per_image.place(row) for row in comparison.per_image.changed()] == [3, 80, 200]

    def lose(row: dict[str, Any]) -> None:
        if row["row"] == 80:
            row |= {"index": None, "label": None, "probability": None, "logits": None, "error": "not finite"}

    report = judged(digits_bundle, changed(engine, tmp_path / "lost", lose), reference)
    assert report.results[0].reason.startswith("logits are not finite") and not report.passed
    report = judged(digits_bundle, engine, reference, floors=Floors(min_top1=99.9))
    assert "is below --min-top1 99.9" in report.results[0].reason and not report.passed


def test_copies_count_once_and_labels_are_compared_with_those_of_training(
    digits_bundle: Bundle, digit_files: Path, labelled: Labelled, tmp_path: Path
) -> None:
    shutil.copytree(digit_files, tmp_path / "digits")
    (first, *_), (other, *_) = (sorted((tmp_path / "digits" / name).iterdir()) for name in ("0", "1"))
    shutil.copy(first, first.with_name("copy.png"))
    other.rename(tmp_path / "digits" / "2" / other.name)
    folders = [
        labelled(digits_bundle, tmp_path / "digits", backend, logits="float32")
        for backend in ("onnxruntime", "pytorch")
    ]
    report = judged(digits_bundle, *folders)
    assert (report.n_images, report.test_images.images) == (359, 360)
    assert "360 test images, 359 distinct" in list(report.test_images.headline())
    assert report.against_training is not None and not report.against_training.same_images
    (tmp_path / "digits" / "0" / "copy.png").rename(tmp_path / "digits" / "1" / "copy.png")
    folders = [
        labelled(digits_bundle, tmp_path / "digits", backend, logits="float32")
        for backend in ("onnxruntime", "pytorch")
    ]
    assert judged(digits_bundle, *folders).test_images.two_labels.images == 1


def test_what_is_lacking_is_named_with_its_cure(
    digits_bundle: Bundle, digit_files: Path, engine: Path, reference: Path, labelled: Labelled, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    shutil.copytree(digit_files / "3", few / "3")
    classes = labelled(digits_bundle, digit_files, "onnxruntime")
    linked = tmp_path / "linked"
    linked.symlink_to(reference)
    cases = [
        (reference, reference, "named twice; .* PyTorch's as --reference only"),
        (linked, reference, "linked: named twice"),
        (classes, reference, "FP32 is judged by its logits, .* --logits float32"),
        (classes, engine, "the trained network's expected: samdeploy label .* --backend pytorch --logits float32"),
        (labelled(digits_bundle, few, "onnxruntime", logits="float32"), reference, "of another INPUT"),
        (labelled(digits_bundle, digit_files, "onnxruntime", where="rejected"), reference, "needs every row"),
        (digit_files, reference, "name a folder that samdeploy label wrote"),
    ]
    shutil.copytree(engine, tmp_path / "part")
    (tmp_path / "part" / "part-000002.parquet").unlink()
    cases.append((tmp_path / "part", reference, r"1 of 6 parts are missing, .* run the same samdeploy label again"))
    shutil.copytree(engine, tmp_path / "bundle")
    settings = json.loads((engine / "_label.json").read_text())
    settings["bundle"]["manifest_sha256"] = "0" * 64
    (tmp_path / "bundle" / "_label.json").write_text(json.dumps(settings))
    cases.append((tmp_path / "bundle", reference, r"written with another bundle"))
    for one, other, text in cases:
        with pytest.raises(InputError, match=text):
            judged(digits_bundle, one, other)
    (few / "3" / "broken.png").write_bytes(b"no image")
    broken = [labelled(digits_bundle, few, name, logits="float32") for name in ("onnxruntime", "pytorch")]
    with pytest.raises(InputError, match=r"3/broken.png could not be read \(.*eval needs every image"):
        judged(digits_bundle, *broken)


def test_images_that_changed_between_the_labellings_are_refused(
    digits_bundle: Bundle, labelled: Labelled, tmp_path: Path
) -> None:
    (tmp_path / "images" / "4").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / "images" / "4" / f"{number}.bmp")
    reference = labelled(digits_bundle, tmp_path / "images", "pytorch", logits="float32")
    Image.new("RGB", (9, 9), (200, 0, 0)).save(tmp_path / "images" / "4" / "1.bmp")  # of the same length
    engine = labelled(digits_bundle, tmp_path / "images", "onnxruntime", logits="float32")
    with pytest.raises(InputError, match=r"4/1.bmp has other pixels than when the reference was made"):
        judged(digits_bundle, engine, reference)


def test_rows_without_a_partner_are_refused(engine: Path, reference: Path) -> None:
    one, other = open_labels(engine), open_labels(reference)
    assert sum(len(block) for block, _ in _paired(one, other, False)) == one.rows
    for pair in ((replace(one, parts=5), other), (one, replace(other, parts=2))):
        with pytest.raises(InputError, match="not as many rows as"):
            list(_paired(*pair, False))


def test_command(inside: Inside, digits_bundle: Bundle, engine: Path, reference: Path, tmp_path: Path) -> None:
    arguments = ("eval", digits_bundle.root, "--labels", engine, "--reference", reference)
    code, output, errors = inside(*arguments, "--json", tmp_path / "found.json", cwd=tmp_path)
    assert code == 0 and "PASSED (consistency not shown: onnxruntime fp32)" in output, errors
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["verdict"], found["n_images"], found["results"][0]["lost"]) == ("holds", 359, 0)
    for more, text in (
        (("--why",), "--why: not with --labels"), (("--backend", "openvino"), "--backend: not with"),
        (("--consistency", "5"), "--consistency: not with --labels"), (("--device", "cpu"), "--device: not with"),
        (("--label-column", "x"), "--label-column: names a column of a table; give --labels and --data TABLE too"),
        (("--labels", engine), "named twice; name each engine's labels once"),
    ):  # fmt: skip
        code, output, errors = inside(*arguments, *more, cwd=tmp_path)
        assert code == 2 and text in errors
    code, output, errors = inside(*arguments[:4], cwd=tmp_path)
    assert code == 2 and "give both" in errors
