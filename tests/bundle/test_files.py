"""Paths that leave the bundle, files that are none, and content that was changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from samdeploy.bundle import open_bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.errors import BundleError
from tests.bundle.written import FILES, edit, refusal, to_symlink

ESCAPES = [
    *("../secret.bin", "graphs/../../secret.bin", "/etc/passwd", "graphs//fp32.onnx", "graphs/./fp32.onnx"),
    *("graphs\\fp32.onnx", "weights.safetensors\0", "", "."),
]


@pytest.mark.parametrize("path", ESCAPES)
def test_a_path_that_leaves_the_bundle(root: Path, path: str) -> None:
    (root.parent / "secret.bin").write_bytes(b"the weights")
    edit(root, lambda values: values["files"][0].update(path=path))
    assert refusal(root) == f"path {path!r} leaves the folder or is not plain; expected one like 'a/b.onnx'"


def to_hard_link(file: Path) -> None:
    file.with_suffix(".other").hardlink_to(file)


def to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def to_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def through_linked_folder(file: Path) -> None:
    file.parent.rename(file.parent.with_name("real"))
    file.parent.symlink_to("real")


DISGUISES: dict[str, tuple[Callable[[Path], object], str]] = {
    "symbolic link": (to_symlink, "is a symbolic link or behind one; copy the bundle with cp -rL"),
    "linked folder": (through_linked_folder, "is a symbolic link or behind one; copy the bundle with cp -rL"),
    "hard link": (to_hard_link, "has 2 hard links; copy the folder without links"),
    "folder": (to_folder, "is not a plain file"),
    "pipe": (to_pipe, "is not a plain file"),
    "missing": (Path.unlink, "is missing; the folder is incomplete; copy or export it again"),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_file_that_is_no_plain_file(root: Path, disguise: str) -> None:
    """Before opening the bundle, and also between opening it and reading the file."""
    before = open_bundle(root)
    change, text = DISGUISES[disguise]
    change(root / "graphs/fp32.onnx")
    assert refusal(root) == f"'graphs/fp32.onnx' {text}"
    with pytest.raises(BundleError) as caught:
        before.read(FILES[1])
    assert str(caught.value) == f"bundle {root}: 'graphs/fp32.onnx' {text}"


@pytest.mark.parametrize("disguise", ["symbolic link", "hard link", "folder", "pipe"])
def test_a_manifest_that_is_no_plain_file(root: Path, disguise: str) -> None:
    change, text = DISGUISES[disguise]
    change(root / MANIFEST)
    assert refusal(root) == f"'manifest.json' {text}"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            b"the gr",
            "has 6 bytes, the manifest states 9; the file was truncated or replaced; copy or export the bundle again",
        ),
        (
            b"the graph!",
            "has 10 bytes, the manifest states 9; the file was truncated or replaced; copy or export the bundle again",
        ),
        (
            b"",
            "has 0 bytes, the manifest states 9; the file was truncated or replaced; copy or export the bundle again",
        ),
        (
            b"the grapH",
            f"has SHA-256 {hashlib.sha256(b'the grapH').hexdigest()[:12]}..., the manifest states "
            f"{hashlib.sha256(b'the graph').hexdigest()[:12]}...; the file was changed; copy or export the bundle "
            "again",
        ),
    ],
)
def test_changed_content(root: Path, content: bytes, text: str) -> None:
    (root / "graphs/fp32.onnx").write_bytes(content)
    bundle = open_bundle(root)
    for read in (bundle.verify, lambda: bundle.read(FILES[1]), lambda: bundle.seal(FILES[1])):
        with pytest.raises(BundleError) as caught:
            read()
        assert str(caught.value) == f"bundle {root}: 'graphs/fp32.onnx' {text}"


def test_changed_hash(root: Path) -> None:
    edit(root, lambda values: values["files"][0].update(sha256="0" * 64))
    with pytest.raises(
        BundleError, match=r"'weights\.safetensors' has SHA-256 \w{12}\.\.\., the manifest states 0{12}"
    ):
        open_bundle(root).verify()
