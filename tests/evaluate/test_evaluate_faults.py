"""What the world does to an evaluation: engines that die, images that are missing, sets that are too small."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from samdeploy.backends import open_session
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.errors import BackendUnavailable, BundleError, DatasetError
from samdeploy.evaluate import EvalOptions, Report, evaluate_bundle
from samdeploy.evaluate.result import NotMeasured
from samdeploy.report.text.evaluation import verdict

pytestmark = pytest.mark.usefixtures("short_latency")

Run = Callable[[np.ndarray], np.ndarray]
Evaluate = Callable[..., Report]


@pytest.fixture
def with_session(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """`with_session(engine, change, **options)`: evaluate with `change(run)` in the place of one backend's `run`."""

    def evaluate(engine: str, change: Callable[[Run], Run], **options: Any) -> Report:
        def opened(bundle: Bundle, name: str, *, precision: str | None = None, **others: Any) -> CheckedSession:
            # The FP32 graph serves every precision: only the gate shall see another one.
            session = open_session(bundle, name, device="cpu", precision="fp32")
            if name == engine:
                session.run = change(session.run)  # type: ignore[method-assign]
            return session

        for module in ("evaluate", "evaluate_engine"):  # the reference, and each engine
            monkeypatch.setattr(f"samdeploy.evaluate.{module}.open_session", opened)
        return evaluate_bundle(digits_bundle, EvalOptions(device="cpu", **options))

    return evaluate


def dies_at(count: int, error: BaseException, *, images: int = 0) -> Callable[[Run], Run]:
    """A `run` that raises at its count-th call, counting only batches of `images` if that is given."""

    def change(run: Run) -> Run:
        calls = 0

        def dying(batch: np.ndarray) -> np.ndarray:
            nonlocal calls
            calls += not images or len(batch) == images
            if calls >= count:
                raise error
            return run(batch)

        return dying

    return change


def test_an_engine_that_dies_in_the_middle_costs_its_row_and_no_other(with_session: Evaluate) -> None:
    report = with_session("onnxruntime", dies_at(3, RuntimeError("kernel\n  failed")))
    said = "stopped after 128 of 359 images: RuntimeError: kernel failed"
    dead, alive = report.results[:2]
    assert (dead.backend, dead.ran, dead.passed, dead.verdict) == ("onnxruntime", True, False, None)
    assert (dead.n_images_done, dead.reason, dead.comparison, dead.latency) == (128, said, None, None)
    assert (alive.backend, alive.passed, alive.n_images_done) == ("openvino", True, 359)
    assert alive.comparison is not None and alive.latency is not None
    assert not report.passed and verdict(report).startswith("FAILED")


def test_an_engine_that_dies_while_it_is_timed_keeps_its_accuracy(with_session: Evaluate) -> None:
    report = with_session("onnxruntime", dies_at(5, RuntimeError("too hot"), images=1), backend="onnxruntime")
    (row,) = report.results
    assert row.comparison is not None and row.comparison.top1_agreement == 100.0
    assert (row.ran, row.passed, row.verdict, row.latency, row.n_images_done) == (True, False, None, None, 359)
    assert row.reason == "stopped while its latency was measured: RuntimeError: too hot"
    assert not report.passed


def test_the_golden_images_are_a_promise_too(with_session: Evaluate, digits_bundle: Bundle) -> None:
    """An engine that is right on the test set, and not on the images that every application will open it with."""
    golden = digits_bundle.golden()[0]

    def change(run: Run) -> Run:
        return lambda batch: run(batch) + np.float32(len(batch) == len(golden)) * 5

    report = with_session("onnxruntime", change, backend="onnxruntime")
    (row,) = report.results
    assert row.comparison is not None and row.comparison.max_difference_of_range < 1e-5
    assert (row.passed, row.verdict) == (False, "fails")
    assert "the golden images give logits that differ by" in row.reason


