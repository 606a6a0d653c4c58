"""From a run to a bundle: what stands in it, what stays of an earlier one, and that a failure leaves it untouched."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import shutil
import stat
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from samdeploy.backends import open_session
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.manifest import BundleFile
from samdeploy.bundle.names import MANIFEST, WEIGHTS_FILE
from samdeploy.data import load_images, open_dataset
from samdeploy.data.duplicates.image_hashes import digests_of, set_hashes
from samdeploy.errors import BackendUnavailable, ExportError, InputError
from samdeploy.export import ExportOptions, export_run
from samdeploy.export import export as pipeline_file
from samdeploy.export.engines import add_engine
from samdeploy.export.fp16.headroom import measure_ranges
from samdeploy.export.run_images import export_images
from samdeploy.files import write_atomic
from samdeploy.models import build_model, load_weights, save_weights
from samdeploy.report.text.export import export_table
from samdeploy.runs.record import open_run, write_run

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def digits_run(narrow_run: Path) -> Path:
    return narrow_run


@pytest.fixture(scope="module")
def digits_bundle(narrow_bundle: Bundle) -> Bundle:
    return narrow_bundle


@pytest.fixture
def run(digits_run: Path, digits_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the run with its bundle, free to be written into."""
    copy = tmp_path / "run"
    shutil.copytree(digits_run, copy)
    assert (copy / "bundle" / MANIFEST).is_file()
    return copy


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Head-room is measured on fewer images, for tests that are about something else."""
    monkeypatch.setattr("samdeploy.export.run_images.CALIBRATION_IMAGES", 8)


def tree(root: Path) -> dict[str, str]:
    """Every file below `root` and the SHA-256 of its content."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def change_weights(run: Path, value: float) -> None:
    record = open_run(run)
    model = build_model(record.arch, len(record.classes), record.options)
    load_weights(model, run / WEIGHTS_FILE)
    with torch.no_grad():
        model.fc.bias[0] = value
    save_weights(model, run / WEIGHTS_FILE)
    write_run(run, dataclasses.replace(record, weights_sha256=tree(run)[WEIGHTS_FILE]))


def test_manifest_states_what_training_measured(digits_bundle: Bundle, digits_run: Path) -> None:
    record, measured = open_run(digits_run), digits_bundle.measured
    assert measured is not None and measured.test is not None
    assert measured.weights_sha256 == tree(digits_run)[WEIGHTS_FILE]
    assert (measured.epoch, measured.val.top1, measured.val.images) == (record.best_epoch, record.best_val_top1, 719)
    assert (measured.test.top1, measured.test.images) == (record.test_top1, 359)
    dataset = open_dataset("digits", Path("data"), options={}, val_fraction=record.val_fraction, seed=record.split_seed)
    images, labels = load_images(dataset.test, record.preprocessing, description="test")
    assert (measured.test.images_sha256, measured.test.labelled_sha256) == set_hashes(digests_of(images), labels)


def test_weights_of_another_epoch_are_refused(run: Path) -> None:
    before = tree(run / "bundle")
    write_run(run, dataclasses.replace(open_run(run), weights_sha256="0" * 64))
    with pytest.raises(ExportError, match=r"weights.safetensors: is not the file of epoch \d that run.json names"):
        export_run(run, ExportOptions(engine="onnxruntime"))
    assert tree(run / "bundle") == before


def engines(bundle: Bundle) -> list[BundleFile]:
    return [file for file in bundle.files if file.role == "engine"]


