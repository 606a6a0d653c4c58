"""Folders that a bundle is judged on by somebody who did not train it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.bundle import Bundle
from samdeploy.data import fingerprint, load_images, open_dataset
from samdeploy.errors import DatasetError, InputError
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from samdeploy.evaluate.test_set.open import open_test_set

pytestmark = pytest.mark.usefixtures("short_latency")


@pytest.fixture
def bundle(digits_bundle: Bundle) -> Bundle:
    """As if its network had been trained on folders of digits."""
    data = dataclasses.replace(digits_bundle.data, name="folder", options={})
    return dataclasses.replace(digits_bundle, data=data)


@pytest.fixture
def root(tmp_path: Path, digit_files: Sequence[Path]) -> Path:
    for digit, path in enumerate(digit_files):
        for copy in range(2):
            (tmp_path / "test" / str(digit)).mkdir(parents=True, exist_ok=True)
            (tmp_path / "test" / str(digit) / f"{copy}{path.suffix}").write_bytes(path.read_bytes())
    return tmp_path


def test_all_of_them_are_judged_under_the_bundles_classes(bundle: Bundle, root: Path) -> None:
    (root / "test" / "loose.png").write_bytes(b"")
    found = open_test_set(bundle, root)
    assert found.samples.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert found.notes == (
        f"test: 1 image outside of any class folder not used: {root / 'test' / 'loose.png'}",
        "test: no images of 5 of 10 classes: 5, 6, 7, 8, 9",
    )
    report = evaluate_bundle(bundle, EvalOptions(backend="onnxruntime", data_root=root))
    assert report.test_set == "differs from the one at training"
    (row,) = [row for row in report.results if row.engine == "onnxruntime fp32"]
    assert row.comparison is not None and row.comparison.top1 == 100.0


def test_class_folders_without_a_split_are_all_test(bundle: Bundle, root: Path) -> None:
    found = open_test_set(bundle, root / "test")
    assert len(found.samples) == 10
    assert found.notes[0] == f"{root / 'test'} has no test folder: all 10 images are evaluated"


def test_class_folders_that_were_trained_on_are_cut_as_at_training(bundle: Bundle, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for place in range(200):
        path = tmp_path / "before" / str(place % 10) / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    test = open_dataset("folder", tmp_path / "before").test
    digest = fingerprint(*load_images(test, bundle.spec.preprocessing, description="test"))
    data = dataclasses.replace(bundle.data, counts={"test": len(test)}, fingerprints={"test": digest})
    trained = dataclasses.replace(bundle, data=data)
    moved = (tmp_path / "before").rename(tmp_path / "moved")
    assert len(open_test_set(trained, moved).samples) == 40
    Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(open_test_set(trained, moved).samples.names[0])
    assert len(open_test_set(trained, moved).samples) == 200


def test_a_training_split_is_not_needed(bundle: Bundle, root: Path) -> None:
    (root / "train" / "0").mkdir(parents=True)
    assert len(open_test_set(bundle, root).samples) == 10


def test_the_folder_may_have_any_usual_name(bundle: Bundle, root: Path) -> None:
    (root / "test").rename(root / "Testing_Set")
    assert len(open_test_set(bundle, root).samples) == 10


def test_a_class_that_the_bundle_does_not_know(bundle: Bundle, root: Path) -> None:
    (root / "test" / "4").rename(root / "test" / "four")
    with pytest.raises(DatasetError, match=r"1 of 5 classes in .*test are not in the training set: four\."):
        open_test_set(bundle, root)


def test_names_that_were_swapped(bundle: Bundle, root: Path) -> None:
    spec = dataclasses.replace(bundle.spec, classes=tuple("1023456789"))
    with pytest.raises(InputError, match="the same in another order: class 0 is '0', '1' expected"):
        open_test_set(dataclasses.replace(bundle, spec=spec), root)


def test_another_protocol_needs_its_training_images(bundle: Bundle, root: Path) -> None:
    data = dataclasses.replace(bundle.data, options={"protocol": "tested-on-train"})
    with pytest.raises(DatasetError, match="has test/ but no train/"):
        open_test_set(dataclasses.replace(bundle, data=data), root)


@pytest.mark.parametrize("name", ["folder", "cifar10"])
def test_bundle_away_from_its_run_asks_for_the_folder(
    bundle: Bundle, root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Another data set in ./data is not taken for its own."""
    (root / "data" / "train" / "cat").mkdir(parents=True)
    monkeypatch.chdir(root)
    away = dataclasses.replace(bundle, root=root / "bundle", data=dataclasses.replace(bundle.data, name=name))
    with pytest.raises(InputError, match=r"^no test images here: .* is not in its run folder.*: --data (FOLDER|PATH)"):
        open_test_set(away, None)


def test_a_table_of_test_images(bundle: Bundle, root: Path) -> None:
    rows = [f"{path.relative_to(root)},{path.parent.name}\n" for path in sorted(root.rglob("*.png"))]
    table = root / "labels.csv"
    table.write_text("path,label\n" + "".join(rows))
    for trained_on in ("folder", "table", "shards"):
        data = dataclasses.replace(bundle.data, name=trained_on)
        found = open_test_set(dataclasses.replace(bundle, data=data), table)
        assert found.samples.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        assert found.notes[0] == f"{table} has no splits, so all of it is evaluated: 10 images"
    table.write_text("path,label,split\n" + "".join(f"{row.rstrip()},val\n" for row in rows))
    with pytest.raises(DatasetError, match=f"^table: no test images are listed in {table}$"):
        open_test_set(bundle, table)


def test_a_table_that_was_trained_on_is_cut_as_at_training(bundle: Bundle, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for place in range(200):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / f"{place}.png")
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{place}.png,{place % 10}\n" for place in range(200)))
    test = open_dataset("table", table).test
    digest = fingerprint(*load_images(test, bundle.spec.preprocessing, description="test"))
    data = dataclasses.replace(bundle.data, name="table", counts={"test": 40}, fingerprints={"test": digest})
    assert len(open_test_set(dataclasses.replace(bundle, data=data), table).samples) == 40
    others = dataclasses.replace(data, fingerprints={"test": "0"})
    assert len(open_test_set(dataclasses.replace(bundle, data=others), table).samples) == 200


def test_wrong_images_are_named_before_any_network_runs(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("samdeploy.evaluate.contradictions.open_session", "samdeploy.data.sets.folder.decode"):
        monkeypatch.setattr(module, None)
    monkeypatch.setattr("samdeploy.data.registry._function", None)  # no cut, either
    (tmp_path / "zebra").mkdir()
    (tmp_path / "zebra" / "broken.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"^folder: 1 of 1 classes in \S+ are not in the training set: zebra\. "):
        evaluate_bundle(bundle, EvalOptions(data_root=tmp_path))
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nzebra/broken.png,zebra\n")
    with pytest.raises(DatasetError, match="class not in the network"):
        evaluate_bundle(bundle, EvalOptions(data_root=table))
