"""`samdeploy data` as a user starts it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

Inside = Callable[..., tuple[int, str, str]]


def test_digits_are_shown_and_measured(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    from samdeploy.train import look

    monkeypatch.setattr(look, "_SECONDS", 0.1)
    code, out, err = inside("data", "digits-strong", cwd=tmp_path)
    assert code == 0, err
    assert "leak guard: no picture stands in two splits" in out
    assert "decoded and resized" in out
    assert Image.open(tmp_path / "digits-strong-samples.png").format == "PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["digits-strong-samples.png"]  # and no run


def test_what_is_wrong_is_one_line(tmp_path: Path, inside: Inside) -> None:
    code, _, err = inside("data", "digits", "--set", "augment.flips=true", cwd=tmp_path)
    assert code == 2
    assert err.startswith("samdeploy: recipe digits: unknown key in [augment] 'flips'; did you mean 'flip'?")
    assert err.count("\n") == 1
    code, _, err = inside("data", "folder", "--data", "nowhere", cwd=tmp_path)
    assert code == 2
    assert err == (
        "samdeploy: folder: nothing found at nowhere; a folder with one folder of pictures per class expected: "
        "--data DIR\n"
    )