def test_what_stands_in_a_bundle(digits_run: Path, digits_bundle: Bundle) -> None:
    record, bundle = open_run(digits_run), digits_bundle
    found = {file.path: (file.role, file.backend, file.precision) for file in bundle.files}
    expected: dict[str, tuple[str, str | None, str | None]] = {
        "weights.safetensors": ("weights", None, None),
        "model.fp32.onnx": ("graph", None, "fp32"),
        "model.fp16.onnx": ("graph", None, "fp16"),
        "model.cam.fp32.onnx": ("cam_graph", None, "fp32"),
        "golden/images.npy": ("golden_images", None, None),
        "golden/logits.npy": ("golden_logits", None, None),
        "hashes/train.npy": ("train_hashes", None, None),
        "hashes/val.npy": ("val_hashes", None, None),
        "headroom.json": ("headroom", None, None),
    }
    assert {path: value for path, value in found.items() if value[0] != "engine"} == expected
    assert all(value == ("engine", "tensorrt", "fp16") for value in found.values() if value[0] == "engine")
    on_disk = set(tree(bundle.root)) - {"eval.json"}
    assert on_disk == {*found, MANIFEST}
    bundle.verify()

    assert (bundle.root / "weights.safetensors").read_bytes() == (digits_run / WEIGHTS_FILE).read_bytes()
    spec = bundle.spec
    assert (spec.arch, spec.options, spec.classes) == (
        "sam-resnet18",
        {"gate": "original", "stem": "imagenet"},
        tuple("0123456789"),
    )
    assert spec.preprocessing == record.preprocessing
    assert (bundle.data.name, bundle.data.val_fraction, bundle.data.split_seed) == ("digits", 0.5, 0)
    assert dict(bundle.data.fingerprints) == dict(record.fingerprints)
    assert dict(bundle.data.counts) == {"train": 719, "val": 719, "test": 359}
    assert bundle.provenance["run"] == digits_run.name
    assert bundle.provenance["run_status"] == "complete"
    assert bundle.provenance["trained_with_seed"] == "0"
    assert not [path.name for path in digits_run.iterdir() if path.name.startswith(".")]
    assert stat.S_IMODE(bundle.root.stat().st_mode) == 0o755


def test_golden_images_are_of_val_and_never_of_test(digits_bundle: Bundle) -> None:
    images, _ = digits_bundle.golden()
    data = digits_bundle.data
    dataset = open_dataset(data.name, val_fraction=data.val_fraction, seed=data.split_seed)
    splits = {
        name: {image.tobytes() for image in load_images(dataset.split(name), digits_bundle.spec.preprocessing,
                                                        description=name)[0]}
        for name in ("val", "test")
    }  # fmt: skip
    golden = {image.tobytes() for image in images}
    assert len(golden) == len(images) == 8 + 6
    # The digits are grey; the last six are one image put together of several, in all orders of its channels.
    assert all((image == image[..., :1]).all() for image in images[:8])
    assert {images[8][..., order].tobytes() for order in itertools.permutations(range(3))} == {
        image.tobytes() for image in images[8:]
    }
    golden = {image.tobytes() for image in images[:8]}
    assert golden <= splits["val"]
    assert not golden & splits["test"]


def test_golden_logits_are_the_trained_networks(digits_bundle: Bundle) -> None:
    images, logits = digits_bundle.golden()
    with open_session(digits_bundle, "pytorch", device="cpu", check=False) as session:
        found = session.run(images)
    # The session keeps its tensors in another order in memory, so sums are formed in another order.
    assert np.abs(found - logits).max() < 1e-5 * np.ptp(logits)
    assert len(set(logits.argmax(axis=1).tolist())) >= 5  # spread over the classes


