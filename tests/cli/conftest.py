"""A finished run, images of which some are broken, and `samdeploy` in this process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from samdeploy.bundle import Bundle


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, digits_bundle: Bundle) -> Path:
    """A folder with `runs/` that holds a finished run and its bundle."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(digits_bundle.root.parent, folder / "runs" / "digits")
    return folder


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`inside(*arguments, cwd=folder)`: exit code, output and errors of `samdeploy`, run in this process.

    The same `main()` that a process of its own would call, without the seconds that importing torch anew takes.
    """

    def run(*arguments: str | Path, cwd: Path) -> tuple[int, str, str]:
        from samdeploy.cli import main

        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["samdeploy", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err

    return run


@pytest.fixture
def mixed(tmp_path: Path, digit_files: Sequence[Path]) -> Path:
    """A folder with two good images, a truncated one, a text that claims to be one, and a text that does not."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(digit_files[0], folder / "a-good.png")
    (folder / "b-cut.png").write_bytes(digit_files[1].read_bytes()[:60])
    (folder / "c-text.png").write_text("no image")
    (folder / "notes.txt").write_text("not looked at")
    (folder / "sub").mkdir()
    shutil.copy(digit_files[2], folder / "sub" / "d-good.png")
    return folder
