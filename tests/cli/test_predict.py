"""`samdeploy predict`: answers, as lines and as JSON."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from samdeploy.bundle import Bundle
from samdeploy.bundle.names import MANIFEST
from tests.cli.typed import Inside
from tests.conftest import Command


def test_predict_goes_on_after_a_broken_image(finished: Path, mixed: Path, inside: Inside) -> None:
    code, output, errors = inside("predict", mixed, mixed / "missing.png", "--top", "1", cwd=finished)
    assert code == 1
    answers = [line.split(": ") for line in output.splitlines()]
    assert [path for path, _ in answers] == [str(mixed / "a-good.png"), str(mixed / "sub" / "d-good.png")]
    assert [answer.split()[0] for _, answer in answers] == ["0", "2"]  # the digits that they are
    skipped, *lines = errors.splitlines()
    assert skipped == f"{mixed}: 1 file skipped: 1 .txt"
    assert lines[1].startswith(f"samdeploy: {mixed / 'b-cut.png'}: damaged or truncated")
    assert lines[2].startswith(f"samdeploy: {mixed / 'c-text.png'}: not an image")
    assert lines[3] == f"samdeploy: {mixed / 'missing.png'}: no such file"
    assert lines[4] == "samdeploy: 3 of 5 images could not be read"
    assert len(lines) == 5


def test_predict_as_json(finished: Path, mixed: Path, inside: Inside) -> None:
    code, output, _ = inside("predict", "runs/digits/bundle", mixed, "--json", "--top", "3", cwd=finished)
    assert code == 1
    first, cut, text, last = map(json.loads, output.splitlines())
    assert first["image"] == str(mixed / "a-good.png")
    assert (first["label"], first["index"], len(first["top"])) == ("0", 0, 3)
    assert first["top"][0] == {"label": "0", "probability": first["probability"]}
    assert 0.5 < first["probability"] <= 1
    assert list(cut) == list(text) == ["image", "error"]
    assert "damaged or truncated" in cut["error"]
    assert last["label"] == "2"


def test_predict_names_rejected_answers(finished: Path, digit_files: Sequence[Path], inside: Inside) -> None:
    shutil.copytree(finished / "runs/digits/bundle", finished / "unsure")
    values = json.loads((finished / "unsure" / MANIFEST).read_text())
    values["rejection"] = {"threshold": 1, "wanted_error": 2, "bound": 1, "coverage": 50, "images": 300}
    (finished / "unsure" / MANIFEST).write_text(json.dumps(values))
    _, output, _ = inside("predict", "unsure", digit_files[0], cwd=finished)
    assert output.startswith(f"{digit_files[0]}: rejected: 0 ")
    _, output, _ = inside("predict", "unsure", digit_files[0], "--json", cwd=finished)
    assert json.loads(output)["rejected"] is True


def test_a_reader_that_has_seen_enough(
    finished: Path, digit_files: Sequence[Path], environment: dict[str, str]
) -> None:
    line = [sys.executable, "-m", "samdeploy.cli", "predict", *map(str, digit_files), "--json"]
    process = subprocess.Popen(line, cwd=finished, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    process.stdout.close()  # as `| head -0` does
    errors = process.stderr.read().decode()
    assert process.wait(timeout=120) == 128 + signal.SIGPIPE
    assert len(errors.splitlines()) == 1, errors  # the bundle and the engine, and not a word of Python's


def test_without_a_standard_output(finished: Path, digit_files: Sequence[Path], environment: dict[str, str]) -> None:
    line = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "samdeploy.cli", "predict", str(digit_files[0])]
    done = subprocess.run(
        line, cwd=finished, env=environment, stderr=subprocess.PIPE, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "standard output is closed, redirect it: >/dev/null" in done.stderr


@pytest.mark.parametrize("backend", ["pytorch", "onnxruntime", "openvino"])
def test_predict_with_each_backend(finished: Path, digit_files: Sequence[Path], inside: Inside, backend: str) -> None:
    code, output, errors = inside(
        "predict", "runs/digits/bundle", *digit_files, "--backend", backend, "--device", "cpu", "--top", "1",
        cwd=finished,
    )  # fmt: skip
    assert code == 0, errors
    assert errors == f"runs/digits/bundle: {backend}, fp32, cpu\n"
    named = [line.split(": ")[1].split()[0] for line in output.splitlines()]
    assert named == [path.name[0] for path in digit_files]


def test_a_image_called_like_a_file_that_is_no_bundle_is_a_image(
    finished: Path, digit_files: Sequence[Path], inside: Inside
) -> None:
    code, output, _ = inside("predict", digit_files[3], digit_files[4], "--top", "1", cwd=finished)
    assert (code, len(output.splitlines())) == (0, 2)


def test_a_run_stands_for_its_bundle(finished: Path, digit_files: Sequence[Path], inside: Inside) -> None:
    for arguments in (("predict", "runs/digits", digit_files[0]), ("explain", "runs/digits", digit_files[0])):
        code, _, errors = inside(*arguments, cwd=finished)
        assert code == 0, errors
        assert errors.startswith("runs/digits/bundle: ")
    code, output, _ = inside("doctor", "runs/digits", cwd=finished)
    assert code == 0
    assert re.search(r"^bundle +runs/digits/bundle$", output, re.MULTILINE)
    code, _, errors = inside("bench", "runs/digits", "--backend", "onnxruntime", "--seconds", "0.05", cwd=finished)
    assert code == 0, errors


def test_a_run_without_a_bundle(finished: Path, digit_files: Sequence[Path], inside: Inside, tmp_path: Path) -> None:
    shutil.copy(finished / "runs" / "digits" / "run.json", tmp_path)
    for name in ("predict", "eval"):
        examples = digit_files[:1] if name == "predict" else ()
        code, _, errors = inside(name, tmp_path, *examples, cwd=finished)
        assert code == 2
        assert f"is a run that has no bundle yet; make it: samdeploy export {tmp_path}" in errors


def test_remarks_of_pillow_are_not_ours(command: Command, digits_bundle: Bundle, tmp_path: Path) -> None:
    """Half of Pillow's own limit on pixels brings a warning with its file and line."""
    Image.new("1", (10_000, 9_000)).save(tmp_path / "large.png")
    done = command("predict", digits_bundle.root, "large.png", cwd=tmp_path)
    assert done.returncode == 0 and "large.png: " in done.stdout
    assert "Warning" not in done.stderr


def test_class_names_cannot_steer_the_terminal(
    copy_of_bundle: Path, digit_files: Sequence[Path], inside: Inside
) -> None:
    manifest = json.loads((copy_of_bundle / MANIFEST).read_text())
    manifest["model"]["classes"][0] = "cat\u202egpj\x1b[31m\nforged: dog"
    (copy_of_bundle / MANIFEST).write_text(json.dumps(manifest))
    for command in ("predict", "explain"):
        code, output, errors = inside(command, copy_of_bundle, digit_files[0], "--top", "1", cwd=copy_of_bundle.parent)
        assert code == 0, errors
        assert output.startswith(rf"{digit_files[0]}: cat\u202egpj\x1b[31m\nforged: dog ")
    _, output, _ = inside("predict", copy_of_bundle, digit_files[0], "--json", cwd=copy_of_bundle.parent)
    assert json.loads(output)["label"] == manifest["model"]["classes"][0]
