"""A bundle is replaced as a whole or not at all, whatever ends the process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from samdeploy.errors import InputError
from samdeploy.export import stage
from samdeploy.export.stage import staged

# Fills a stage and kills itself: in the block, right after the names changed places, or, where a file system cannot do
# that, between the two renames.
KILLED = """
import errno, os, pathlib, signal, sys
from samdeploy.export import stage

target, moment = pathlib.Path(sys.argv[1]), sys.argv[2]
exchange, rename = stage._exchange, pathlib.Path.rename

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def no_exchange(one, other):
    raise OSError(errno.EINVAL, "Invalid argument")

if moment == "after the exchange":
    stage._exchange = lambda one, other: (exchange(one, other), die())
if moment == "between renames":
    stage._exchange = no_exchange
    pathlib.Path.rename = lambda self, other: (rename(self, other), die())
with stage.staged(target) as folder:
    (folder / "content").write_text("new")
    if moment == "in the block":
        die()
"""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    target = tmp_path / "run" / "bundle"
    target.mkdir(parents=True)
    (target / "content").write_text("old")
    return target


def fill(target: Path, text: str) -> None:
    with staged(target) as folder:
        (folder / "content").write_text(text)


def alone(target: Path) -> str:
    """The content of `target`, beside which nothing may lie."""
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    return (target / "content").read_text()


def no_exchange(*_: object) -> None:
    raise OSError(errno.EINVAL, "Invalid argument")


@pytest.mark.parametrize("exchanges", [True, False])
def test_the_new_takes_the_place_of_the_old(
    target: Path, exchanges: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not exchanges:
        monkeypatch.setattr(stage, "_exchange", no_exchange)
    (target / "README.md").touch()
    fill(target, "new")
    assert capsys.readouterr().err == f"gone with the earlier {target.name}: 'README.md'\n"
    assert alone(target) == "new"
    assert target.stat().st_mode & 0o777 == 0o755


def test_the_first_has_nothing_to_replace(target: Path) -> None:
    first = target.with_name("first")
    fill(first, "new")
    assert (first / "content").read_text() == "new"


def test_names_really_change_places_here(tmp_path: Path) -> None:
    """Else every test of this file would see the way for other file systems only."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    stage._exchange(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "one" / "other").exists()
    assert (tmp_path / "other" / "one").exists()
    with pytest.raises(FileNotFoundError):
        stage._exchange(tmp_path / "one", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("moment", "content"), [("in the block", "old"), ("after the exchange", "new"), ("between renames", None)]
)
def test_killed(target: Path, moment: str, content: str | None) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(target), moment], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(list(target.parent.glob(".bundle-*"))) >= 1  # what the next one removes
    if content is None:  # the one moment without a bundle, on a file system that exchanges no names
        assert not target.exists()
        with pytest.raises(KeyboardInterrupt), staged(target):
            raise KeyboardInterrupt  # even one that comes to nothing puts it back
        assert alone(target) == "old"
    else:
        assert (target / "content").read_text() == content
    fill(target, "third")
    assert alone(target) == "third"


@pytest.mark.parametrize("at", [1, 2])
def test_interrupted_between_renames(target: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old folder moves away, then the new one into its place: whatever happens, one of them stands there."""
    renames, rename = 0, Path.rename

    def interrupted(self: Path, other: Path) -> Path:
        nonlocal renames
        renames += 1
        if renames == at:
            raise KeyboardInterrupt
        return rename(self, other)

    monkeypatch.setattr(stage, "_exchange", no_exchange)
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill(target, "new")
    assert alone(target) == "old"


def test_an_error_of_the_disk_leaves_the_old(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stage, "_exchange", full)
    with pytest.raises(OSError, match="No space left"):
        fill(target, "new")
    assert alone(target) == "old"


def test_two_at_once(target: Path) -> None:
    """The second would remove what the first is writing, and not see the engines that it makes."""
    with staged(target) as folder:
        (folder / "content").write_text("first")
        with pytest.raises(InputError) as caught:
            fill(target, "second")
        assert str(caught.value) == (
            f"run {target.parent}: another export is writing its bundle; wait for its end, then repeat this"
        )
    assert alone(target) == "first"
    fill(target, "second")
    assert alone(target) == "second"
