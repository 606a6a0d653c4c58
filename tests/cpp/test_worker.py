"""The example that keeps a machine busy: a folder of images or a camera's frames, several threads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.bundle import Bundle
from tests.cpp import corpus
from tests.cpp.build import SANITIZER_SETTINGS, Build, run

pytestmark = pytest.mark.slow


def test_a_name_does_not_break_the_worker_s_lines(
    built: Build, digits_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path
) -> None:
    names = {"a\nb\t.png": "a\\nb\\t.png", "c\\n\r.png": "c\\\\n\\r.png", "d\x1b[2J\x7f.png": "d\\x1b[2J\\x7f.png"}
    for name in names:
        shutil.copy(digit_files[0], tmp_path / name)
    done = run(built.worker, digits_bundle.root, tmp_path)
    assert done.returncode == 0, done.stderr
    fields = [line.split("\t") for line in done.stdout.split("\n")[:-1]]
    assert sorted(line[0] for line in fields) == sorted(f"{tmp_path}/{name}" for name in names.values())
    assert all(len(line) == 3 and line[1] == "0" for line in fields)
    assert "\\\\ \\t \\n \\r" in run(built.worker, "--help").stdout


def test_the_worker(built: Build, digits_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path) -> None:
    done = run(
        built.worker, digits_bundle.root, digit_files[0].parent, "--decoders", "3", "--batch", "4", "--loops", "3"
    )
    assert done.returncode == 0, done.stderr
    answers = {tuple(line.split("\t")[:2]) for line in done.stdout.splitlines()}
    assert answers == {(str(path), str(digit)) for digit, path in enumerate(digit_files)}
    figures = json.loads(done.stderr)
    assert (figures["images"], figures["failed"]) == (15, 0)
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert figures["images_per_s"] == pytest.approx(15 / figures["seconds"], rel=0.05)

    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    red = corpus.too_far_off(tmp_path)
    done = run(built.worker, digits_bundle.root, tmp_path, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"] == 2
    assert f"samdeploy-worker: {red}: 10 of 10 logits are not finite numbers: the image" in done.stderr
    assert f"{tmp_path}/broken.jpg: damaged or truncated (JPEG: " in done.stderr


def test_the_worker_reads_a_camera_s_frames(built: Build, digits_bundle: Bundle, digit_files: Sequence[Path]) -> None:
    frames = b"".join(np.asarray(Image.open(path).convert("RGB")).tobytes() for path in digit_files)
    command = [str(built.worker), str(digits_bundle.root), "--frames", "8x8"]
    environment = {**os.environ, **SANITIZER_SETTINGS}
    done = subprocess.run(command, input=frames, env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    # Two threads decode, so that a frame may be overtaken by the next one.
    lines = sorted(line.split(b"\t")[:2] for line in done.stdout.splitlines())
    assert lines == [[b"frame %d" % digit, b"%d" % digit] for digit in range(5)]
    done = subprocess.run(command, input=frames[:-1], env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == 2
    assert b"frame 4 ends early" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "a bundle and a folder (or --frames) expected"),
        (("--batch", "0"), "'0' found, 1 to 100000 expected"),
        (("--frames", "8"), "--frames '8' found, 640x480 expected"),
        (("--fast",), "unknown option --fast"),
        (("--backend",), "--backend needs a value"),
    ],
)
def test_the_worker_s_wrong_arguments(arguments: tuple[str, ...], text: str, built: Build) -> None:
    done = run(built.worker, "bundle", *arguments)
    assert done.returncode == 2
    assert f"samdeploy-worker: {text}\nusage: samdeploy-worker" in done.stderr
