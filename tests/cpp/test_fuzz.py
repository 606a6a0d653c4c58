"""A few seconds of each fuzz target with the system's compiler; benchmarks/embedding/fuzz.py runs them for longer."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.cpp import seeds
from tests.cpp.build import SANITIZER_SETTINGS, Build, build, missing

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("SAMDEPLOY_FUZZ_SECONDS", "2"))


@pytest.fixture(scope="session")
def sanitized() -> Build:
    reason = missing()
    if reason:
        pytest.skip(reason)
    return build("address", [f"fuzz-{target}" for target in (*seeds.TARGETS, "canary")])


def run(built: Build, target: str, corpus: Path) -> subprocess.CompletedProcess[str]:
    command = [str(built.folder / "fuzz" / f"fuzz-{target}"), str(corpus), str(SECONDS), "7"]
    environment = {**os.environ, **SANITIZER_SETTINGS}
    return subprocess.run(
        command, cwd=corpus.parent, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("target", seeds.TARGETS)
def test_no_input_breaks_a_reader(target: str, sanitized: Build, tmp_path: Path) -> None:
    done = run(sanitized, target, seeds.write(tmp_path)[target])
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.split()[-1]) > len(list((tmp_path / target).iterdir()))


def test_a_defect_would_be_found(sanitized: Build, tmp_path: Path) -> None:
    """The target `canary` reads one byte too far on one kind of input."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(b"samdeplox")
    done = run(sanitized, "canary", corpus)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert (tmp_path / "crash-driver").read_bytes().startswith(b"samdeploy")
