"""A network that is no SAM-ResNet goes the whole way: trained, exported, judged, asked, explained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from samdeploy.bundle import Bundle
from samdeploy.runs.record import open_run
from tests.conftest import Command

pytestmark = pytest.mark.slow

ARCH = "torchvision:resnet18"


def test_train(torchvision_run: Path) -> None:
    record = open_run(torchvision_run)
    assert (record.arch, record.options, record.status) == (ARCH, {}, "complete")
    assert record.test_top1 is not None and record.test_top1 > 80
    assert "gate" not in (torchvision_run / "recipe.toml").read_text()  # of the recipe for SAM-ResNet


def test_export(torchvision_bundle: Bundle) -> None:
    found = {(file.role, file.backend, file.precision) for file in torchvision_bundle.files}
    assert {("graph", None, precision) for precision in ("fp32", "fp16", "int8")} <= found
    assert ("cam_graph", None, "fp32") in found
    assert torchvision_bundle.spec.options == {}


def test_eval(torchvision_bundle: Bundle, command: Command, tmp_path: Path) -> None:
    arguments = ("--precision", "fp32", "--consistency", "0", "--json", tmp_path / "eval.json", "--report", tmp_path)
    done = command("eval", torchvision_bundle.root, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "eval.json").read_text())["results"]
    ran = {row["backend"]: row for row in results if row["passed"] is not None}
    assert set(ran) == {"onnxruntime", "openvino"} and all(row["passed"] for row in ran.values())
    assert ARCH in (tmp_path / "report.html").read_text()


def test_predict_and_explain(
    torchvision_bundle: Bundle, digit_files: Sequence[Path], command: Command, tmp_path: Path
) -> None:
    done = command("predict", "--json", torchvision_bundle.root, *digit_files, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    labels = [json.loads(line)["label"] for line in done.stdout.splitlines()]
    assert sum(label == path.stem for label, path in zip(labels, digit_files, strict=True)) >= 4
    maps = command("explain", torchvision_bundle.root, digit_files[0], "--out", tmp_path / "maps", cwd=tmp_path)
    assert maps.returncode == 0 and (tmp_path / "maps" / "contact-sheet.png").is_file()
    gates = command("explain", "--gates", torchvision_bundle.root, digit_files[0], cwd=tmp_path)
    assert gates.returncode == 2
    assert f"explain --gates: {ARCH} has no channel gates to show" in gates.stderr


def test_doctor(torchvision_bundle: Bundle, command: Command, tmp_path: Path) -> None:
    done = command("doctor", torchvision_bundle.root, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert f"{ARCH}, 10 classes, 40x40 px" in done.stdout


def test_a_size_that_the_network_does_not_take(command: Command, tmp_path: Path) -> None:
    done = command("train", "digits", "--set", "model.arch=torchvision:vit_b_32", cwd=tmp_path)
    assert done.returncode == 2
    assert "image: 32x32 pixels found, which torchvision:vit_b_32 does not take (Wrong image height!" in done.stderr
    assert not (tmp_path / "runs").exists()
