"""The model card says what the bundle's files say, in the form that Hugging Face's own library reads."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scipy.stats import binomtest

from samdeploy.bundle import open_bundle
from samdeploy.bundle.manifest import manifest_bytes
from samdeploy.bundle.names import MANIFEST
from samdeploy.errors import BundleError, InputError
from samdeploy.report.card.facts import gather_facts
from samdeploy.report.card.markdown import model_card, text
from samdeploy.report.card.write import write_card
from samdeploy.runs.record import RunRecord, write_run
from tests.bundle.written import SOUND, SPEC, write_bundle
from tests.cli.typed import Inside
from tests.report.card.conftest import write_evaluation


def card_of(root: Path) -> str:
    return model_card(gather_facts(open_bundle(root)))


def rows(card: str, heading: str) -> Iterator[list[str]]:
    """The cells of the rows of the first table below a heading, without its head."""
    table = re.search(rf"^## {heading}\n.*?^(\|.*?)\n\n", card, re.M | re.S)
    assert table is not None
    for line in table[1].splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def test_hugging_face_reads_it(judged: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="pip install huggingface_hub")
    card = hub.ModelCard(card_of(judged))
    values = card.data.to_dict()
    assert [values[key] for key in ("license", "library_name", "pipeline_tag")] == [
        "unknown", "samdeploy", "image-classification"
    ]  # fmt: skip
    assert card.data.model_name == "judged"
    results = {found.metric_name: found for found in card.data.eval_results}
    assert {name: round(found.metric_value, 12) for name, found in results.items() if "top-1" in name} == {
        "top-1, PyTorch": 0.95, "top-1, onnxruntime fp32": 0.95, "top-1, onnxruntime int8": 0.875
    }  # fmt: skip
    assert {found.dataset_name for found in results.values()} == {"animals"}
    assert {found.dataset_split for found in results.values()} == {"test"}


def test_small_figures_are_numbers(judged: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="pip install huggingface_hub")
    facts = gather_facts(open_bundle(judged))
    assert facts.evaluation is not None
    row = replace(facts.evaluation.results[0], top1=0.0002)
    card = hub.ModelCard(model_card(replace(facts, evaluation=replace(facts.evaluation, results=(row,)))))
    assert card.data.eval_results[-1].metric_value == 2e-6


@pytest.mark.parametrize(
    ("recorded", "license_", "name"),
    [("apache-2.0", "apache-2.0", None), ("MIT", "mit", None), ("my: own\n#1", "other", "my: own\n#1")],
)
def test_license_is_the_recorded_one(tmp_path: Path, recorded: str, license_: str, name: str | None) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="pip install huggingface_hub")
    root = write_bundle(tmp_path / "bundle", replace(SOUND, spec=replace(SPEC, license=recorded)))
    card = hub.ModelCard(card_of(root))
    assert card.data.license == license_
    assert card.data.to_dict().get("license_name") == name
    assert f"Of the weights: {text(recorded)}, as their own record names it" in card.content


def test_metrics_are_those_of_the_evaluation(judged: Path) -> None:
    found = list(rows(card_of(judged), "Metrics"))
    assert [row[:2] for row in found] == [
        ["PyTorch, as trained", "95.00"],
        ["onnxruntime fp32", "95.00"],
        ["onnxruntime int8", "87.50"],
    ]
    exact = [binomtest(hits, 200).proportion_ci(0.95, method="exact") for hits in (190, 190, 175)]
    assert [row[2] for row in found] == [f"{100 * ends.low:.2f} to {100 * ends.high:.2f}" for ends in exact]


def test_each_class_has_a_row(judged: Path) -> None:
    row = json.loads((judged / "eval.json").read_text())["results"][0]
    expected = [
        [each["label"], str(each["images"]), f"{each['top1']:.2f}", f"{each['precision']:.4f}", f"{each['f1']:.4f}"]
        for each in row["classes"]
    ]
    table = re.search(r"Per class, onnxruntime fp32:\n\n(.*?)\n\n", card_of(judged), re.S)
    assert table is not None
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()[2:]]
    assert found == expected and found[0][0] == "cat"


def test_engines_have_verdict_and_latency(judged: Path) -> None:
    fp32, int8, fp16 = rows(card_of(judged), "Engines")
    assert fp32[:2] == ["onnxruntime fp32", "passed"] and fp32[4:7] == ["1.50", "2.25", "12.1"]
    assert int8[:3] == ["onnxruntime int8", "failed", "92.50"] and int8[3].startswith("-7.50 (")
    assert fp16 == ["tensorrt fp16", "not run", "-", "-", "-", "-", "-", "-"]


def test_data_have_counts_and_hashes(judged: Path) -> None:
    card = card_of(judged)
    assert list(rows(card, "Data")) == [["test", "3", f"`{'ab' * 32}`"]]
    assert "3 of 200 test images are in train, too, 1 more look alike" in card


def test_images_of_an_imported_network_are_counted_once(tmp_path: Path) -> None:
    """What import and export looked at stands for its training images, and has those of val in it."""
    bundle = open_bundle(write_bundle(tmp_path / "bundle"))
    imported = replace(
        bundle,
        data=replace(bundle.data, counts={"val": 32, "train": 154}),
        provenance={**bundle.provenance, "run_status": "imported"},
    )
    facts = replace(gather_facts(bundle), bundle=imported)
    assert [row[:2] for row in rows(model_card(facts), "Data")] == [
        ["val", "32"], ["seen by import and export, val with them", "154"],
    ]  # fmt: skip


def test_limits_are_what_the_files_say(judged: Path) -> None:
    limits = card_of(judged).partition("## Limits")[2].partition("## Licence")[0]
    for said in ("top-1 is 7.50 points lower", "no CUDA device", "graphs/fp16.onnx", "Latency of onnxruntime int8"):
        assert said in limits
    assert "not calibrated" in limits and "No answer is ever rejected" in limits


def test_what_is_not_known_is_called_unknown(tmp_path: Path) -> None:
    card = card_of(write_bundle(tmp_path / "bundle"))
    assert "Not evaluated: the bundle holds no eval.json; samdeploy eval writes one." in card
    assert "model-index" not in card
    for heading, said in (
        ("Intended use", "Whom and what it was made for, and what it must not be used for: unknown."),
        ("Data", "Images that are in two splits: unknown."),
        ("Data", "Origin, consent and licence of the images: unknown."),
        ("Licence", "Of the weights: unknown, no file of the bundle names one. Of the images: unknown."),
    ):
        assert said in card.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_an_evaluation_of_another_manifest_is_not_used(judged: Path) -> None:
    (judged / MANIFEST).write_bytes(manifest_bytes(replace(SOUND, provenance={"torch": "other"})))
    card = card_of(judged)
    assert "Not evaluated: eval.json is of another bundle than this one" in card
    assert "95.00" not in card


def test_a_damaged_evaluation_is_refused(judged: Path) -> None:
    (judged / "eval.json").write_text('{"verdict": 1}')
    with pytest.raises(BundleError, match=r"'verdict' must be text.*make it again: samdeploy eval"):
        card_of(judged)


@pytest.mark.parametrize(
    ("name", "value"), [("n_images", 0), ("n_images", -5), ("confidence", 2.0), ("margin", -1), ("top1", 200)]
)
def test_impossible_figures_are_refused(judged: Path, name: str, value: float) -> None:
    values = json.loads((judged / "eval.json").read_text())
    (values["results"][0] if name == "top1" else values)[name] = value
    (judged / "eval.json").write_text(json.dumps(values))
    with pytest.raises(BundleError, match=rf"{name} .* found, .* expected; make it again: samdeploy eval"):
        card_of(judged)


@pytest.mark.parametrize("name", ["a|b", "new\nline", "<script>", "*bold*", "`code`", "[link](x)", "\u202eright"])
def test_names_cannot_act_as_markup(tmp_path: Path, name: str) -> None:
    root = write_bundle(tmp_path / "bundle", replace(SOUND, spec=replace(SPEC, classes=("cat", name))))
    line = next(line for line in card_of(root).splitlines() if line.startswith("- It names which of 2 classes"))
    assert line.endswith(f"cat, {text(name)}.")
    assert not re.search(r"(?<!\\)[|<>*`\[\]]", line)


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("---", r"\---"),
        ("- nested", r"\- nested"),
        ("+ x", r"\+ x"),
        ("===", r"\==="),
        ("1. one", r"1\. one"),
        ("12)", r"12\)"),
        ("1.5 points", "1.5 points"),
        ("    code", "code"),
        ("see http://a.b or www.a.b", r"see http\://a.b or www\.a.b"),
        ("@name: 7", r"\@name: 7"),
    ],
)
def test_text_starts_no_list_line_or_link(value: str, escaped: str) -> None:
    assert text(value) == escaped


@pytest.mark.parametrize("run", ['quo"ted', "back\\slash", "colon: # no comment", "\x7f\u2028", "Größe \U0001f600"])
def test_front_matter_takes_any_name(tmp_path: Path, run: str) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="pip install huggingface_hub")
    root = write_bundle(tmp_path / "bundle", replace(SOUND, provenance={"run": run}))
    write_evaluation(root)
    assert hub.ModelCard(card_of(root)).data.model_name == run


def test_a_card_that_was_completed_by_hand_is_kept(judged: Path) -> None:
    bundle = open_bundle(judged)
    card, materials = write_card(bundle, judged)
    before = card.read_bytes(), materials.read_bytes()
    write_card(bundle, judged)
    assert (card.read_bytes(), materials.read_bytes()) == before
    card.write_text("completed by hand")
    with pytest.raises(InputError, match=r"README.md: exists with other content; --force"):
        write_card(bundle, judged)
    assert card.read_text() == "completed by hand"
    write_card(bundle, judged, force=True)
    assert card.read_bytes() == before[0]
    card.unlink()
    card.mkdir()
    for force in (False, True):
        with pytest.raises(InputError, match=r"README.md: a folder found, a file expected; move it away"):
            write_card(bundle, judged, force=force)
    card.rmdir()
    os.mkfifo(card)
    with pytest.raises(InputError, match=r"README.md: a pipe, socket or device found, a file expected"):
        write_card(bundle, judged)


def test_a_signature_is_to_be_made_again(judged: Path, tmp_path: Path, inside: Inside) -> None:
    assert inside("card", judged, cwd=tmp_path)[2] == ""
    (judged / "model.sig").write_text("{}")
    code, _, errors = inside("card", judged, cwd=tmp_path)
    assert code == 0 and errors.endswith(f"sign the bundle again: samdeploy sign {judged} --key FILE\n")


def test_command_writes_both_files(judged: Path, tmp_path: Path, inside: Inside) -> None:
    code, out, _ = inside("card", judged, "--out", tmp_path / "new", cwd=tmp_path)
    assert code == 0
    assert out.split() == [str(tmp_path / "new" / name) for name in ("README.md", "bom.cdx.json")]
    assert all(Path(name).is_file() for name in out.split())
    assert not (judged / "README.md").exists()


def test_the_run_around_a_bundle_is_read(tmp_path: Path) -> None:
    record = RunRecord(
        SPEC.arch, SPEC.options, SPEC.classes, SPEC.preprocessing, "digits", {}, "data", 0.1, 7, {"test": 3}, {},
        "complete", 5, 97.0, 0.1, 95.0, 19, 20, {}, warnings=("only 7 images of a class",),
    )  # fmt: skip
    run = tmp_path / "run"
    run.mkdir()
    write_run(run, record)
    (run / "weights.safetensors").write_bytes(b"the weights")
    root = write_bundle(run / "bundle")
    assert "- only 7 images of a class" in card_of(root)
    # The run was trained on since: what it says now is of another network.
    (run / "weights.safetensors").write_bytes(b"other weights")
    assert "only 7 images of a class" not in card_of(root)
    # A folder of another name is nobody's bundle, whatever lies around it.
    (run / "weights.safetensors").write_bytes(b"the weights")
    assert "only 7 images of a class" not in card_of(root.rename(run / "copy"))