def test_an_engine_of_the_same_graph_stays(run: Path) -> None:
    bundle = open_bundle(run / "bundle")
    if not engines(bundle):
        pytest.skip("no TensorRT package here, so the bundle holds no engine: pip install 'samdeploy[tensorrt-rtx]'")
    (engine,) = engines(bundle)
    plan = bundle.read(engine)
    (run / "bundle" / "eval.json").write_text("{}")

    result = export_run(run, ExportOptions(engine="onnxruntime"))
    after = open_bundle(result.bundle)
    assert engines(after) == [engine]
    assert after.read(engine) == plan
    assert [(row.engine, row.state, row.path) for row in result.rows] == [
        ("onnxruntime", "verified", "model.fp32.onnx"),
        ("trt", "built", engine.path),
    ]
    assert result.rows[1].note == "kept from an earlier export of this graph"
    assert result.rows[1].bytes == len(plan)
    assert not (run / "bundle" / "eval.json").exists()  # it was about engines that may be others now
    assert max(map(len, export_table(result).splitlines())) <= 80

    (run / "bundle" / engine.path).write_bytes(plan[:-1] + bytes([plan[-1] ^ 1]))
    export_run(run, ExportOptions(engine="onnxruntime"))
    assert engines(open_bundle(run / "bundle")) == []  # a damaged one does not


@pytest.mark.usefixtures("few_images")
def test_an_engine_of_other_weights_goes(run: Path) -> None:
    before = open_bundle(run / "bundle")
    # Planted, so that this is shown on every machine: an engine whose graph is the one that is about to change.
    graph = before.find("graph", precision="fp16")
    assert graph is not None
    manifest = json.loads((run / "bundle" / MANIFEST).read_text())
    content = b"a plan"
    write_atomic(run / "bundle" / "planted.plan", content)
    manifest["files"].append({
        "role": "engine", "path": "planted.plan", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content),
        "backend": "tensorrt", "precision": "fp16", "built_for": {"graph": graph.sha256},
    })  # fmt: skip
    (run / "bundle" / MANIFEST).write_text(json.dumps(manifest))
    assert "planted.plan" in [file.path for file in engines(open_bundle(run / "bundle"))]

    result = export_run(run, ExportOptions(engine="onnxruntime", reject_error=10))
    assert open_bundle(run / "bundle").rejection == result.probabilities.rejection != before.rejection
    assert "are rejected: of 540 other" in export_table(result)
    assert (run / "bundle" / "planted.plan").read_bytes() == content
    change_weights(run, 0.25)
    export_run(run, ExportOptions(engine="onnxruntime"))
    assert engines(open_bundle(run / "bundle")) == []
    assert not (run / "bundle" / "planted.plan").exists()


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (ExportOptions("trt", "fp16"), ExportError, "fp16 graph: only 100.0 % of the multiply-adds can be computed in"),
        (ExportOptions("onnxruntime", "bf16"), InputError, "backend 'onnxruntime' runs fp32, fp16"),
        (ExportOptions("trt", "fp32"), BackendUnavailable, "no engine can be built: "),
        (ExportOptions("onnxruntime", reject_error=0.02), InputError, "at least 19,970 are needed for 0.02 %"),
    ],
)
def test_an_engine_that_was_named_and_failed_leaves_everything_as_it_was(
    run: Path, options: ExportOptions, error: type[Exception], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)  # Python's own way to say "not installed"
    monkeypatch.setattr("samdeploy.export.graphs.MIN_FP16_SHARE", 100.1)  # no network reaches it
    before, names = tree(run), sorted(path.name for path in run.iterdir())
    with pytest.raises(error) as caught:
        export_run(run, options)
    assert text in str(caught.value)
    assert tree(run) == before
    assert sorted(path.name for path in run.iterdir()) == names


