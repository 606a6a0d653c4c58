"""Files beside the bundle: read as they were written, and refused in words where they were not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from samdeploy.bundle import Bundle, open_bundle
from samdeploy.errors import BundleError
from samdeploy.report.records import BatchRate, read_bench, read_headroom, read_leaks

Seal = Callable[[Path], Bundle]


def test_headroom_as_exported(digits_bundle: Bundle) -> None:
    found = read_headroom(digits_bundle)
    values = json.loads((digits_bundle.root / "headroom.json").read_text())
    assert found is not None and (found.images, found.fp16_share_of_multiply_adds) == (719, 100.0)
    names = [row["name"] for row in values["tensors"]]
    pixels = [name for name in names if name.startswith("pixels")]  # stay in FP32
    assert pixels and list(found.bits()) == names[len(pixels) :]
    assert next(iter(found.bits().values())) == values["tensors"][len(pixels)]["bits"]


def test_headroom_counts_what_rescaling_gained(copy_of_bundle: Path, seal: Seal) -> None:
    path = copy_of_bundle / "headroom.json"
    values = json.loads(path.read_text())
    before = read_headroom(seal(copy_of_bundle))
    assert before is not None
    values["tensors"][-2].update(bits=-2.0, stored_as_times_two_to_minus=5)
    values["tensors"][-1].update(bits=None)
    path.write_text(json.dumps(values))
    found = read_headroom(seal(copy_of_bundle))
    assert found is not None and list(found.bits().values())[-1] == 3.0
    assert len(found.bits()) == len(before.bits()) - 1


def test_a_changed_headroom_is_refused(copy_of_bundle: Path, seal: Seal) -> None:
    path = copy_of_bundle / "headroom.json"
    path.write_text(path.read_text().replace('"images": 719', '"images": 720'))
    with pytest.raises(BundleError, match=r"'headroom.json' has SHA-256"):
        read_headroom(open_bundle(copy_of_bundle))
    path.write_text('{"images": 1}')
    with pytest.raises(BundleError, match=r"headroom.json: .*'tensors' is missing; make it again: samdeploy export$"):
        read_headroom(seal(copy_of_bundle))


def test_bench_as_written(with_bench: Bundle) -> None:
    found = read_bench(with_bench, "bench.json")
    assert found is not None
    assert [engine.name for engine in found.engines] == ["onnxruntime fp32", "openvino fp32"]
    assert found.engines[0].batches[1] == BatchRate(2, 250.0, 8.0)
    found = read_bench(with_bench, "bench-against.json")
    assert found is not None and (found.engines, len(found.against)) == ((), 1)
    assert [(row.engine, row.ours, row.times_base, row.reason) for row in found.against[0].rows] == [
        ("samdeploy openvino fp32", True, 2.5, ""),
        ("pytorch eager", False, 1.0, ""),
        ("trtexec", False, None, "not installed"),
    ]


def test_what_is_not_there_is_none(digits_bundle: Bundle) -> None:
    assert read_bench(digits_bundle, "bench.json") is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda found: found.pop("machine"), ": 'machine' is missing"),
        (lambda found: found.update(engines=3), "'engines' must be a list of objects, integer 3 found"),
        (
            lambda found: found["engines"][0]["batches"][0].update(batch="1"),
            "engines[0].batches[0]: 'batch' must be an integer, text '1' found",
        ),
        (lambda found: found["engines"][0]["batches"][0].update(batch=0), "batch 0 found, at least 1 expected"),
        (
            lambda found: found["engines"][0]["batches"][0].update(images_per_s=True),
            "'images_per_s' must be a number, boolean True found",
        ),
        (lambda found: found["engines"][0].update(precision=None), "engines[0]: 'precision' must be text, null found"),
    ],
)
def test_a_damaged_bench_is_refused(with_bench: Bundle, change: Callable[[Any], Any], text: str) -> None:
    path = with_bench.root / "bench.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(BundleError) as caught:
        read_bench(with_bench, "bench.json")
    assert text in str(caught.value) and str(caught.value).endswith("; make it again: samdeploy bench --json")


def test_a_link_is_not_followed(with_bench: Bundle, tmp_path: Path) -> None:
    (with_bench.root / "bench.json").rename(tmp_path / "elsewhere.json")
    (with_bench.root / "bench.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match="symbolic link"):
        read_bench(with_bench, "bench.json")


def test_leaks_as_training_left_them(digits_bundle: Bundle, copy_of_bundle: Path) -> None:
    found = read_leaks(digits_bundle)
    assert found is not None
    assert [(leak.split, leak.other, leak.exact) for leak in found] == [
        ("val", "train", 0), ("test", "train", 0), ("test", "val", 0),
    ]  # fmt: skip
    assert read_leaks(open_bundle(copy_of_bundle)) is None
    (copy_of_bundle.parent / "leaks.json").write_text("{}")
    with pytest.raises(BundleError, match=r"leaks.json: 'overlaps' is missing; make it again: samdeploy train$"):
        read_leaks(open_bundle(copy_of_bundle))
