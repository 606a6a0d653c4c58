"""One walk finds the images for every command: each entry is used, counted or named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from samdeploy.images.walk import Found, find_images, natural_key

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make("cat/1.png", "notes.txt")`: a folder with these empty files."""

    def write(*names: str) -> Path:
        root = tmp_path / "root"
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        return root

    return write


def below(root: Path, found: Found) -> list[str]:
    return [path.relative_to(root).as_posix() for path in found.images]


def problems(found: Found) -> str:
    return "; ".join(map(str, found.problems))


def test_order_is_natural() -> None:
    names = ["b", "a10", "A2", "a2", "a", "10", "9", "a2b", "a²"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "A2", "a2", "a2b", "a10", "a²", "b"]


def test_suffixes_of_any_case_are_images_and_the_others_are_counted(make: Make) -> None:
    images = ["10.JPG", "2.jpe", "3.jfif", "4.avif", "6.TIF", "7.Tiff", "a/deep/b.png/8.webp"]
    root = make(*images, "1.txt", "2.txt", "3.HEIC", "5.jp2", "no-suffix", "a.name that is no suffix")
    found = find_images(root)
    assert below(root, found) == sorted(images, key=natural_key)
    assert found.notes() == [
        "6 files skipped: 2 .txt, 2 without suffix, 1 .heic, 1 .jp2; "
        "convert .heic, .jp2 to PNG or JPEG to use those images"
    ]


@pytest.mark.parametrize(
    "system",
    [
        *("@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg", "#recycle/1.png", "__MACOSX/1.png", "lost+found/1.png", ".git/1.png"),
        *(".ipynb_checkpoints/1.png", "._1.png", ".DS_Store", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN/1.png"),
        *("System Volume Information/1.png", ".Trash-1000/1.png", "LOST+FOUND/1.png"),
    ],
)
def test_system_entries_are_skipped_at_every_depth_and_counted(make: Make, system: str) -> None:
    root = make("1.png", "cat/2.png", system, f"cat/{system}")
    found = find_images(root)
    assert below(root, found) == ["1.png", "cat/2.png"]
    top = "._*" if system.startswith("._") else system.split("/")[0]
    assert found.notes() == [f"2 hidden or system entries skipped: 2 {top}"]


def test_links_are_followed_once(make: Make, tmp_path: Path) -> None:
    root = make("cat/1.png", "cat/deep/2.png")
    (tmp_path / "store/more").mkdir(parents=True)
    (tmp_path / "store/3.png").touch()
    (root / "cat/up").symlink_to(root)
    (root / "cat/above").symlink_to(tmp_path)
    (root / "a").symlink_to(root / "cat")  # sorted first, but the images keep their own path
    (root / "store").symlink_to(tmp_path / "store")
    (root / "store 2").symlink_to(tmp_path / "store")
    (tmp_path / "store/more/back").symlink_to(tmp_path / "store")
    (root / "4.png").symlink_to(tmp_path / "store/3.png")
    found = find_images(root)
    assert below(root, found) == ["4.png", "cat/1.png", "cat/deep/2.png", "store/3.png"]
    assert sorted(path.relative_to(root).as_posix() for path in found.repeated) == [
        *("a", "cat/above", "cat/up", "store 2", "store/more/back")
    ]
    assert found.problems == []


def test_dangling_links_are_named(make: Make) -> None:
    root = make("1.png")
    (root / "2.png").symlink_to(root / "gone.png")  # among the images: whoever reads it says why it cannot
    (root / "bird").symlink_to("/no/such/drive")
    (root / "loop").symlink_to(root / "loop")
    found = find_images(root)
    assert below(root, found) == ["1.png", "2.png"]
    assert problems(found) == (
        f"{root}/bird: this link cannot be followed (No such file or directory); "
        f"{root}/loop: this link cannot be followed (Too many levels of symbolic links)"
    )


def test_a_folder_that_cannot_be_read_is_named(make: Make) -> None:
    root = make("1.png")
    here = os.open(root, os.O_RDONLY)
    for _ in range(30):  # a path longer than the system takes
        os.mkdir("d" * 200, dir_fd=here)
        below_it = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below_it
    os.close(here)
    found = find_images(root)
    assert below(root, found) == ["1.png"]
    assert problems(found).endswith("dd: this folder cannot be read (File name too long)")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_without_permission_is_named(make: Make) -> None:
    root = make("1.png", "closed/2.png")
    (root / "closed").chmod(0)
    try:
        assert problems(find_images(root)) == f"{root}/closed: this folder cannot be read (Permission denied)"
    finally:
        (root / "closed").chmod(0o700)


def test_any_name_is_found(make: Make) -> None:
    names = ["new\nline.png", os.fsdecode(b"no-utf8-\xff.png"), "x" * 250 + ".png", "\u202e.png", " .png"]
    root = make(*names)
    assert sorted(below(root, find_images(root))) == sorted(names)


def test_one_folder_is_left_out(make: Make) -> None:
    root = make("1.png", "maps/2.png")
    assert below(root, find_images(root, leave_out=root / "maps")) == ["1.png"]
