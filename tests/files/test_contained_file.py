"""`contained_file`: plain files inside a folder, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from samdeploy.errors import BundleError
from samdeploy.files import contained_file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """root/{a.bin, graphs/b.onnx, empty/} and outside.bin beside it."""
    folder = tmp_path / "root"
    (folder / "graphs").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "a.bin").write_bytes(b"a")
    (folder / "graphs" / "b.onnx").write_bytes(b"b")
    (tmp_path / "outside.bin").write_bytes(b"secret")
    return folder


@pytest.mark.parametrize("relative", ["a.bin", "graphs/b.onnx"])
def test_plain_files_inside_are_found(root: Path, relative: str) -> None:
    assert contained_file(root, relative, "bundle") == root / relative


def test_names_that_only_look_like_an_escape_are_allowed(root: Path) -> None:
    for name in ("..a", "a..", "...", "ä b"):
        (root / name).write_bytes(b"x")
        assert contained_file(root, name, "bundle") == root / name


@pytest.mark.parametrize(
    "relative",
    [
        *("../outside.bin", "graphs/../../outside.bin", "graphs/../a.bin", "..", "graphs/.."),
        *("/etc/passwd", "//etc/passwd", "/", "."),
        *("", "./a.bin", "graphs//b.onnx", "graphs/./b.onnx", "a.bin/", "graphs/"),
        *("graphs\\b.onnx", "..\\outside.bin", "C:\\a.bin", "a.bin\0", "a\0/../../outside.bin"),
    ],
)
def test_paths_that_leave_the_folder_or_are_not_plain(root: Path, relative: str) -> None:
    with pytest.raises(BundleError) as caught:
        contained_file(root, relative, "bundle")
    expected = f"bundle: path {relative!r} leaves the folder or is not plain; expected one like 'a/b.onnx'"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("relative", "text"),
    [
        ("missing.bin", "'missing.bin' is missing; the folder is incomplete; copy or export it again"),
        ("nowhere/b.onnx", "'nowhere/b.onnx' is missing"),
        ("a.bin/b.onnx", "'a.bin/b.onnx' is missing"),
        ("empty", "'empty' is not a plain file"),
        ("x" * 300, "cannot be read (File name too long)"),
    ],
)
def test_what_is_no_file(root: Path, relative: str, text: str) -> None:
    with pytest.raises(BundleError) as caught:
        contained_file(root, relative, "bundle")
    assert text in str(caught.value)


@pytest.mark.parametrize("target", ["outside", "inside", "nowhere", "itself"])
def test_a_symbolic_link_is_refused_wherever_it_leads(root: Path, target: str) -> None:
    targets = {"outside": "../outside.bin", "inside": "a.bin", "nowhere": "gone", "itself": "link.bin"}
    (root / "link.bin").symlink_to(targets[target])
    with pytest.raises(BundleError, match=r"'link\.bin' is a symbolic link or behind one; copy the bundle with cp -rL"):
        contained_file(root, "link.bin", "bundle")


def test_a_symbolic_link_to_a_folder_is_refused(root: Path) -> None:
    (root / "linked").symlink_to(root / "graphs")
    (root / "up").symlink_to("..")
    for relative in ("linked/b.onnx", "up/outside.bin", "up/root/a.bin"):
        with pytest.raises(BundleError, match="is a symbolic link or behind one"):
            contained_file(root, relative, "bundle")


def test_the_folder_itself_may_be_reached_through_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert contained_file(tmp_path / "link", "graphs/b.onnx", "bundle").read_bytes() == b"b"


def test_a_hard_link_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "hard.bin").hardlink_to(tmp_path / "outside.bin")
    with pytest.raises(BundleError, match=r"'hard\.bin' has 2 hard links; copy the folder without links"):
        contained_file(root, "hard.bin", "bundle")


def test_a_pipe_is_refused_without_waiting_for_a_writer(root: Path) -> None:
    os.mkfifo(root / "pipe.bin")
    code = (
        "import sys; from pathlib import Path; from samdeploy.files import contained_file\n"
        "try: contained_file(Path(sys.argv[1]), 'pipe.bin', 'bundle')\n"
        "except Exception as error: print(error)"
    )
    # In a child, because a test that waits for a pipe's writer never ends.
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "bundle: 'pipe.bin' is not a plain file\n"
