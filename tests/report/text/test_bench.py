"""The table: within 80 columns whatever the figures, and every refusal and reason in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from samdeploy.bench.alternatives.comparison import Comparison, Row
from samdeploy.bench.bench_json import BenchReport, EngineBench
from samdeploy.bench.cold_start import ColdStart
from samdeploy.bench.figures import Figure
from samdeploy.bench.nvml import GpuState
from samdeploy.bench.throughput import BatchPoint, ThreadPoint
from samdeploy.bench.turns import Ratio
from samdeploy.evaluate.latency.measure import Latency
from samdeploy.report.text.bench import bench_tables

STEADY = Latency(
    p50_ms=1.25, p90_ms=1.5, p95_ms=1.75, p99_ms=2.5, max_ms=4.0, runs=300, p50_low_ms=1.2, p50_high_ms=1.3,
    drift_percent=1.0, warm_up_runs=30, warm_up_s=0.2, warm_up_settled=True,
)  # fmt: skip
HUGE = replace(
    STEADY, p50_ms=12345.678, p90_ms=98765.4, p95_ms=98765.4, p99_ms=98765.4, max_ms=98765.4, p50_low_ms=12345.6,
    p50_high_ms=12345.7, drift_percent=-55.0, warm_up_settled=False,
)  # fmt: skip
GPU = GpuState("NVIDIA H100 80GB HBM3", "590.1", 1410, 1980, 2619, 88, 699.5, 700.0, ("hardware thermal slowdown",))
ENGINE = EngineBench(
    backend="onnxruntime",
    precision="fp32",
    device="cuda",
    ran=True,
    reason="batch 64: out of memory",
    figures=(Figure("device only", None, "not measured: " + "why " * 30), Figure("with copies", STEADY),
             Figure("end to end", HUGE)),
    batches=tuple(BatchPoint(1 << n, 1.0, 2.0, 100, 123456.7) for n in range(11)),
    threads=tuple(ThreadPoint(n, 1, 0.5) for n in (1, 2, 4)),
    left_out=(128, 256),
    cold_start=ColdStart(3, 1234.5, 1000.4, 10.0, 2048.0, 1536.0, ""),
    cuda_graphs="off since a batch of 8: the engine failed",
    gpu=(GPU,),
)  # fmt: skip
COMPARISON = Comparison(
    8,
    21,
    "pytorch eager",
    (
        Row("samdeploy onnxruntime fp32", True, True, "", 1.5, 1.4, 1.6, Ratio(2.0, 1.9, 2.1), 1e-6),
        Row("pytorch eager", False, True, "", 3.0, 2.9, 3.1, Ratio(1, 1, 1), 0.0),
        Row("torch.compile", False, reason="torch.compile fails: no compiler " + "here " * 30),
        Row("openvino plain export", False, False, "died in round 3: gone", 2.0, 1.9, 2.1, Ratio(1.5, 1.4, 1.6)),
        Row("trtexec", False, True, "", 12345.0, times_base=Ratio(1e-4, 1e-4, 1e-4), note="trtexec: its own process"),
    ),
)
REPORT = BenchReport(
    "runs/a/bundle", "2026-11-22T10:00:00Z", "a processor, 2 cores", {}, 1.5, 2, "64 images",
    engines=(ENGINE, EngineBench("tensorrt", "fp16", "", False, "no CUDA device: " + "no driver " * 20)),
    against=(COMPARISON,),
)  # fmt: skip
LINES = bench_tables(REPORT).splitlines()
TEXT = " ".join(" ".join(LINES).split())


def test_no_line_is_longer_than_a_terminal() -> None:
    assert max(map(len, LINES)) <= 80


@pytest.mark.parametrize(
    "line",
    [
        "device only   -   -   -   -   -   -   -",
        "with copies   1.25   1.20 to 1.30   1.50   1.75   2.50   4.00   300",
        "end to end    12,346   12,346 to 12,346   98,765   98,765   98,765   98,765   300",
        "images/s 123,457 123,457 123,457 123,457 123,457 123,457 123,457 123,457",
        "samdeploy onnxruntime fp32   1.50   1.40 to 1.60   2.00x   1.90 to 2.10",
        "torch.compile   not run   -   -   -",
        "openvino plain export   stopped   -   -   -",
        "trtexec   12,345   -   0.00x   -",
    ],
)
def test_lines(line: str) -> None:
    assert " ".join(line.split()) in [" ".join(found.split()) for found in LINES]


@pytest.mark.parametrize(
    "words",
    [
        "too noisy for a verdict: p90 is 8.00 times p50 (at most 1.5); the median moved by -55.",
        "warm-up: not settled after 30 runs in 0.2 s",
        "batch 128, 256: outside its profile, left out",
        "cold start 1,000 ms from opening to the first answer, 1,234 ms from the start of the process (median of 3) "
        "peak memory 2,048 MiB, 1,536 MiB of the GPU",
        "NVIDIA H100 80GB HBM3: 1410 of 1980 MHz, memory 2619 MHz, 88 C, 700 of 700 W; "
        "held down by: hardware thermal slowdown",
        "CUDA graphs off since a batch of 8: the engine failed",
        "failed batch 64: out of memory",
        "tensorrt fp16 not run no CUDA device: no driver",
        "openvino plain export died in round 3: gone",
        "trtexec trtexec: its own process",
        "speed: 1.00x is pytorch eager, within the same round; more is faster",
        "load average 1.5 on 2 cores before this began: other programs were running",
    ],
)
def test_words(words: str) -> None:
    assert words in TEXT


def test_a_quiet_machine_needs_no_words() -> None:
    for load in (None, 0.3):
        assert "load average" not in bench_tables(replace(REPORT, load_average=load))


def test_complete_means_that_something_ran_and_nothing_died() -> None:
    sound = replace(ENGINE, reason="")
    absent = REPORT.engines[1]
    alone = replace(REPORT, against=())
    assert replace(alone, engines=(sound, absent)).complete
    assert not replace(alone, engines=(sound, ENGINE)).complete
    assert not replace(alone, engines=(absent,)).complete
    assert replace(REPORT, engines=()).complete
    died = replace(COMPARISON.rows[0], ran=False, reason="died in round 2: gone")
    assert not replace(REPORT, engines=(), against=(replace(COMPARISON, rows=(died,)),)).complete
