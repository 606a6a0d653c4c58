"""Two networks on the same images, from the bundle to the exit code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from samdeploy.bundle import Bundle
from samdeploy.bundle.names import BUNDLE_FOLDER, MANIFEST
from samdeploy.compare import CompareOptions, CompareReport, compare_networks
from samdeploy.errors import DatasetError, InputError
from samdeploy.report.schema import compare_schema
from samdeploy.report.text.comparison import comparison_tables, comparison_verdict
from tests.cli.typed import Inside, assert_one_line
from tests.compare.conftest import write_digits
from tests.data.sets.test_shards import write_tar

QUICK = CompareOptions(backend="onnxruntime", device="cpu", rounds=0)


def compared(a: Bundle, b: Bundle, **options: object) -> CompareReport:
    report, _ = compare_networks(a.root, b.root, replace(QUICK, **options))
    return report


def unlike_the_schema(content: object) -> list[str]:
    """Where compare.json is not as its schema says."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = compare_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return [error.json_path for error in jsonschema.Draft202012Validator(schema).iter_errors(content)]


@pytest.fixture(scope="module")
def equal(digits_bundle: Bundle) -> CompareReport:
    return compared(digits_bundle, digits_bundle, margin=0.5)


@pytest.fixture(scope="module")
def worse(digits_bundle: Bundle, worse_bundle: Bundle) -> CompareReport:
    return compared(digits_bundle, worse_bundle, margin=1.0)


def test_a_network_equals_itself(equal: CompareReport) -> None:
    found = equal.answers.accuracies
    assert found is not None and found.a == found.b and found.a.percent > 90
    assert (found.change.difference, found.change.lost, found.change.gained, found.mcnemar_p) == (0, 0, 0, 1)
    assert (equal.answers.agreement.percent, equal.answers.differing) == (100, ())
    # 359 images alone could not show a margin of 0.5 points; that it is the same network does.
    assert equal.is_same_network and equal.verdict == "holds" and equal.passed
    assert (equal.images.compared, equal.a.seen_in("train")) == (359, 0)


def test_a_worse_network_fails_its_margin(worse: CompareReport) -> None:
    found = worse.answers.accuracies
    assert found is not None and worse.verdict == "fails" and not worse.passed
    assert "points lower" in worse.reasons[0] and "at most 1 allowed" in worse.reasons[0]
    right = [row.right for row in worse.answers.differing]
    assert (right.count("A"), right.count("B")) == (found.change.lost, found.change.gained)
    assert found.change.lost > 30 and found.a.images - found.b.images == found.change.lost - found.change.gained
    first = found.classes[0]
    assert (worse.class_names[first.index], first.top1, first.images) == ("9", 0, 36)
    assert {(row.label, row.a, row.right) for row in worse.answers.differing if row.right == "A"} == {("9", "9", "A")}


def test_few_images_prove_little(digits_bundle: Bundle, worse_bundle: Bundle, labelled: Path) -> None:
    found = compared(digits_bundle, worse_bundle, data_root=labelled, margin=8.0)
    assert found.verdict == "cannot tell" and found.n_needed is not None and found.n_needed > 60
    assert found.reasons[0].startswith("60 images cannot tell whether top-1 drops by less than 8 points")
    assert compared(worse_bundle, digits_bundle, data_root=labelled, margin=20.0).verdict == "holds"


@pytest.mark.parametrize("kind", ["csv", "tar", "folder of tars"])
def test_images_that_a_file_lists(
    digits_bundle: Bundle, worse_bundle: Bundle, labelled: Path, tmp_path: Path, kind: str
) -> None:
    images = sorted(labelled.glob("*/*.png"))
    if kind == "csv":
        data = tmp_path / "labels.csv"
        data.write_text("\n".join(["path,label", *(f"{path},{path.parent.name}" for path in images)]))
    else:
        members = {f"{path.stem}.png": path.read_bytes() for path in images}
        labels = {f"{path.stem}.cls": path.parent.name.encode() for path in images}
        data = write_tar(tmp_path / "a.tar", members | labels)
    found = compared(digits_bundle, worse_bundle, data_root=tmp_path if kind == "folder of tars" else data)
    expected = compared(digits_bundle, worse_bundle, data_root=labelled)
    assert found.images.compared == 60 and found.images.is_labelled
    assert found.answers.accuracies == expected.answers.accuracies


