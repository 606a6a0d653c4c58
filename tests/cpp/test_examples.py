"""The examples that classify images: they answer as `predict` does, and fail as it does."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from samdeploy import Classifier
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.names import MANIFEST
from tests.conftest import Command
from tests.cpp import corpus
from tests.cpp.build import Build, run

pytestmark = pytest.mark.slow


def test_the_lines_of_predict(
    built: Build, command: Command, digits_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path
) -> None:
    """The same bytes, but for what each decoder says in its own words, which stands in brackets."""
    (tmp_path / 'no"image.png').write_text("text")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "cut.jpg").write_bytes(corpus.jpeg(Image.fromarray(corpus.pixels(40, 50)))[:-200])
    (tmp_path / "cut.png").write_bytes(corpus.png(40, 30, 8, 2, seed=1)[:-60])
    odd = [tmp_path / "Löwe\t\x7f.jpg", tmp_path / os.fsdecode(b"L\xf6we\b.jpg")]
    for path in odd:
        path.write_bytes(corpus.jpeg(Image.fromarray(corpus.pixels(70, 50)), quality=80))
    many = [tmp_path / f"{index}.png" for index in range(40)]  # more than one group
    for index, path in enumerate(many):
        path.write_bytes(corpus.png(9 + index, 30, 8, 2, seed=index))
    many.append(corpus.too_far_off(tmp_path))
    damaged = [tmp_path / name for name in ('no"image.png', "cut.jpg", "cut.png", "empty.jpg", "none.png")]
    arguments = ("--backend", "openvino", "--json")
    for code, files in ((1, [*digit_files, *damaged, *odd, *many]), (2, damaged)):
        found = run(built.classify, digits_bundle.root, *files)
        expected = command("predict", *arguments, digits_bundle.root, *files, cwd=tmp_path)
        assert (found.returncode, expected.returncode) == (code, code), found.stderr
        assert without_details(found.stdout) == without_details(expected.stdout)
        assert len(found.stdout.splitlines()) == len(files)
        assert ("of 10 logits are not finite numbers" in found.stderr) == (files is not damaged)
        # Behind the line that says which bundle, runtime and precision.
        said = "".join(expected.stderr.splitlines(keepends=True)[1:])
        assert without_details(found.stderr).replace("samdeploy-classify: ", "samdeploy: ") == without_details(said)
    sound = run(built.classify, digits_bundle.root, *digit_files)
    assert sound.returncode == 0
    assert [json.loads(line)["label"] for line in sound.stdout.splitlines()] == ["0", "1", "2", "3", "4"]


def test_a_network_of_another_family(
    built: Build, command: Command, timm_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path
) -> None:
    found = run(built.classify, timm_bundle.root, *digit_files)
    arguments = ("--backend", "openvino", "--json", timm_bundle.root, *digit_files)
    expected = command("predict", *arguments, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (0, expected.stdout), found.stderr


def without_details(text: str) -> str:
    """What Python and C++ say alike of an image that cannot be read."""
    text = re.sub(r"damaged or truncated \(.+\); expected", "damaged or truncated (...); expected", text)
    return re.sub(r"expected JPEG(, PNG, .+| or PNG); convert it first", "...", text)


def test_golden_images_have_the_same_probabilities_and_are_rejected_alike(
    built: Build, copy_of_bundle: Path, tmp_path: Path
) -> None:
    values = json.loads((copy_of_bundle / MANIFEST).read_text())
    sound = {"wanted_error": 2, "bound": 1.5, "coverage": 80, "images": 300}
    values["calibration"]["temperature"] = 1.7
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{index}.png" for index in range(8)]
    for path, image in zip(paths, open_bundle(copy_of_bundle).golden()[0], strict=False):
        Image.fromarray(image).save(path)
    rejected = []
    for threshold in (0.0, 0.8, 1.0):
        values["rejection"] = {"threshold": threshold, **sound}
        (copy_of_bundle / MANIFEST).write_text(json.dumps(values))
        with Classifier.open(copy_of_bundle, "openvino") as classifier:
            answers = classifier.stream(paths, batch=len(paths))
            expected = [{"image": str(path), **one.to_json()} for path, one in zip(paths, answers, strict=True)]
        lines = run(built.classify, copy_of_bundle, *paths).stdout.splitlines()
        assert list(map(json.loads, lines)) == expected
        refused = {one["image"] for one in expected if one["rejected"]}
        told = run(built.worker, copy_of_bundle, tmp_path / "images").stdout.splitlines()
        assert {line.split("\t")[0] for line in told if line.endswith("\trejected")} == refused
        one = run(built.classify_c, copy_of_bundle, paths[0]).stdout
        assert one.endswith(" rejected\n") == (str(paths[0]) in refused)
        rejected.append(len(refused))
    assert rejected[0] == 0 < rejected[1] < rejected[2] == 8


def test_the_error_of_a_name_that_is_no_text_is_json(built: Build, digits_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"L\xf6we.png")).write_text("text")
    script = 'exec "$0" "$@" 2>/dev/null'
    done = run("sh", "-c", script, built.classify, digits_bundle.root, *tmp_path.iterdir())
    assert json.loads(done.stdout)["error"].startswith(f"{tmp_path}/L\ufffdwe.png: not an image")


def test_an_option_is_no_image(built: Build, digits_bundle: Bundle) -> None:
    for arguments in (("--backend", digits_bundle.root, "a.png"), (digits_bundle.root, "--json", "a.png")):
        done = run(built.classify, *arguments)
        (option,) = [str(word) for word in arguments if str(word).startswith("--")]
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"samdeploy-classify: unknown option {option}; a file of that name: ./{option}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
def test_a_full_disk_and_a_closed_stdout_are_told(
    built: Build, digits_bundle: Bundle, digit_files: Sequence[Path]
) -> None:
    """The line of Python's command line; what was printed is lost, so the exit code says so."""
    image, folder = digit_files[0], digit_files[0].parent
    cases = [
        ("samdeploy-classify", 2, [built.classify, digits_bundle.root, image]),
        ("samdeploy-classify", 2, [built.classify, "--help"]),
        ("samdeploy-worker", 2, [built.worker, digits_bundle.root, folder]),
        ("samdeploy-worker", 2, [built.worker, digits_bundle.root, folder, "--json"]),
        ("classify", 1, [built.classify_c, digits_bundle.root, image]),
    ]
    for name, code, command in cases:
        full = run("sh", "-c", 'exec "$0" "$@" >/dev/full', *command)
        closed = run("sh", "-c", 'exec "$0" "$@" >&-', *command)
        assert (full.returncode, closed.returncode) == (code, code), (full.stderr, closed.stderr)
        assert full.stderr.startswith(f"{name}: output: No space left on device")
        assert closed.stderr.startswith(f"{name}: output: Bad file descriptor")
        assert full.stderr.count("\n") == closed.stderr.count("\n") == 1
        if name != "classify":
            assert full.stderr.endswith(" device; free some space, or name another place\n")