def test_why_looks_at_the_golden_images_where_they_alone_accuse(
    with_session: Evaluate, digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = digits_bundle.golden()[0]
    seen: list[np.ndarray] = []

    def explained(bundle: Bundle, backend: str, precision: str, images: np.ndarray, *, device: str) -> NotMeasured:
        seen.append(images)
        return NotMeasured("only the images matter here")

    monkeypatch.setattr("samdeploy.evaluate.evaluate_engine.explain_if_possible", explained)

    def wrong_at(wrong: int) -> Callable[[Run], Run]:
        def change(run: Run) -> Run:
            off = np.zeros((len(golden), 1), np.float32)
            off[wrong] = 5
            return lambda batch: run(batch) + (off if len(batch) == len(golden) else 0)

        return change

    with_session("onnxruntime", wrong_at(3), backend="onnxruntime", why=True)
    assert any((image == golden[3]).all() for image in seen[0]) and len(seen[0]) == 4
    # Wrong on the test images as well: those are what the gate speaks of.
    with_session("onnxruntime", lambda run: lambda batch: -run(batch), backend="onnxruntime", why=True)
    assert not any((image == other).all() for image in seen[1] for other in golden)


def test_an_engine_that_is_wrong_at_one_batch_size_fails(with_session: Evaluate) -> None:
    """The test set goes through in batches of 64, its rest in one of 39: right for every image."""

    def change(run: Run) -> Run:
        return lambda batch: run(batch)[::-1] if len(batch) == 3 else run(batch)

    (row,) = with_session("onnxruntime", change, backend="onnxruntime").results
    assert row.comparison is not None and row.comparison.top1_agreement == 100.0
    assert (row.passed, row.verdict) == (False, "fails")
    assert row.reason.startswith("NOT CONSISTENT: ") and "batch size 3" in row.reason
    assert row.parts["consistency"].to_json()["passed"] is False
    (row,) = with_session("onnxruntime", change, backend="onnxruntime", consistency_s=0).results
    assert row.passed and "consistency" not in row.parts


def test_maps_are_compared_where_both_have_them(digits_bundle: Bundle) -> None:
    report = evaluate_bundle(digits_bundle, EvalOptions(backend="openvino", consistency_s=0))
    # At 32 pixels a map is one cell, which has no order; calling that agreement would be a lie.
    assert report.results[0].parts["cam"].to_json()["defined"] == 0
    without = dataclasses.replace(digits_bundle, files=tuple(f for f in digits_bundle.files if f.role != "cam_graph"))
    with pytest.raises(BackendUnavailable):
        open_session(without, "openvino", maps=True)
    assert "cam" not in evaluate_bundle(without, EvalOptions(backend="openvino", consistency_s=0)).results[0].parts


def test_without_the_reference_there_is_no_report(with_session: Evaluate) -> None:
    with pytest.raises(BackendUnavailable) as caught:
        with_session("pytorch", dies_at(2, RuntimeError("out of memory")))
    assert str(caught.value) == (
        "the reference, PyTorch on cpu, stopped after 64 of 359 images: RuntimeError: out of memory"
    )


@pytest.mark.parametrize("backend", ["pytorch", "openvino"])
def test_ctrl_c_leaves_nothing_behind(
    with_session: Evaluate, backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(KeyboardInterrupt):
        with_session(backend, dies_at(2, KeyboardInterrupt()))
    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def test_too_few_images_for_the_margin(with_session: Evaluate) -> None:
    """The same answers for all 359 images do not prove that fewer than 0.5 % are lost."""
    report = with_session("onnxruntime", lambda run: run, backend="onnxruntime", precision="int8")
    (row,) = report.results
    assert row.comparison is not None and row.comparison.top1_agreement == 100.0
    assert (row.passed, row.verdict, row.n_needed) == (False, "cannot tell", 875)
    assert (report.passed, verdict(report)) == (False, "INCONCLUSIVE")
    report = with_session("onnxruntime", lambda run: run, backend="onnxruntime", precision="int8", margin=1.5)
    assert (report.passed, verdict(report), report.results[0].reason) == (True, "PASSED (tried batch sizes 1-4)", "")


def test_a_clear_loss_fails_at_a_reduced_precision(with_session: Evaluate) -> None:
    def one_in_ten_is_wrong(run: Run) -> Run:
        def wrong(batch: np.ndarray) -> np.ndarray:
            logits = run(batch)
            logits[::10] = -logits[::10]
            return logits

        return wrong

    report = with_session("openvino", one_in_ten_is_wrong, backend="openvino", precision="int8")
    (row,) = report.results
    assert row.comparison is not None
    # Every tenth of each batch of 64, and of the last one of 39.
    assert 30 < row.comparison.change.lost <= 39 and row.verdict == "fails"
    assert verdict(report).startswith("FAILED")
    flipped = report.to_json()["results"][0]["changed"]
    assert {entry["index"] % 64 % 10 for entry in flipped} == {0}
    assert row.comparison.mcnemar_p < 1e-6


def test_a_bundle_without_golden_images_is_refused(copy_of_bundle: Path) -> None:
    """No application could open it; a verdict on it would be worth nothing."""
    manifest = json.loads((copy_of_bundle / MANIFEST).read_text())
    manifest["files"] = [file for file in manifest["files"] if not file["role"].startswith("golden")]
    (copy_of_bundle / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="no file with role 'golden_images'; export it again"):
        evaluate_bundle(open_bundle(copy_of_bundle), EvalOptions(backend="onnxruntime"))


def folder_bundle(bundle: Bundle) -> Bundle:
    """The bundle, as if it had been trained on a folder of images."""
    return dataclasses.replace(bundle, data=dataclasses.replace(bundle.data, name="folder", options={}))


def image(path: Path, value: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(path)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ((), "no class folders in IMAGES (0 images and 0 other files there)"),
        (("1.png", "2.png"), "no class folders in IMAGES (2 images and 0 other files there)"),
        (("train/0/1.png", "train/1/1.png", "test/1.png"), "no class folders in IMAGES/test (1 image and 0 "),
        (("train/0/1.png", "train/1/1.png", "test/0/note.txt"), "1 of 1 class folders in IMAGES/test have no image"),
        (("val/0/1.png",), "IMAGES has val/ but no train/: the training images are missing"),
        (("test/0/note.txt",), "1 of 1 class folders in IMAGES/test have no images: 0 (1 file"),
        (("test/zero/1.png",), "1 of 1 classes in IMAGES/test are not in the training set: zero. Expected: 0, 1, 2"),
    ],
)
def test_a_folder_without_labelled_images(
    digits_bundle: Bundle, tmp_path: Path, files: tuple[str, ...], said: str
) -> None:
    root = tmp_path / "images"
    root.mkdir()
    for name in files:
        image(root / name) if name.endswith("png") else (root / name).parent.mkdir(parents=True)
        (root / name).touch()
    with pytest.raises(DatasetError) as caught:
        evaluate_bundle(folder_bundle(digits_bundle), EvalOptions(data_root=root))
    assert said in str(caught.value).replace(str(root), "IMAGES")


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    for part, count in (("train", 2), ("val", 2), ("test", 3)):
        for label in range(10):
            for number in range(count):
                image(tmp_path / "images" / part / str(label) / f"{number}.png", 20 * label + number)
    return tmp_path / "images"


def test_images_outside_of_any_class_are_said(digits_bundle: Bundle, examples: Path) -> None:
    image(examples / "test" / "loose.png")
    report = evaluate_bundle(folder_bundle(digits_bundle), EvalOptions(backend="onnxruntime", data_root=examples))
    assert report.n_images == 30
    (note,) = report.notes
    assert note.startswith("test: 1 image outside of any class folder not used: ")


def test_a_damaged_image_is_named(digits_bundle: Bundle, examples: Path) -> None:
    (examples / "test" / "3" / "1.png").write_bytes(b"no image")
    with pytest.raises(DatasetError) as caught:
        evaluate_bundle(folder_bundle(digits_bundle), EvalOptions(data_root=examples))
    assert str(caught.value).startswith("test images: 1 of 30 images cannot be read; ")
    assert str(examples / "test" / "3" / "1.png") in str(caught.value)