def test_classes_are_matched_by_name(digits_bundle: Bundle, permuted_bundle: Bundle, labelled: Path) -> None:
    assert permuted_bundle.spec.classes[0] == "9"
    report = compared(digits_bundle, permuted_bundle, data_root=labelled)
    found = report.answers.accuracies
    assert found is not None and found.a == found.b and found.a.percent > 90
    assert (report.answers.agreement.percent, report.images.compared) == (100, 60)
    assert not report.is_same_network


def test_images_that_were_trained_on_are_counted(digits_bundle: Bundle, worse_bundle: Bundle, tmp_path: Path) -> None:
    folder = write_digits(write_digits(tmp_path / "test", "test", 20, digits_bundle), "train", 5, digits_bundle).parent
    (folder / "test" / "0" / "0.png").unlink(missing_ok=True)  # a name that both splits have
    report = compared(digits_bundle, worse_bundle, data_root=folder, margin=50.0)
    assert report.a.seen_in("train") == 5
    assert report.b.seen_in("train") is None  # it has no hashes
    head = " ".join(comparison_tables(report, shown=0).split())
    assert "trained on A: 5 of these images" in head and "in its val" not in head and "B: not known" in head
    assert report.verdict == "fails"
    assert any(text.startswith("A: 5 of") and "trained on" in text for text in report.reasons)


