"""A short form of the other tests under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bundle import Bundle
from samdeploy.bundle.spec import RESIZES, Preprocessing
from tests.cpp import ask, corpus
from tests.cpp.build import SANITIZER_SETTINGS, Build, build, missing

pytestmark = pytest.mark.slow

BICUBIC = RESIZES["bicubic"]
SIZES = (
    Preprocessing(31, 24),
    Preprocessing(31, 20, "center_crop", 40),
    Preprocessing(31, 27, resize=BICUBIC),
    Preprocessing(31, 28, "center_crop", 40, resize=BICUBIC, crop="half-even"),
)

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", params=["address", "thread"])
def watched(request: pytest.FixtureRequest) -> Build:
    reason = missing()
    if reason:
        pytest.skip(reason)
    return build(request.param, ["samdeploy-probe", "samdeploy-misuse", "samdeploy-worker"])


@pytest.fixture
def run(watched: Build) -> Run:
    """Run a program, which no sanitizer may complain about."""

    def call(program: Path, *arguments: str | Path | int, stdin: str = "", good: Sequence[int] = (0,)) -> object:
        command, environment = [str(program), *map(str, arguments)], {**os.environ, **SANITIZER_SETTINGS}
        done = subprocess.run(
            command, input=stdin, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        assert done.returncode in good, f"{arguments}: exit {done.returncode}\n{done.stderr[-6000:]}"
        assert "Sanitizer" not in done.stderr, done.stderr[-6000:]
        return done

    return call  # type: ignore[return-value]


def test_images(watched: Build, run: Run, tmp_path: Path) -> None:
    """Every kind of image, whole and cut at several places."""
    lines = []
    images = [(name, data) for name, data in (*corpus.jpegs(), *corpus.pngs()) if len(data) < 200_000]
    for index, (_, data) in enumerate(images):
        for cut, content in enumerate((data, data[: len(data) // 2], data[:-3])):
            path = tmp_path / f"{index}-{cut}"
            path.write_bytes(content)
            lines.append(ask.job(SIZES[index % len(SIZES)], path))
    run(watched.probe, "images", tmp_path / "out", 1 << 24, stdin="\n".join(lines))


def test_many_threads(watched: Build, run: Run, digits_bundle: Bundle, tmp_path: Path) -> None:
    golden, _ = digits_bundle.golden()
    (tmp_path / "pixels.bin").write_bytes(golden.tobytes())
    for requests in (1, 3):
        done = run(watched.probe, "threads", digits_bundle.root, tmp_path / "pixels.bin", 6, requests, 10)
        assert done.stdout.split() == ["60", "0"]


def test_closing_while_others_run(watched: Build, run: Run, digits_bundle: Bundle, digit_files: Sequence[Path]) -> None:
    answers = run(watched.misuse, "close-early", digits_bundle.root, digit_files[0], 4).stdout.split()
    assert answers[-1] == "15"
    assert set(answers) <= {"0", "15"}


def test_wrong_arguments(watched: Build, run: Run, digits_bundle: Bundle) -> None:
    assert run(watched.probe, "arguments", digits_bundle.root).stdout.splitlines()[-3:] == ["0 0", "1", "0 10 0"]


def test_a_bundle_that_is_refused(watched: Build, run: Run, copy_of_bundle: Path) -> None:
    (copy_of_bundle / "model.fp32.onnx").write_bytes(b"")
    assert run(watched.probe, "open", copy_of_bundle, "fp32").stdout.startswith("6\n")


def test_the_worker(watched: Build, run: Run, digits_bundle: Bundle, tmp_path: Path) -> None:
    for index in range(12):
        (tmp_path / f"{index}.png").write_bytes(corpus.png(20 + index, 30, 8, 2, seed=index))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = run(watched.worker, digits_bundle.root, tmp_path, "--decoders", 3, "--batch", 5, good=(1,))
    assert len(done.stdout.splitlines()) == 12
    assert np.unique([line.split("\t")[0] for line in done.stdout.splitlines()]).size == 12
