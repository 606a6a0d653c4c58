"""A network that is no SAM-ResNet goes the whole way: trained, exported, judged, asked, explained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from samdeploy.bundle import Bundle
from samdeploy.runs.record import open_run
from tests.cli.typed import Inside

pytestmark = pytest.mark.slow

ARCH, OPTIONS = "timm:test_resnet", {"attention": "", "image_side": ""}


def test_train(timm_run: Path) -> None:
    record = open_run(timm_run)
    assert (record.arch, record.options, record.status) == (ARCH, OPTIONS, "complete")
    assert record.test_top1 is not None and record.test_top1 > 80
    assert "gate" not in (timm_run / "recipe.toml").read_text()  # of the recipe for SAM-ResNet


def test_export(timm_bundle: Bundle) -> None:
    found = {(file.role, file.backend, file.precision) for file in timm_bundle.files}
    assert {("graph", None, precision) for precision in ("fp32", "fp16", "int8")} <= found
    assert ("cam_graph", None, "fp32") in found
    assert timm_bundle.spec.options == OPTIONS


@pytest.mark.usefixtures("short_latency")
def test_eval(timm_bundle: Bundle, inside: Inside, tmp_path: Path) -> None:
    arguments = ("--precision", "fp32", "--consistency", "0", "--json", tmp_path / "eval.json", "--report", tmp_path)
    code, _output, errors = inside("eval", timm_bundle.root, *arguments, cwd=tmp_path)
    assert code == 0, errors
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    ran = {row["backend"]: row for row in results if row["passed"] is not None}
    assert set(ran) == {"onnxruntime", "openvino"} and all(row["passed"] for row in ran.values())
    assert ARCH in (tmp_path / "report.html").read_text()


def test_predict_and_explain(timm_bundle: Bundle, digit_files: Sequence[Path], inside: Inside, tmp_path: Path) -> None:
    code, output, errors = inside("predict", "--json", timm_bundle.root, *digit_files, cwd=tmp_path)
    assert code == 0, errors
    labels = [json.loads(line)["label"] for line in output.splitlines()]
    assert sum(label == path.stem for label, path in zip(labels, digit_files, strict=True)) >= 4
    line = ("explain", timm_bundle.root, digit_files[0])
    assert inside(*line, "--out", tmp_path / "maps", cwd=tmp_path)[0] == 0
    assert (tmp_path / "maps" / "contact-sheet.png").is_file()
    code, _, errors = inside(*line, "--gates", cwd=tmp_path)
    assert code == 2
    assert f"explain --gates: {ARCH} has no channel gates to show" in errors


def test_doctor(timm_bundle: Bundle, inside: Inside, tmp_path: Path) -> None:
    code, output, _errors = inside("doctor", timm_bundle.root, cwd=tmp_path)
    assert code == 0, output
    assert f"{ARCH}, 10 classes, 40x40 px" in output


def test_a_size_that_the_network_does_not_take(inside: Inside, tmp_path: Path) -> None:
    code, _output, errors = inside("train", "digits", "--set", "model.arch=torchvision:vit_b_32", cwd=tmp_path)
    assert code == 2
    assert "image: 32x32 pixels found, which torchvision:vit_b_32 does not take (Wrong image height!" in errors
    assert not (tmp_path / "runs").exists()