def test_help_is_no_error(built: Build) -> None:
    for program in (built.classify, built.worker):
        for word in ("--help", "-h"):
            done = run(program, word)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith(f"usage: {program.name} BUNDLE ")
            assert "Exit code: 0; 1 if an image could not be read" in done.stdout


def test_the_feeder_of_device_memory_compiles_and_says_what_is_missing(
    built: Build, digits_bundle: Bundle, digit_files: Sequence[Path]
) -> None:
    if not built.cuda_feeder.exists():
        pytest.skip(
            "CUDA's headers or its runtime library were not found; pip install nvidia-cuda-runtime nvidia-cuda-crt"
        )
    done = run(built.cuda_feeder, digits_bundle.root, digit_files[0])
    if done.returncode == 0:  # a machine with a GPU, TensorRT, and an engine for it
        assert done.stdout.startswith("0 ")
    else:
        assert re.match(r"cuda-feeder: .*(TensorRT|CUDA)", done.stderr)


def test_the_program_in_c(built: Build, digits_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path) -> None:
    done = run(built.classify_c, digits_bundle.root, digit_files[3])
    assert re.fullmatch(r"3 (0\.\d{4}|1\.0000)\n", done.stdout), done.stderr
    done = run(built.classify_c, digits_bundle.root, tmp_path / "none.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"classify: {tmp_path / 'none.png'}: no such file\n"