@pytest.mark.usefixtures("few_images")
def test_with_all_an_engine_that_cannot_be_had_is_a_row(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    result = export_run(run, ExportOptions(precision="bf16"))
    rows = {row.engine: row for row in result.rows if row.note != "kept from an earlier export of this graph"}
    assert list(rows) == ["onnxruntime", "openvino", "trt"]
    assert rows["onnxruntime"].state == "not built"
    assert rows["onnxruntime"].note.startswith("backend 'onnxruntime' runs fp32, fp16")
    assert rows["onnxruntime"].note.endswith(", not 'bf16'")
    # OpenVINO computes in bf16 where the processor does.
    assert rows["openvino"].state == "verified" or rows["openvino"].note.startswith("not run here: OpenVINO would")
    assert (rows["trt"].state, rows["trt"].path) == ("failed", "")
    monkeypatch.setattr(pipeline_file, "export_images", lambda *_: pytest.fail("work was done for nothing"))
    with pytest.raises(InputError, match="backend 'onnxruntime' runs fp32, fp16, int8, not 'bf16'"):
        export_run(run, ExportOptions(engine="onnxruntime", precision="bf16"))
    with pytest.raises(InputError, match="batch: 8,1,64 found"):
        export_run(run, ExportOptions(batch=(8, 1, 64)))  # wrong whatever else is built


@pytest.mark.usefixtures("few_images")
def test_int8_that_is_refused_for_all_engines_leaves_everything_as_it_was(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object) -> None:
        raise ExportError("int8 graph: 2.08 points of validation top-1 lost; allow more with --max-drop")

    monkeypatch.setattr(pipeline_file, "add_int8_graph", refused)
    before = tree(run)
    with pytest.raises(ExportError, match="allow more with --max-drop"):
        export_run(run, ExportOptions(precision="int8"))
    assert tree(run) == before


@pytest.mark.parametrize("had_a_bundle", [True, False])
def test_ctrl_c_in_the_middle(run: Path, had_a_bundle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not had_a_bundle:
        shutil.rmtree(run / "bundle")
    before, names = tree(run), sorted(path.name for path in run.iterdir())

    def interrupted(*arguments: object, **options: object) -> None:
        assert [path.name for path in run.iterdir() if path.name.startswith(".bundle-")]  # it is under way
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline_file, "add_graphs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_run(run, ExportOptions(engine="onnxruntime"))
    assert tree(run) == before
    assert sorted(path.name for path in run.iterdir()) == names


@pytest.mark.parametrize(
    ("error", "state"), [(BackendUnavailable("not installed"), "not built"), (ExportError("no kernel"), "failed")]
)
def test_an_engine_that_was_not_tried_has_not_failed(
    error: Exception, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object) -> None:
        raise error

    monkeypatch.setattr("samdeploy.export.engines._build_tensorrt", build)
    (row,) = add_engine(None, "trt", ExportOptions(), named=False, no_graph={})  # type: ignore[arg-type]
    assert (row.state, row.note) == (state, str(error))


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown engine 'tensorrt'; did you mean"):
        export_run(tmp_path, ExportOptions(engine="tensorrt"))
    with pytest.raises(InputError, match="unknown precision 'fp61'; did you mean 'fp16'"):
        export_run(tmp_path, ExportOptions(precision="fp61"))


def test_a_network_without_numbers_is_not_exported(run: Path) -> None:
    change_weights(run, float("inf"))
    before = tree(run)
    with pytest.raises(ExportError, match=r"own weights are not finite \(fc.bias\); train again"):
        export_run(run, ExportOptions(engine="onnxruntime"))
    assert tree(run) == before


def test_headroom_is_that_of_all_images_that_were_asked_for(digits_run: Path, digits_bundle: Bundle) -> None:
    examples = export_images(digits_run, open_run(digits_run), None)
    assert len(examples.headroom) == 719 > len(examples.calibration)
    file = digits_bundle.find("graph", precision="fp32")
    assert file is not None
    graph = onnx.load_from_string(digits_bundle.read(file))
    rows = json.loads((digits_bundle.root / "headroom.json").read_text())["tensors"]
    saved = {row["name"]: row["max_abs"] for row in rows}
    measured = {row.name: row.max_abs for row in measure_ranges(graph, examples.headroom)}
    assert saved == pytest.approx(measured, rel=1e-5)
    few = {row.name: row.max_abs for row in measure_ranges(graph, examples.calibration)}
    assert any(few[name] < 0.99 * value for name, value in saved.items())  # else nothing could be told apart
