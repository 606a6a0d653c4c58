"""Fresh processes: what they report, whose memory it is, and how they fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from samdeploy.bench import cold_start
from samdeploy.bench.cold_start import measure_cold_start
from samdeploy.bench.cold_start_child import peak_memory_mib
from samdeploy.bench.engines import Engine
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable

FREE = Engine("onnxruntime", "fp32")


def test_a_fresh_process_opens_the_engine_and_answers(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(cold_start, "REPEATS", 1)
    image = digits_bundle.golden()[0][0]
    found = measure_cold_start(digits_bundle, FREE, "cpu", image)
    assert found.processes == 1
    assert 0 < found.first_run_ms < found.open_to_answer_ms < found.start_to_answer_ms < 60_000
    # The graph alone has 40 MB of weights; PyTorch, which it must not load, would take 200 MB more.
    assert 60 < found.host_peak_mib < 350
    assert (found.device_mib, found.device_note) == (None, "")


def test_an_engine_that_cannot_be_opened_gives_its_reason(digits_bundle: Bundle) -> None:
    pytest.importorskip("onnxruntime")
    image = digits_bundle.golden()[0][0]
    with pytest.raises(BackendUnavailable, match="has no FP16 kernels"):
        measure_cold_start(digits_bundle, Engine("onnxruntime", "fp16"), "cpu", image)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -SEGV $$", "a fresh process died of SIGSEGV"),
        ("echo gone >&2; exit 3", "a fresh process ended with exit code 3: gone"),
    ],
)
def test_a_process_that_dies(
    script: str, words: str, digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(cold_start.sys, "executable", str(program))
    with pytest.raises(BackendUnavailable, match=words):
        measure_cold_start(digits_bundle, FREE, "cpu", np.zeros((32, 32, 3), np.uint8))


def test_the_memory_of_a_process_is_its_own_and_not_its_parents() -> None:
    # ru_maxrss, which would be at hand, is kept over fork and exec: a small child of a large parent shows the parent's.
    code = (
        "import subprocess, sys; filled = bytearray(b'x') * (400 << 20)\n"
        "child = 'from samdeploy.bench.cold_start_child import peak_memory_mib as peak; print(peak())'\n"
        "from samdeploy.bench.cold_start_child import peak_memory_mib; print(peak_memory_mib(), flush=True)\n"
        "subprocess.run([sys.executable, '-c', child], check=True)"
    )
    source = Path(cold_start.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    parent, child = map(float, done.stdout.split())
    assert parent > 400
    assert child < 100
    assert peak_memory_mib() > 20
