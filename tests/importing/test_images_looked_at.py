"""Which images an imported network is measured on, and that its bundle remembers all that it was made with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import open_bundle
from samdeploy.data import load_images, open_dataset
from samdeploy.data.duplicates.image_hashes import digests_of, read_hashes
from samdeploy.evaluate.contradictions import find_contradictions
from samdeploy.evaluate.test_set.open import open_test_set
from samdeploy.export import ExportOptions, export_run
from samdeploy.importing.importing import import_network
from samdeploy.runs.record import open_run
from tests.importing.imported import CLASSES, class_folders, options, saved, state_of

MEASURED = 3
FP32 = ExportOptions(engine="onnxruntime", precision="fp32", cam=False)
INT8 = ExportOptions(engine="onnxruntime", precision="int8", max_drop=100.0, cam=False)


def imported(folder: Path) -> Path:
    """A run of which 3 of 18 images of val are measured, and 8 will be golden."""
    for split, count in (("train", 3), ("val", 6), ("test", 2)):
        class_folders(folder / "data" / split, dict.fromkeys(CLASSES, count))
    source = options(saved(folder / "w.pth", state_of()), folder, data=folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("samdeploy.importing.measure.IMAGES", MEASURED)
        return import_network(source, runs_root=folder / "runs")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imported(tmp_path_factory.mktemp("looked-at"))


def remembered(run: Path, wanted: ExportOptions) -> tuple[set[int], set[int], set[int]]:
    """An export: the images of train and val, and those that its bundle remembers as looked at."""
    record = open_run(run)
    dataset = open_dataset("judged-folder", Path(record.data_root))
    train, val = (
        set(digests_of(load_images(samples, record.preprocessing, description="")[0])[:, 0].tolist())
        for samples in (dataset.train, dataset.val)
    )
    bundle = open_bundle(export_run(run, wanted).bundle)
    assert not find_contradictions(bundle)
    assert bundle.measured is not None and bundle.measured.val is not None
    assert bundle.measured.val.images == MEASURED
    assert bundle.data.counts["val"] == 18
    return train, val, set(bundle.array("train_hashes", np.dtype(np.uint64), (2,))[:, 0].tolist())


def test_some_of_many_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = imported(tmp_path)
    assert open_run(run).counts == {"val": 18, "test": 6}
    names = read_hashes(run / "hashes.npz")["val"].names
    assert [Path(name).parent.name for name in names] == list(CLASSES)
    assert "% of 3 of 18 images set aside (" in capsys.readouterr().err


def test_golden_images_and_those_measured_are_remembered(run: Path) -> None:
    train, val, known = remembered(run, FP32)
    assert train < known and len(known & val) in range(8, 8 + MEASURED + 1) and known <= train | val


def test_the_images_that_int8_is_judged_on_are_remembered_while_it_is_kept(run: Path) -> None:
    for wanted in (INT8, FP32):
        train, val, known = remembered(run, wanted)
        assert known == train | val


def test_the_images_that_calibrate_are_remembered(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("samdeploy.export.temperature.LEAST_IMAGES", 10)
    train, val, known = remembered(run, FP32)
    assert known == train | val


def test_images_that_came_at_export_alone_are_remembered(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", dict.fromkeys(CLASSES, 30))
    run = import_network(options(saved(tmp_path / "w.pth", state_of()), tmp_path), runs_root=tmp_path / "runs")
    wanted = ExportOptions(engine="onnxruntime", precision="fp32", cam=False, data_root=data)
    bundle = open_bundle(export_run(run, wanted).bundle)
    assert not find_contradictions(bundle)
    aside = set(open_dataset("judged-folder", data).val.names)
    assert len(aside) == 32 == bundle.data.counts["train"]
    assert aside.isdisjoint(open_test_set(bundle, data).samples.names)
