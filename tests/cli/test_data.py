"""`samdeploy data` as a user starts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image


def run(*arguments: str, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "samdeploy", "data", *arguments]
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_digits_are_shown_and_measured(tmp_path: Path, environment: dict[str, str]) -> None:
    done = run("digits-strong", cwd=tmp_path, environment=environment)
    assert done.returncode == 0, done.stderr
    assert "leak guard: no picture stands in two splits" in done.stdout
    assert "decoded and resized" in done.stdout
    assert Image.open(tmp_path / "digits-strong-samples.png").format == "PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["digits-strong-samples.png"]  # and no run


def test_what_is_wrong_is_one_line(tmp_path: Path, environment: dict[str, str]) -> None:
    done = run("digits", "--set", "augment.flips=true", cwd=tmp_path, environment=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("samdeploy: recipe digits: unknown key in [augment] 'flips'; did you mean 'flip'?")
    assert done.stderr.count("\n") == 1
    done = run("folder", "--data", "nowhere", cwd=tmp_path, environment=environment)
    assert done.returncode == 2
    assert done.stderr == (
        "samdeploy: folder: nothing found at nowhere; a folder with one folder of pictures per class expected\n"
    )
