"""From weights and labelled images to a run, and on to a verdict."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from samdeploy.bundle import Bundle, open_bundle
from samdeploy.data import open_dataset
from samdeploy.errors import InputError, WeightsError
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from samdeploy.evaluate.test_set.open import open_test_set
from samdeploy.export import ExportOptions, export_run
from samdeploy.importing.importing import import_network
from samdeploy.models import build_model
from samdeploy.models.preprocessing import Given
from samdeploy.report.junit import junit_xml
from samdeploy.report.text.evaluation import evaluation_tables, verdict
from samdeploy.report.verdict import verdict_of
from samdeploy.runs.record import open_run
from tests.importing.imported import ARCH, CLASSES, SIZE, class_file, class_folders, options, saved

PER_CLASS = 40
GIVEN = Given(height=SIZE, width=SIZE, fit="squeeze", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def coloured_folders(root: Path) -> Path:
    """Noise in which the channel of the class's number is bright."""
    random = np.random.default_rng(1)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            image = random.integers(0, 128, (SIZE, SIZE, 3), dtype=np.uint8)
            image[..., label] += 100
            Image.fromarray(image).save(root / name / f"{number}.png")
    return root


def trained() -> nn.Module:
    """A network that learned to name the bright channel."""
    torch.manual_seed(0)
    model = build_model(ARCH, len(CLASSES)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        labels = torch.randint(0, 3, (32,))
        x = torch.rand(32, 3, SIZE, SIZE) * 0.5
        x[torch.arange(32), labels] += 0.4
        optimizer.zero_grad()
        nn.functional.cross_entropy(model((x - 0.5) / 0.25), labels).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coloured")
    coloured_folders(folder / "images")
    state = saved(folder / "w.pth", {"state_dict": trained().state_dict()})
    saved(folder / "named.pth", {**torch.load(state), "classes": list(CLASSES)})
    return folder


def imported(here: Path, **others: object) -> Path:
    wanted = options(here / "w.pth", here, **{"data": here / "images", "given": GIVEN, "classes": None, **others})
    return import_network(wanted, runs_root=here / "runs")


@pytest.fixture(scope="module")
def run(here: Path) -> Path:
    return imported(here)


@pytest.fixture(scope="module")
def bundle(run: Path) -> Bundle:
    return open_bundle(export_run(run, ExportOptions(engine="onnxruntime", precision="fp16", cam=False)).bundle)


def test_the_record(run: Path, here: Path) -> None:
    record = open_run(run)
    assert (record.arch, record.classes, record.status) == (ARCH, CLASSES, "imported")
    assert record.counts == {"val": 32, "test": 3 * PER_CLASS - 32}
    assert (record.dataset, record.data_root) == ("judged-folder", str(here / "images"))
    assert record.best_val_top1 > 90 and record.test_top1 is None
    assert sorted(path.name for path in run.iterdir()) == ["hashes.npz", "run.json", "weights.safetensors"]
    assert "recipe" not in json.loads((run / "run.json").read_text())


def test_a_wrong_order_of_classes_shows_in_accuracy(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swapped = class_file(here, ("dog", "cat", "eel"))
    with pytest.raises(InputError, match="in the order of the folders"):
        imported(here, classes=swapped)
    source = options(here / "named.pth", here, classes=swapped, trust_order=True, data=here / "images", given=GIVEN)
    run = import_network(source, runs_root=here / "runs")
    assert open_run(run).best_val_top1 < 60
    said = capsys.readouterr().err
    assert "% of 32 images set aside" in said
    assert f"warning: --classes {swapped}: class 0 is 'dog', and 'cat' in {here / 'named.pth'}\n" in said


def test_names_beside_the_images_must_be_in_order_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = here / "images" / "classes.txt"
    try:
        class_file(path.parent)
        assert open_run(imported(here)).classes == CLASSES
        assert f"class names from {path}\n" in capsys.readouterr().err
        class_file(path.parent, ("dog", "cat", "eel"))
        with pytest.raises(InputError, match=r"images/classes.txt: class 0 is 'dog', but in the order of the fol"):
            imported(here)
        assert open_run(imported(here, trust_order=True)).classes == ("dog", "cat", "eel")
        assert "another order than the folders: 0 = dog, 1 = cat, 2 = eel\n" in capsys.readouterr().err
    finally:
        path.unlink()


def test_a_wrong_preprocessing_shows_in_accuracy(run: Path, here: Path) -> None:
    dark = Given(height=SIZE, width=SIZE, fit="squeeze", mean=(0.0, 0.0, 0.9), std=(0.25, 0.25, 0.25))
    other = open_run(imported(here, given=dark))
    assert other.best_val_loss > open_run(run).best_val_loss


def test_exported_and_judged(run: Path, bundle: Bundle) -> None:
    assert {file.precision for file in bundle.select("graph")} == {"fp32", "fp16"}
    report = evaluate_bundle(bundle, EvalOptions("onnxruntime", "fp32", consistency_s=0))
    assert report.passed and not report.faults
    assert report.n_images == 3 * PER_CLASS - 32
    everything = verdict(report) + evaluation_tables(report) + junit_xml(report).decode()
    assert report.test_set == "trained elsewhere" and "at training" not in everything
    gaps = verdict_of(report.to_json()).not_covered
    assert [text for text in gaps if "train" in text.lower()][:1] == [
        "The network was trained elsewhere: whether it has seen these images is not known."
    ]


def test_images_that_the_engines_were_made_with_are_not_judged(bundle: Bundle, here: Path, tmp_path: Path) -> None:
    aside = open_dataset("judged-folder", here / "images").val.names
    for number, name in enumerate(aside):
        for copy in range(3):  # under other names, and enough of them
            folder = tmp_path / "test" / Path(name).parent.name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, folder / f"{number}-{copy}.png")
    report = evaluate_bundle(bundle, EvalOptions("onnxruntime", "fp32", data_root=tmp_path, consistency_s=0))
    assert not report.passed
    assert any("were looked at when the engines were made" in fault for fault in report.faults)


def test_known_images_of_a_folder_that_has_grown_are_left_out(bundle: Bundle, here: Path, tmp_path: Path) -> None:
    grown = Path(shutil.copytree(here / "images", tmp_path / "grown"))
    for path in class_folders(tmp_path / "new", {"cat": 60}).rglob("*.png"):
        shutil.copy(path, grown / "cat" / f"new-{path.name}")
    known, found = (
        {Path(name).relative_to(root) for name in samples.names}
        for root, samples in (
            (here / "images", open_dataset("judged-folder", here / "images").val),
            (grown, open_test_set(bundle, grown).samples),
        )
    )
    count = len(found & known)
    assert count > len(found) / 50  # more than `eval` accepts
    report = evaluate_bundle(bundle, EvalOptions("onnxruntime", "fp32", data_root=grown, consistency_s=0))
    assert report.passed and report.n_images == report.test_images.images == len(found) - count
    text = f"{count} of {len(found)} images are not judged: they were looked at when the engines were made"
    assert text in report.notes


def test_a_table_of_images_is_judged(bundle: Bundle, tmp_path: Path) -> None:
    paths = sorted(class_folders(tmp_path, dict.fromkeys(CLASSES, 2)).rglob("*.png"))
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{path},{path.parent.name}\n" for path in paths))
    samples = open_test_set(bundle, table).samples
    assert list(samples.names) == list(map(str, paths)) and samples.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_all_of_another_folder_is_judged(bundle: Bundle, here: Path, tmp_path: Path) -> None:
    other = class_folders(tmp_path / "other", dict.fromkeys(CLASSES, 25))
    assert len(open_test_set(bundle, other).samples) == 75
    few = class_folders(tmp_path / "few" / "test", dict.fromkeys(CLASSES, 3))
    assert len(open_test_set(bundle, few).samples) == len(open_test_set(bundle, few.parent).samples) == 9
    moved = Path(shutil.copytree(here / "images", tmp_path / "moved"))
    aside = set(open_dataset("judged-folder", moved).val.names)
    judged = set(open_test_set(bundle, moved).samples.names)
    assert len(judged) == 3 * PER_CLASS - 32 and not judged & aside


def test_a_vision_transformer_of_another_size_than_its_architectures(tmp_path: Path) -> None:
    state = build_model("timm:test_vit", 3, {"image_side": 64}).state_dict()
    source = saved(tmp_path / "w.pth", state)
    wanted = options(source, tmp_path, arch="timm:test_vit", given=Given(height=64, width=64))
    run = import_network(wanted, runs_root=tmp_path / "runs")
    assert open_run(run).options == {"attention": "", "image_side": 64}
    with pytest.raises(
        WeightsError, match=r"1 of another shape: pos_embed .* are of images of another size: .*--size PIXELS$"
    ):
        import_network(options(source, tmp_path, arch="timm:test_vit", given=Given()), runs_root=tmp_path / "runs")


def test_the_images_set_aside_stay_when_others_come(tmp_path: Path) -> None:
    root = class_folders(tmp_path, dict.fromkeys(CLASSES, 150))
    before = set(open_dataset("judged-folder", root).val.names)
    class_folders(tmp_path, {"fox": 150})
    assert before <= set(open_dataset("judged-folder", root).val.names)


def test_a_val_folder_serves_as_it_is(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("val", 4), ("test", 3)):
        class_folders(tmp_path / split, dict.fromkeys(CLASSES, count))
    dataset = open_dataset("judged-folder", tmp_path)
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [15, 12, 9]