def test_a_run_that_was_never_exported(digits_run: Path, digits_bundle: Bundle, labelled: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(digits_run, run, ignore=shutil.ignore_patterns(BUNDLE_FOLDER, "checkpoints"))
    options = CompareOptions(data_root=labelled, device="cpu", rounds=0)
    report, _ = compare_networks(run, digits_bundle.root, options)
    assert (report.backend, report.is_same_network, report.answers.differing) == ("pytorch", True, ())
    assert report.a.is_run and report.a.seen_in("train") == report.b.seen_in("train") == 0
    with pytest.raises(InputError, match="never exported, so pytorch alone can run it"):
        compare_networks(digits_bundle.root, run, QUICK)


def test_images_without_labels(
    digits_bundle: Bundle, worse_bundle: Bundle, labelled: Path, tmp_path: Path, inside: Inside
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(labelled / "9", folder)
    shutil.copy(next((labelled / "0").iterdir()), folder / "zero.png")
    shutil.copy(folder / "zero.png", folder / "copy.png")
    (folder / "cut.png").write_bytes((folder / "zero.png").read_bytes()[:60])
    line = ("compare", digits_bundle.root, worse_bundle.root, "--data", folder, "--backend", "onnxruntime")
    code, output, errors = inside(*line, "--rounds", "0", "--out", "out", cwd=tmp_path)
    assert code == 1  # as predict: what could be read is done
    assert "cut.png: damaged or truncated" in errors and "1 of" in errors
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert unlike_the_schema(found) == []
    nines = len(found["differing"])
    images = found["images"]
    assert (images["is_labelled"], images["copies"], len(images["unreadable"])) == (False, 1, 1)
    assert nines >= 3 and images["compared"] == found["agreement"]["images"] + nines
    assert {(row["a"], row["label"], row["right"]) for row in found["differing"]} == {("9", None, None)}
    assert sum(row["images"] for row in found["moves"]) == nines
    assert (found["change"], found["classes"], found["a"]["top1"]) == (None, None, None)
    assert f"same class for {found['agreement']['percent']:.2f} % of the images" in output
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        assert sheet.width > 1000
    assert_one_line(inside(*line, "--margin", "1", cwd=tmp_path)[2], "--margin: the images of")


def test_tables_and_files(
    digits_bundle: Bundle, worse_bundle: Bundle, labelled: Path, tmp_path: Path, inside: Inside,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("samdeploy.bench.turns.PAUSE_S", 0.0)
    monkeypatch.setattr("samdeploy.compare.latency.WARM_UP_LIMIT_S", 0.0)
    line = ("compare", digits_bundle.root, worse_bundle.root, "--data", labelled, "--backend", "onnxruntime")
    code, output, _ = inside(*line, "--rounds", "6", "--show", "2", "--margin", "30", "--out", "out", cwd=tmp_path)
    assert code == 0
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert unlike_the_schema(found) == []
    assert found["latency"]["ratio_low"] <= found["latency"]["ratio"] <= found["latency"]["ratio_high"]
    name = found["differing"][0]["image"]
    assert Path(name).parent == labelled / "9" and f"9/{Path(name).name} " in output and name not in output
    assert (tmp_path / "out" / "contact-sheet.png").is_file()
    lines = output.splitlines()
    assert f"and {len(found['differing']) - 2} more images: --show N, --json FILE or --out DIR" in lines
    assert "PASSED: B loses less top-1 than --margin 30" in lines
    assert max(map(len, lines[:-1])) <= 80  # the last one names files


def test_names_are_folded_to_the_terminal(worse: CompareReport) -> None:
    long = tuple(f"a class of the number {name} with a name that is long" for name in worse.class_names)
    answers = worse.answers
    rows = tuple(replace(row, label=long[9], a=long[9], b=long[8], b_probability=None) for row in answers.differing)
    moves = ((long[9], None, 123_456),)
    named = replace(
        worse,
        class_names=long,
        names=("folder/" * 30,) * len(rows),
        answers=replace(answers, differing=rows, moves=moves),
    )
    text = comparison_tables(named, shown=10)
    assert max(map(len, text.splitlines())) <= 80
    assert "not finite" in text


def test_verdicts_say_which(equal: CompareReport, worse: CompareReport) -> None:
    assert comparison_verdict(equal) == "PASSED: B loses less top-1 than --margin 0.5"
    assert comparison_verdict(worse).startswith("FAILED: B against A: top-1 is ")
    assert comparison_verdict(replace(equal, verdict=None, margin=None)) == ""


@pytest.mark.parametrize("folder", ["labelled", "missing", "empty"])
def test_folders_that_are_refused(digits_bundle: Bundle, labelled: Path, tmp_path: Path, folder: str) -> None:
    if folder == "labelled":
        shutil.copytree(labelled, tmp_path / folder)
        (tmp_path / folder / "0" / "broken.png").write_text("no image")
        with pytest.raises(DatasetError, match="1 of 61 images cannot be read"):
            compared(digits_bundle, digits_bundle, data_root=tmp_path / folder)
        return
    if folder == "empty":
        (tmp_path / folder).mkdir()
    with pytest.raises(InputError, match=f"--data: .*{'no such folder' if folder == 'missing' else 'no images'}"):
        compared(digits_bundle, digits_bundle, data_root=tmp_path / folder)


def test_other_classes_are_refused(digits_bundle: Bundle, rewired: Callable[..., Bundle], labelled: Path) -> None:
    nine = rewired([*range(9)], digits_bundle.spec.classes[:9])
    with pytest.raises(InputError, match=r"A has 10 classes, B 9; 1 is in one only, such as '9' \(A\); compare"):
        compared(digits_bundle, nine, data_root=labelled)
    with pytest.raises(InputError, match=r"A has 9 classes, B 10; 1 is in one only, such as '9' \(B\)"):
        compared(nine, digits_bundle, data_root=labelled)


def test_other_test_sets_are_refused(digits_bundle: Bundle, worse_bundle: Bundle, tmp_path: Path) -> None:
    other = tmp_path / "bundle"
    shutil.copytree(worse_bundle.root, other)
    manifest = json.loads((other / MANIFEST).read_text())
    manifest["data"]["name"] = "fashion-mnist"
    (other / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="A names the data set 'digits', B 'fashion-mnist'; name the images"):
        compare_networks(digits_bundle.root, other, QUICK)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"margin": 0.0}, "--margin: 0 found"), ({"rounds": 3}, "rounds 3 found"), ({"backend": "ort"}, "onnxruntime")],
)
def test_options_that_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        replace(QUICK, **options)


def test_compare_json_is_as_its_schema_says(equal: CompareReport, worse: CompareReport) -> None:
    contents = [json.loads(json.dumps(report.to_json())) for report in (equal, worse)]
    assert [*map(unlike_the_schema, contents)] == [[], []]
    contents[0]["agreement"]["percent"] = 101
    contents[1]["differing"][0].pop("a")
    assert [*map(unlike_the_schema, contents)] == [["$.agreement.percent"], ["$.differing[0]"]]
