"""The runtimes' own tools: what is read from their output, and what is said where they are not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from samdeploy.backends.device import cuda
from samdeploy.bench.alternatives import tools
from samdeploy.bench.alternatives.tools import polygraphy, polygraphy_time, trtexec, trtexec_time
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable

# As trtexec 10 prints it.
TRTEXEC = """\
[11/22/2026-10:00:00] [I] === Performance summary ===
[11/22/2026-10:00:00] [I] Throughput: 2145.61 qps
[11/22/2026-10:00:00] [I] Latency: min = 0.464 ms, max = 0.931 ms, mean = 0.479 ms, median = 0.473 ms, \
percentile(90%) = 0.489 ms, percentile(95%) = 0.501 ms, percentile(99%) = 0.561 ms
[11/22/2026-10:00:00] [I] Enqueue Time: min = 0.2 ms, max = 0.8 ms, mean = 0.3 ms, median = 0.301 ms
[11/22/2026-10:00:00] [I] H2D Latency: min = 0.01 ms, max = 0.03 ms, mean = 0.012 ms, median = 0.011 ms
[11/22/2026-10:00:00] [I] GPU Compute Time: min = 0.44 ms, max = 0.9 ms, mean = 0.46 ms, median = 0.452 ms
"""


def test_trtexecs_latency_with_copies_is_read() -> None:
    found = trtexec_time(TRTEXEC)
    assert (found.ms, found.what) == (0.473, "trtexec: median latency, copies included")
    without = "\n".join(line for line in TRTEXEC.splitlines() if "] Latency:" not in line)
    with pytest.raises(BackendUnavailable, match=r"trtexec ended without a summary: .*GPU Compute Time"):
        trtexec_time(without)


def test_polygraphys_time_is_read() -> None:
    line = "[I] onnxrt-runner-N0  | Completed 50 iteration(s) in 586.9 ms | Average inference time: 11.74 ms.\n"
    assert polygraphy_time(f"[I] before\n{line}[I] PASSED", "onnxrt").ms == 11.74
    with pytest.raises(BackendUnavailable, match=r"Polygraphy ended without a time: \[I\] PASSED"):
        polygraphy_time("[I] PASSED\n", "onnxrt")


def test_a_tool_that_is_not_installed(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendUnavailable, match="trtexec is not installed"):
        trtexec(digits_bundle, 1)
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match="Polygraphy is not installed; pip install polygraphy"):
        polygraphy(digits_bundle, 1)


def test_trtexec_is_asked_for_the_verified_graph_at_the_batch_size(
    digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program in trtexec's place, which keeps what it is given: it comes with no package that pip installs."""
    program = tmp_path / "trtexec"
    program.write_text(
        "#!/bin/sh\n"
        f'case "$1" in --help) echo "  --stronglyTyped"; exit;; esac\necho "$@" > {tmp_path}/asked\n'
        f'cp "${{1#--onnx=}}" {tmp_path}/graph\ncat {tmp_path}/text\n'
    )
    program.chmod(0o755)
    (tmp_path / "text").write_text(TRTEXEC)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(cuda, "cuda_devices", lambda: (1, None))
    assert trtexec(digits_bundle, 4).ms == 0.473
    asked = (tmp_path / "asked").read_text().split()
    assert asked[1:] == ["--shapes=image:4x32x32x3", "--iterations=200", "--warmUp=500", "--stronglyTyped"]
    graph = digits_bundle.find("graph", precision="fp16") or digits_bundle.find("graph", precision="fp32")
    assert graph is not None
    assert (tmp_path / "graph").read_bytes() == digits_bundle.read(graph)

    program.write_text("#!/bin/sh\necho 'no kernel image'; exit 7\n")
    with pytest.raises(BackendUnavailable, match="trtexec ended with exit code 7: no kernel image"):
        trtexec(digits_bundle, 4)


def test_polygraphy_itself(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("polygraphy", reason="pip install polygraphy")
    monkeypatch.setattr(tools, "_ITERATIONS", 20)
    found = polygraphy(digits_bundle, 2)
    assert 0 < found.ms < 1000
    assert found.what in ("Polygraphy onnxrt: mean", "Polygraphy trt: mean")
