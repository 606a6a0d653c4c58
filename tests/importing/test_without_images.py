"""A network that came without images: FP32 alone, and a bundle that still tests itself."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import Bundle, open_bundle
from samdeploy.errors import InputError
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from samdeploy.evaluate.contradictions import find_contradictions
from samdeploy.export import ExportOptions, export_run
from samdeploy.importing.importing import import_network
from samdeploy.models.preprocessing import Given
from samdeploy.runs.record import open_run
from tests.importing.imported import CLASSES, SIZE, class_folders, options, saved, state_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("no-images")
    return import_network(options(saved(folder / "w.pth", state_of()), folder), runs_root=folder / "runs")


@pytest.fixture(scope="module")
def bundle(run: Path) -> Bundle:
    return open_bundle(export_run(run, ExportOptions(engine="onnxruntime", cam=False)).bundle)


def test_record(run: Path) -> None:
    record = open_run(run)
    assert (record.status, record.data_root, record.counts) == ("imported", "", {})


def test_what_is_done_to_images_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path / "w.pth", state_of("sam-resnet18"))
    given = Given(height=32, width=48, std=(1 / 255,) * 3)
    import_network(options(source, tmp_path, arch="sam-resnet18", given=given), runs_root=tmp_path)
    assert (
        "images: squeezed to 32x48, bilinear; mean 0.485,0.456,0.406, std 0.00392157,0.00392157,0.00392157 (no record "
        "of sam-resnet18: --resize or --fit, --filter, --mean assumed)\n"
        "warning: --resize or --fit, --filter, --mean assumed, since nothing says how the network was trained; a wrong "
        "one costs accuracy: give what it was trained with, or --preprocessing timm:NAME\n"
    ) in capsys.readouterr().err
    given = Given(height=32, width=48, fit="squeeze", filter="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)
    import_network(options(source, tmp_path, arch="sam-resnet18", given=given), runs_root=tmp_path)
    assert "assumed" not in capsys.readouterr().err


def test_names_of_files_that_no_folder_may_have(tmp_path: Path) -> None:
    for name, folder in (("a\n\x1b[31mbä" + "c" * 200, "a___31mb_" + "c" * 91), ("..x+1", "x+1")):
        run = import_network(options(saved(tmp_path / f"{name}.pth", state_of()), tmp_path), runs_root=tmp_path / "r")
        assert run.name.rsplit("-", 2)[0] == folder


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    source = options(saved(tmp_path / "w.pth", state_of()), tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(Exception, match="large"):
            import_network(source, runs_root=tmp_path / "runs")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "runs").iterdir())


def test_the_bundle_is_fp32_and_tests_itself(bundle: Bundle) -> None:
    assert {(file.role, file.precision) for file in bundle.files if file.role != "weights"} == {
        ("graph", "fp32"),
        ("golden_images", None),
        ("golden_logits", None),
    }
    images, logits = bundle.golden()
    assert images.shape == (14, SIZE, SIZE, 3) and logits.shape == (14, len(CLASSES))
    assert len(np.unique(images[:8].reshape(8, -1), axis=0)) == 8


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precision_needs_images(run: Path, precision: str) -> None:
    with pytest.raises(InputError, match=r"imported without images.*; import it again with --data FOLDER"):
        export_run(run, ExportOptions(precision=precision))


def test_tensorrt_is_fp16_unless_told(run: Path) -> None:
    with pytest.raises(InputError, match=r"imported without images.* or export with --precision fp32"):
        export_run(run, ExportOptions(engine="trt"))


def test_eval_asks_for_images(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"bundle was imported without images; give class folders, a table or tar shards: --data PATH"
    ):
        evaluate_bundle(bundle, EvalOptions("onnxruntime"))
    images = class_folders(tmp_path / "images", dict.fromkeys(CLASSES, 30))
    report = evaluate_bundle(bundle, EvalOptions("onnxruntime", data_root=images, consistency_s=0))
    assert report.passed and report.n_images == 90


def test_classes_exchanged_in_the_manifest_are_seen(bundle: Bundle, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle.root, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["model"]["classes"] = ["dog", "cat", "eel"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert any("architecture, classes or preprocessing" in text for text in find_contradictions(open_bundle(copy)))
