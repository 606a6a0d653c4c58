"""A real bundle beside real alternatives: same answers, one base, reasons for those that cannot run."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from samdeploy.backends.golden import GOLDEN_TOLERANCE
from samdeploy.backends.onnxruntime.session import OnnxruntimeSession
from samdeploy.bench import turns
from samdeploy.bench.alternatives import against
from samdeploy.bench.alternatives.against import compare
from samdeploy.bench.alternatives.comparison import Comparison, comparison_json
from samdeploy.bench.engines import Engine
from samdeploy.bench.timed_images import TimedImages, load_images
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
OURS = Engine("onnxruntime", "fp32")


@pytest.fixture(scope="module")
def examples(digits_bundle: Bundle) -> TimedImages:
    return load_images(digits_bundle, None, None)


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PAUSE_S", 0.0)
    monkeypatch.setattr(turns, "TURN_MS", 0.0)


def _compare(bundle: Bundle, examples: TimedImages, engines: list[Engine], *names: str, batch: int = 1) -> Comparison:
    return compare(bundle, engines, names, examples, batch=batch, rounds=5, device="cpu")


@pytest.mark.parametrize("batch", [1, 3])
def test_ours_and_pytorch_take_turns(digits_bundle: Bundle, examples: TimedImages, batch: int) -> None:
    found = _compare(digits_bundle, examples, [OURS], "pytorch eager", batch=batch)
    assert [(row.name, row.ours, row.ran, row.reason) for row in found.rows] == [
        ("samdeploy onnxruntime fp32", True, True, ""),
        ("pytorch eager", False, True, ""),
    ]
    ours, eager = found.rows
    assert found.base == "pytorch eager"
    assert eager.times_base == turns.Ratio(1, 1, 1)
    assert ours.times_base is not None
    assert ours.times_base.p10 <= ours.times_base.median <= ours.times_base.p90
    for row in found.rows:
        assert row.difference is not None
        assert row.difference < 1e-4
        assert 0 < (row.p10_ms or 0) <= (row.p50_ms or 0) <= (row.p90_ms or 0)
    assert comparison_json(found)["batch"] == batch


def test_pytorchs_own_export_runs_in_both_runtimes(digits_bundle: Bundle, examples: TimedImages) -> None:
    pytest.importorskip("onnxscript", reason="pip install 'samdeploy[bench]'")
    pytest.importorskip("openvino")
    found = _compare(digits_bundle, examples, [], "onnxruntime plain export", "openvino plain export")
    assert [row.reason for row in found.rows] == ["", ""]
    assert [row.ran for row in found.rows] == [True, True]
    assert max(row.difference or 1 for row in found.rows) < 1e-4


def test_without_onnxscript_both_rows_say_so(
    digits_bundle: Bundle, examples: TimedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    found = _compare(digits_bundle, examples, [OURS], "onnxruntime plain export", "openvino plain export")
    assert [row.reason for row in found.rows[1:]] == [
        "PyTorch's exporter needs onnxscript, which is not installed; pip install 'samdeploy[bench]'"
    ] * 2
    assert found.base == "samdeploy onnxruntime fp32"  # the only one that ran


def test_another_network_is_not_compared(
    digits_bundle: Bundle, examples: TimedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The golden answers are those of the network as trained; an alternative with two classes swapped is not it."""
    plain = against._others

    def swapped(bundle: Bundle, names: list[str], device: str) -> dict[str, object]:
        run = plain(bundle, names, device)["pytorch eager"]()
        return {"pytorch eager": lambda: lambda batch: np.asarray(run(batch))[:, [1, 0, *range(2, 10)]]}

    monkeypatch.setattr(against, "_others", swapped)
    (ours, other) = _compare(digits_bundle, examples, [OURS], "pytorch eager").rows
    assert ours.ran
    assert not other.ran
    assert other.reason.endswith("of their range, at most 5e-02 expected: not the same network")


@pytest.mark.parametrize("precision", GOLDEN_TOLERANCE)
@pytest.mark.parametrize("batch", [1, 5])
def test_each_precision_may_round_and_is_no_other_network(digits_bundle: Bundle, precision: str, batch: int) -> None:
    images, logits = digits_bundle.golden()
    rows = {image.tobytes(): index for index, image in enumerate(images)}
    off = 0.9 * GOLDEN_TOLERANCE[precision] * np.ptp(logits, axis=1, keepdims=True)
    signs = np.where(np.arange(logits.size).reshape(logits.shape) % 2, 1, -1)

    def answers(table: np.ndarray) -> float:
        run = lambda images: table[[rows[image.tobytes()] for image in images]]  # noqa: E731
        return against._difference(digits_bundle, run, batch, precision)

    assert 0 < answers(logits + off * signs) <= GOLDEN_TOLERANCE[precision]
    for wrong in (logits[:, [1, 0, *range(2, 10)]], 0.5 * logits, np.full_like(logits, np.nan)):
        with pytest.raises(BackendUnavailable, match="not the same network"):
            answers(wrong)


def test_an_engine_that_dies_in_the_middle(
    digits_bundle: Bundle, examples: TimedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, count, answers = OnnxruntimeSession.run, 0, len(digits_bundle.golden()[0])

    def dying(self: OnnxruntimeSession, batch: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        if count > answers + 8:  # three to warm up, two in each round
            raise RuntimeError("out of memory")
        return plain(self, batch)

    monkeypatch.setattr(OnnxruntimeSession, "run", dying)
    ours, eager = _compare(digits_bundle, examples, [OURS], "pytorch eager").rows
    assert (ours.ran, ours.reason) == (False, "died in round 3: out of memory")
    assert ours.p50_ms is not None
    assert eager.ran


def test_an_engine_whose_profile_has_no_such_batch(digits_bundle: Bundle, examples: TimedImages) -> None:
    bounded = dataclasses.replace(OURS, smallest=2, largest=4)
    (row,) = _compare(digits_bundle, examples, [bounded], batch=8).rows
    assert (row.ran, row.reason) == (False, "its profile takes batches of 2 to 4")


def test_images_of_a_folder_keep_their_files(digits_bundle: Bundle, digit_files: list[Path]) -> None:
    found = load_images(digits_bundle, digit_files[0].parent, None)
    assert sorted(found.encoded) == sorted(path.read_bytes() for path in digit_files)
    assert found.prepared.shape == (5, 32, 32, 3)
    assert found.source == f"5 images of {digit_files[0].parent}"


def test_images_of_the_test_split_are_encoded_without_loss(digits_bundle: Bundle, examples: TimedImages) -> None:
    from samdeploy.data import open_dataset
    from samdeploy.images.decode import decode

    test = open_dataset("digits", Path("data"), options={}, val_fraction=0.1, seed=0).test
    originals = {test.load(index).tobytes() for index in range(len(test))}
    assert len(examples.encoded) == 64
    assert all(decode(data).tobytes() in originals for data in examples.encoded)
    assert examples.source == "64 test images of digits (PNG, the first of 8x8)"


def test_without_the_data_set_the_golden_images_serve(digits_bundle: Bundle) -> None:
    data = dataclasses.replace(digits_bundle.data, name="cifar10")
    found = load_images(dataclasses.replace(digits_bundle, data=data), None, None)
    assert (found.prepared == digits_bundle.golden()[0]).all()
    assert "golden images as PNG, already of the network's size" in found.source
