"""What `samdeploy doctor --collect` packs, and what it leaves out."""

from __future__ import annotations

import json
import platform
import zipfile
from pathlib import Path

import pytest

from samdeploy.doctor import collect
from samdeploy.errors import InputError
from tests.cli.typed import TINY


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real commands on a smaller job: a tiny training, one engine, no figures."""
    train = (*collect._TRAIN[:2], *TINY, "--runs", "runs")
    export = ("export", "run", "--engine", "trt", "--no-cam")
    steps = (("train", train), ("export", export), ("eval", ("eval", "nothing-here")))
    monkeypatch.setattr(collect, "_STEPS", steps)


@pytest.mark.usefixtures("short")
def test_the_zip_holds_results_and_no_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")
    monkeypatch.setenv("HOME", str(tmp_path / "home-of-somebody"))
    text = collect.collect_report(tmp_path / "report.zip")
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        found = {name: archive.read(name).decode() for name in archive.namelist()}
    assert {"machine.json", "commands/train.json", "commands/export.json", "commands/eval.json"} < set(found)
    manifest = json.loads(found["results/manifest.json"])
    [plan] = [file for file in manifest["files"] if file["role"] == "engine"]
    assert f"inspector/{Path(plan['path']).stem}" in {name.rsplit(".", 1)[0] for name in found}
    commands = {name: json.loads(content) for name, content in found.items() if name.startswith("commands/")}
    assert [command["exit"] for command in commands.values()] == [0, 0, 2]
    assert text.endswith("did not end with exit code 0: eval; attach it to your report")
    assert (tmp_path / "report.zip").stat().st_size < 1 << 20
    assert not [name for name in found if name.endswith((".png", ".npy", ".onnx", ".plan"))]
    for name, content in found.items():
        for private in (str(tmp_path), "somebody", f" {platform.node()} ", "samdeploy-collect"):
            assert private not in content, name


def test_a_name_that_is_no_zip_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a name that ends in \.zip expected"):
        collect.collect_report(tmp_path / "report.tar")
    with pytest.raises(InputError, match="no such folder"):
        collect.collect_report(tmp_path / "missing" / "report.zip")
