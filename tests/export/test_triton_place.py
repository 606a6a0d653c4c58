"""`export --triton` replaces its own exports and deletes nothing else."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from samdeploy.bundle import Bundle, open_bundle
from samdeploy.errors import InputError
from samdeploy.export.triton.repository import write_repository
from tests.conftest import Command


def write(bundle: Bundle, repository: Path) -> list[str]:
    return write_repository(bundle, repository, "digits", "onnxruntime", "fp32")


def files(folder: Path) -> dict[str, str]:
    """Every file and link below it, with its SHA-256 or its target."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture
def run(digits_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the run, called as its models would be."""
    return Path(shutil.copytree(digits_bundle.root.parent, tmp_path / "runs" / "digits"))


def test_an_earlier_export_is_replaced(digits_bundle: Bundle, tmp_path: Path) -> None:
    other = tmp_path / "other" / "config.pbtxt"
    other.parent.mkdir()
    other.write_text("name: 'other'\n")
    models = write(digits_bundle, tmp_path)
    first = files(tmp_path)
    (tmp_path / "digits_python" / "1" / "__pycache__").mkdir()
    (tmp_path / "digits_python" / "1" / "__pycache__" / "model.cpython-312.pyc").write_bytes(b"of Triton")
    assert write(digits_bundle, tmp_path) == models
    assert files(tmp_path) == first
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*models, "other"])


@pytest.mark.parametrize(("first", "second"), [("n1", "n1_decode"), ("n1_decode", "n1")])
def test_a_model_of_another_bundle_is_not_replaced(
    first: str, second: str, digits_bundle: Bundle, tmp_path: Path
) -> None:
    write_repository(digits_bundle, tmp_path, first, "onnxruntime", "fp32")
    before = files(tmp_path)
    with pytest.raises(InputError, match="n1_decode is a model of another bundle; name another folder, or rename"):
        write_repository(digits_bundle, tmp_path, second, "onnxruntime", "fp32")
    assert files(tmp_path) == before


def edit_config(model: Path) -> None:
    config = model / "config.pbtxt"
    config.write_text(config.read_text().replace("max_batch_size: 16", "max_batch_size: 4"))


def append_to_config(model: Path) -> None:
    with (model / "config.pbtxt").open("a") as file:
        file.write("# mine\n")


def remove_last_line(model: Path) -> None:
    config = model / "config.pbtxt"
    config.write_text("".join(config.read_text().splitlines(keepends=True)[:-1]))


def edit_labels(model: Path) -> None:
    (model / "labels.txt").write_text("nought\n")


def add_a_version(model: Path) -> None:
    (model / "2").mkdir()
    (model / "2" / "model.onnx").write_bytes(b"mine")


def remove_config(model: Path) -> None:
    (model / "config.pbtxt").unlink()


def link_a_file(model: Path) -> None:
    (model / "labels.txt").rename(model.parent / "labels.txt")
    (model / "labels.txt").symlink_to(model.parent / "labels.txt")


def link_the_model(model: Path) -> None:
    model.rename(model.parent / "elsewhere")
    model.symlink_to(model.parent / "elsewhere")


def put_a_file(model: Path) -> None:
    shutil.rmtree(model)
    model.write_bytes(b"mine")


@pytest.mark.parametrize(
    "change",
    [
        edit_config,
        append_to_config,
        remove_last_line,
        edit_labels,
        add_a_version,
        remove_config,
        link_a_file,
        link_the_model,
        put_a_file,
    ],
)
def test_a_changed_model_is_not_replaced(change: Callable[[Path], None], digits_bundle: Bundle, tmp_path: Path) -> None:
    write(digits_bundle, tmp_path)
    change(tmp_path / "digits")
    before = files(tmp_path)
    with pytest.raises(InputError, match=r"samdeploy did not export .*digits, or it was changed since"):
        write(digits_bundle, tmp_path)
    assert files(tmp_path) == before


def test_a_run_is_not_replaced_by_its_model(run: Path, command: Command, tmp_path: Path) -> None:
    before = files(run)
    for source in (run, run / "bundle"):
        done = command("export", source, "--triton", run.parent, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"--triton: samdeploy did not export {run}, or" in done.stderr
    assert files(run) == before
    assert list(run.parent.iterdir()) == [run]


@pytest.mark.parametrize("inside", ["", "bundle", "bundle/golden", "new/models"])
def test_a_run_or_bundle_is_no_repository(inside: str, run: Path) -> None:
    before = files(run)
    with pytest.raises(InputError, match="is, or lies in, a run or a bundle; name a folder outside of it"):
        write(open_bundle(run / "bundle"), run / inside)
    assert files(run) == before
    assert not (run / "new").exists()


def test_another_bundle_is_no_repository(digits_bundle: Bundle, run: Path) -> None:
    before = files(run)
    with pytest.raises(InputError, match="is, or lies in, a run or a bundle"):
        write(digits_bundle, run / "bundle")
    assert files(run) == before


def test_a_file_is_no_repository(digits_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"--triton: .*file is a file; name a folder"):
        write(digits_bundle, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_failed_exchange_leaves_the_earlier_export(
    digits_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(digits_bundle, tmp_path)
    before = files(tmp_path)
    rename = Path.rename

    def fails_once(path: Path, target: Path) -> Path:
        if path.name == "digits_images":  # the third model, and its earlier export
            renamed.append(path)
            if len(renamed) == 2:
                raise OSError(28, "No space left on device")
        return rename(path, target)

    renamed: list[Path] = []
    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(OSError, match="No space left"):
        write_repository(digits_bundle, tmp_path, "digits", "openvino", "fp32")
    assert files(tmp_path) == before
