"""`samdeploy data` as a user starts it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from samdeploy.bundle.names import MANIFEST, RUN_FILE
from tests.cli.typed import Inside


def test_digits_are_shown_and_measured(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    from samdeploy.train import look

    monkeypatch.setattr(look, "_SECONDS", 0.1)
    code, out, err = inside("data", "digits-strong", cwd=tmp_path)
    assert code == 0, err
    assert "leak guard  no image is in two splits" in out
    assert "decoded and resized" in out
    assert Image.open(tmp_path / "digits-strong-samples.png").format == "PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["digits-strong-samples.png"]  # and no run


def test_no_sheet_where_the_current_folder_cannot_be_written(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    from samdeploy.train import look

    monkeypatch.setattr(look, "_SECONDS", 0.1)
    code, out, err = inside("data", "digits", cwd=Path("/proc"))
    assert code == 0, err
    assert "no contact sheet: digits-samples.png cannot be written (" in out
    assert "; name another place: --sheet FILE" in out


def test_what_is_wrong_is_one_line(tmp_path: Path, inside: Inside) -> None:
    code, _, err = inside("data", "digits", "--set", "augment.flips=true", cwd=tmp_path)
    assert code == 2
    assert err.startswith("samdeploy: recipe digits: unknown key in [augment] 'flips'; did you mean 'flip'?")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["data", "train", "export", "eval"])
def test_a_data_set_that_is_not_there(finished: Path, tmp_path: Path, inside: Inside, command: str) -> None:
    if command in ("export", "eval"):
        shutil.copytree(finished / "runs", tmp_path / "runs")
        run, manifest = (tmp_path / "runs" / "digits" / name for name in (RUN_FILE, f"bundle/{MANIFEST}"))
        run.write_text(json.dumps({**json.loads(run.read_text()), "dataset": "folder"}))
        values = json.loads(manifest.read_text())
        values["data"]["name"] = "folder"
        manifest.write_text(json.dumps(values))
    subject = ["folder"] if command in ("data", "train") else []
    code, _, err = inside(command, *subject, "--data", "nowhere", cwd=tmp_path)
    assert code == 2
    found = "no such folder; a folder with <class>/ or train/<class>/ images expected"
    if command == "eval":
        found = "no such folder or file; test/<class>/ or <class>/ images, a table or tar shards expected"
    assert err.splitlines()[-1] == f"samdeploy: nowhere: {found}"


def test_only_training_fetches_a_data_set(tmp_path: Path, inside: Inside) -> None:
    code, _, err = inside("train", "cifar10", cwd=tmp_path)
    assert code == 2
    assert err.endswith(
        "so that data/cifar-10-batches-py holds the files. Or add --download; if the "
        "files lie elsewhere, name their folder: --data DIR\n"
    )
