"""An ONNX file all the way: imported, exported in each precision, judged against the file itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from samdeploy.backends import open_session
from samdeploy.bench.alternatives.pytorch import eager
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.errors import BackendUnavailable, InputError
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from samdeploy.export import ExportOptions, export_run
from samdeploy.importing.importing import ImportOptions, import_network
from samdeploy.models.preprocessing import Given
from samdeploy.report.text.evaluation import evaluation_tables
from samdeploy.report.verdict import verdict_of
from samdeploy.runs.record import open_run
from tests.importing.imported import CLASSES, class_folders, options
from tests.models.onnx_files import HEIGHT, WIDTH, classifier, ended_by, saved

GIVEN = Given(height=HEIGHT, width=WIDTH, filter="bicubic", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
# Of the logits' range: another order of sums, in float32.
FLOAT32_RELATIVE = 1e-5


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    source = saved(ended_by("Softmax"), folder / "small.onnx")
    data = class_folders(folder / "data", dict.fromkeys(CLASSES, 30))
    return import_network(options(source, folder, arch=None, given=GIVEN, data=data), runs_root=folder / "runs")


@pytest.fixture(scope="module")
def bundle(run: Path) -> Bundle:
    result = export_run(run, ExportOptions(engine="onnxruntime", precision="int8", max_drop=100.0))
    assert (result.parameters, result.folded_parameters) == (133, 133)  # with the six of the pixels
    return open_bundle(result.bundle)


def test_record(run: Path) -> None:
    record = open_run(run)
    assert (record.status, record.arch, record.classes) == ("imported", "onnx:small", CLASSES)
    assert record.preprocessing.resize.startswith("bicubic")


def test_the_size_is_that_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(classifier(), tmp_path / "small.onnx")
    for given, how in (
        (Given(), "squeezed to 8x12, bilinear"),
        (Given(like="timm:test_resnet"), "shorter side to 12,"),
    ):
        run = import_network(options(source, tmp_path, arch=None, given=given), runs_root=tmp_path / "runs")
        assert (open_run(run).preprocessing.height, open_run(run).preprocessing.width) == (HEIGHT, WIDTH)
        said = capsys.readouterr().err
        assert f"images: {how}" in said and "as the file says: --size)" in said


def test_the_bundle_has_every_graph_and_maps(bundle: Bundle) -> None:
    graphs = {(file.role, file.precision) for file in bundle.files if "graph" in file.role}
    assert graphs == {("graph", "fp32"), ("graph", "fp16"), ("graph", "int8"), ("cam_graph", "fp32")}


def test_the_reference_is_the_file(run: Path, bundle: Bundle) -> None:
    """The golden logits, computed without samdeploy from the file before its softmax was left out."""
    images, logits = bundle.golden()
    session = onnxruntime.InferenceSession(classifier().SerializeToString(), providers=["CPUExecutionProvider"])
    x = ((images.astype(np.float32) / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2)
    (expected,) = session.run(None, {"input": np.ascontiguousarray(x)})
    assert np.abs(logits - expected).max() < FLOAT32_RELATIVE * np.ptp(expected)
    with open_session(bundle, "pytorch") as reference, open_session(bundle, "onnxruntime", maps=True) as engine:
        assert np.abs(reference.run(images) - expected).max() < FLOAT32_RELATIVE * np.ptp(expected)
        assert np.abs(engine.run(images) - expected).max() < FLOAT32_RELATIVE * np.ptp(expected)


def test_eval_compares_with_the_file(bundle: Bundle) -> None:
    report = evaluate_bundle(bundle, EvalOptions("onnxruntime", precision="fp32"))
    (row,) = report.results
    assert report.reference == "the ONNX file"
    text = evaluation_tables(report)
    assert "\nONNX file " in text and "lost: right in the ONNX file, wrong in the engine" in text
    assert "PyTorch" not in text + json.dumps(report.to_json()) + "".join(verdict_of(report.to_json()).not_covered)
    assert row.comparison is not None and row.comparison.top1_agreement == 100
    assert row.comparison.max_difference_of_range < FLOAT32_RELATIVE


def test_bench_does_not_call_it_pytorch(bundle: Bundle) -> None:
    with pytest.raises(BackendUnavailable, match="onnx:small came as a file that PyTorch does not run"):
        eager(bundle, "cpu")


def test_nothing_is_written_where_the_file_is_refused(tmp_path: Path) -> None:
    source = saved(ended_by("Sigmoid"), tmp_path / "small.onnx")
    weights = tmp_path / "w.pth"
    weights.touch()
    with pytest.raises(InputError, match=r"small\.onnx: ends in Sigmoid"):
        import_network(options(source, tmp_path, arch=None, given=GIVEN), runs_root=tmp_path / "runs")
    with pytest.raises(InputError, match=r"--arch timm:test_resnet: an ONNX file is a network of its own"):
        import_network(options(source, tmp_path, given=GIVEN), runs_root=tmp_path / "runs")
    with pytest.raises(InputError, match=r"onnx:small: such a network is a file; import it"):
        import_network(ImportOptions("onnx:small"), runs_root=tmp_path / "runs")
    with pytest.raises(InputError, match=r"onnx:\.\./x: such a network is a file; import it"):
        import_network(ImportOptions(str(weights), arch="onnx:../x"), runs_root=tmp_path / "runs")
    onnx.save(classifier(), source)
    with pytest.raises(InputError, match=r"takes images of 8x12, 32x32 found: --size 8x12"):
        import_network(options(source, tmp_path, arch=None), runs_root=tmp_path / "runs")
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
