"""One rule for images that cannot be read, in every command.

Where images stand each for itself (`predict`, `explain`), those that can be read are done, the others are named with
the reason, and the exit code is 1; it is 2 where not one could be read.  Where they stand together for a figure
(`train`, `eval`, `bench`), nothing is done without them: all are named, and the exit code is 2.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.bundle.names import MANIFEST
from samdeploy.predict import predict_paths
from tests.cli.typed import Inside, assert_one_line

# what is named -> what is said of it
REASONS = {
    "missing.jpg": "no such file",
    "zero.jpg": "the file is empty; expected an image",
    "cut.jpg": "damaged or truncated (",
    "text.jpg": "not an image that samdeploy reads",
    "folder.jpg": "no images in this folder (1 file skipped: 1 .txt)",
    "link.jpg": "no such file",
}


@pytest.fixture
def unreadable(tmp_path: Path) -> list[Path]:
    """One of each kind, in the order of `REASONS`."""
    folder = tmp_path / "unreadable"
    folder.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:2000])
    (folder / "zero.jpg").touch()
    (folder / "text.jpg").write_text("This is no image.")
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "notes.txt").touch()
    (folder / "link.jpg").symlink_to(folder / "nowhere.jpg")
    return [folder / name for name in REASONS]


def said(path: Path) -> str:
    return f"samdeploy: {path}: {REASONS[path.name]}"


def assert_said(errors: str, paths: Sequence[Path], of: int) -> None:
    """One line for each path, in their order; then how many of all images."""
    lines = errors.splitlines()[1:]  # the first says which bundle, runtime and precision
    assert len(lines) == len(paths) + 1, errors
    assert all(line.startswith(said(path)) for line, path in zip(lines, paths, strict=False)), errors
    assert lines[-1] == f"samdeploy: {len(paths)} of {of} images could not be read"


@pytest.mark.parametrize("name", ["predict", "explain", "explain --gates"])
def test_the_others_are_done(
    finished: Path, unreadable: list[Path], digit_files: Sequence[Path], inside: Inside, tmp_path: Path, name: str
) -> None:
    bundle, named = finished / "runs/digits/bundle", [unreadable[0], digit_files[3], *unreadable[1:]]
    code, output, errors = inside(*name.split(), bundle, *named, "--top", "1", cwd=tmp_path)
    assert code == 1
    assert_said(errors, unreadable, len(named))
    assert len([line for line in output.splitlines() if line.startswith(f"{digit_files[3]}: 3 ")]) == (
        0 if "--gates" in name else 1
    )
    assert "gates of 1 image:" in output or "--gates" not in name
    assert (tmp_path / "explain").exists() == (name != "predict")


@pytest.mark.parametrize("name", ["predict", "explain", "explain --gates"])
def test_where_not_one_can_be_read_the_input_is_wrong(
    finished: Path, unreadable: list[Path], inside: Inside, tmp_path: Path, name: str
) -> None:
    bundle = finished / "runs/digits/bundle"
    code, output, errors = inside(*name.split(), bundle, *unreadable, cwd=tmp_path)
    assert (code, output) == (2, "")
    assert_said(errors, unreadable, len(unreadable))
    assert not (tmp_path / "explain").exists()


@pytest.mark.parametrize("kind", REASONS)
def test_a_image_alone(finished: Path, unreadable: list[Path], inside: Inside, kind: str) -> None:
    path = next(path for path in unreadable if path.name == kind)
    code, output, errors = inside("predict", "runs/digits/bundle", path, "--json", cwd=finished)
    assert code == 2
    if kind == "folder.jpg":  # known before an engine is opened
        assert_one_line(errors, said(path).removeprefix("samdeploy: "))
        assert output == ""
    else:
        assert_said(errors, [path], 1)
        answer = json.loads(output)
        assert (list(answer), answer["image"]) == (["image", "error"], str(path))
        assert f"samdeploy: {answer['error']}".startswith(said(path))


def test_what_is_measured_must_be_readable(finished: Path, unreadable: list[Path], inside: Inside) -> None:
    folder = unreadable[0].parent
    code, output, errors = inside("bench", "runs/digits/bundle", "--images", folder, cwd=finished)
    assert (code, output) == (2, "")
    assert_one_line(errors, "--images: 4 of 4 cannot be read: ")
    for path in unreadable:  # what is missing, and a folder of nothing, is not in the folder
        assert (said(path).removeprefix("samdeploy: ") in errors) == (path.name not in ("missing.jpg", "folder.jpg"))


@pytest.fixture
def examples(tmp_path: Path, unreadable: list[Path]) -> Path:
    """A data set of ten classes with a test folder, in which four images cannot be read."""
    root = tmp_path / "images"
    for part in ("train", "val", "test"):
        for label in range(10):
            (root / part / str(label)).mkdir(parents=True)
            for number in range(2):
                Image.new("L", (8, 8), 10 * label + number).save(root / part / str(label) / f"{part}-{number}.png")
    for path in unreadable:
        if path.name not in ("missing.jpg", "folder.jpg"):
            shutil.copy(path, root / "test" / "7" / path.name, follow_symlinks=False)
    return root


def assert_all_are_named(errors: str, part: Path) -> None:
    assert "4 of 24 images cannot be read; " in errors
    for name in ("cut.jpg", "link.jpg", "text.jpg", "zero.jpg"):
        assert f"\n    {part / name}: {REASONS[name]}" in errors


def test_training_needs_every_image(examples: Path, inside: Inside, tmp_path: Path) -> None:
    settings = ("model.pretrained=false", "model.arch=sam-resnet18", "image.height=16", "image.width=16")
    arguments = [part for setting in settings for part in ("--set", setting)]
    code, output, errors = inside("train", "folder", "--data", examples, *arguments, "--no-cache", cwd=tmp_path)
    assert (code, output) == (2, "")
    assert_all_are_named(errors, examples / "test" / "7")


def test_evaluation_needs_every_image(examples: Path, inside: Inside, copy_of_bundle: Path) -> None:
    manifest = json.loads((copy_of_bundle / MANIFEST).read_text())
    manifest["data"].update(name="folder", options={}, fingerprints={})
    (copy_of_bundle / MANIFEST).write_text(json.dumps(manifest))
    code, output, errors = inside("eval", copy_of_bundle, "--data", examples, cwd=copy_of_bundle)
    assert (code, output) == (2, "")
    assert_all_are_named(errors, examples / "test" / "7")
    assert not (copy_of_bundle / "eval.json").exists()


def test_addresses_and_standard_input_are_named(finished: Path, inside: Inside) -> None:
    code, _, errors = inside("predict", "runs/digits/bundle", "https://example.org/z.jpg", "-", cwd=finished)
    assert code == 2
    assert "z.jpg: addresses are not fetched; download the image and name the file\n" in errors
    assert "samdeploy: -: standard input is not read; name a file\n" in errors


def test_maps_that_cannot_be_written_name_the_option(
    finished: Path, digit_files: Sequence[Path], inside: Inside
) -> None:
    code, _, errors = inside("explain", finished / "runs/digits/bundle", digit_files[0], cwd=Path("/proc"))
    assert code == 2
    assert errors.endswith("; name another folder: --out DIR\n")


def test_a_pipe_is_refused_and_not_waited_for(
    finished: Path, digit_files: Sequence[Path], tmp_path: Path, inside: Inside
) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    code, output, errors = inside("predict", "runs/digits/bundle", tmp_path / "pipe.jpg", digit_files[0], cwd=finished)
    assert (code, len(output.splitlines())) == (1, 1)
    assert f"samdeploy: {tmp_path / 'pipe.jpg'}: is no plain file, an image was expected\n" in errors


def test_names_that_no_file_can_have_stop_no_other(
    finished: Path, digit_files: Sequence[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["nul\0.jpg", "x" * 300, "y/" * 3000 + "z.jpg", "\ud800.jpg"]
    paths = [finished / "runs/digits/bundle", digit_files[0], *map(Path, names)]
    assert not predict_paths(paths, Path(), top=1, backend="auto", precision=None, device="cpu", as_json=False)
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1
    assert said.err.endswith("samdeploy: 4 of 5 images could not be read\n")


def test_names_that_are_not_printable_make_no_lines_of_their_own(
    finished: Path, digit_files: Sequence[Path], tmp_path: Path, inside: Inside
) -> None:
    for name in (b"new\nline.png", b"\x1b[31mred.png", b"no-utf8-\xff.png"):
        shutil.copy(digit_files[0], os.path.join(os.fsencode(tmp_path), name))  # noqa: PTH118 - a name in bytes
    (tmp_path / "cut\n.png").write_bytes(b"")
    for command in ("predict", "explain"):
        code, output, errors = inside(command, "runs/digits/bundle", tmp_path, "--top", "1", cwd=finished)
        assert code == 1
        names = [line.removeprefix(f"{tmp_path}/").split(": ")[0] for line in output.splitlines()[:3]]
        assert names == [r"\x1b[31mred.png", r"new\nline.png", r"no-utf8-\xff.png"]
        assert f"samdeploy: {tmp_path}/cut\\n.png: the file is empty; expected an image\n" in errors
    _, output, _ = inside("predict", "runs/digits/bundle", tmp_path, "--json", cwd=finished)
    found = [json.loads(line)["image"].removeprefix(f"{tmp_path}/") for line in output.splitlines()]
    assert found == ["\x1b[31mred.png", "cut\n.png", "new\nline.png", "no-utf8-\ufffd.png"]
