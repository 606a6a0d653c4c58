"""How long engines wait for a core: on a quiet machine, and beside other programs.

    .venv/bin/python benchmarks/evaluate/waiting.py [--seconds 200] [--out FILE.json]

`samdeploy eval` and `samdeploy bench` refuse a latency whose threads waited for a core for more than
`MAX_WAITED_PERCENT` of the run.  Conditions take turns: nothing beside it, then programs of the same priority that want
a fifth of a core, half of one, one and two.  A limit is good if it lies above all quiet runs and below all runs whose
median other programs spoiled.

Needs a machine on which nothing else runs: what others took of a core while nothing of ours was beside it is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from clock_case import Case, make_case

from samdeploy.evaluate.latency.clock import host_timer
from samdeploy.evaluate.latency.measure import MAX_WAITED_PERCENT, measure
from samdeploy.evaluate.machine import machine, versions

NETWORKS = (("sam-resnet18", 64), ("sam-resnet50", 128))
RUNS = 100
# Cores that other programs want: a part of one is a program that works so long of every tenth of a second.
WANTED = (0.0, 0.2, 0.5, 1.0, 2.0)
WORKS = """
import sys, time
share = float(sys.argv[1])
while True:
    end = time.perf_counter() + 0.1 * share
    while time.perf_counter() < end:
        pass
    time.sleep(0.1 * (1 - share))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=200, help="after which no further round is begun")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        engines = []
        for arch, px in NETWORKS:
            place = Path(folder, arch)
            place.mkdir()
            case = make_case(place, arch, px, 0)
            engines += [(f"{runtime} {arch} {px} px", session, case) for runtime, session in open_engines(case)]
        start = time.monotonic()
        while time.monotonic() - start < options.seconds:
            rows += [timed(*engine, wanted) for wanted in WANTED for engine in engines]
    report = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": versions(),
        "refused_above_percent": MAX_WAITED_PERCENT,
        "conditions": [summary(rows, wanted) for wanted in WANTED],
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def timed(name: str, session: Any, case: Case, wanted: float) -> dict[str, Any]:
    """One latency as `samdeploy eval` measures it, beside programs that want so many cores; printed and returned."""
    with programs_beside(wanted):
        before = np.array([*cpu_seconds(), time.monotonic()])
        latency = measure(host_timer(session.run), case.images(), runs=RUNS)
        worked, own, took = np.array([*cpu_seconds(), time.monotonic()]) - before
    waited = f"waited {latency.waited_percent:.0f} %"
    print(f"others want {wanted} cores, {name}: {latency.p50_ms:.2f} ms, {waited}", flush=True)
    return {"engine": name, "wanted_cores": wanted, "others_cores": float((worked - own) / took), **latency.to_json()}


def open_engines(case: Case) -> Iterator[tuple[str, Any]]:
    """As our backends open them."""
    import onnxruntime
    from clock_openvino import open_engine

    from samdeploy.backends.onnxruntime.session import OnnxruntimeSession

    yield "openvino", open_engine(case)[1]
    session = onnxruntime.InferenceSession(str(case.graph), providers=["CPUExecutionProvider"])
    yield "onnxruntime", OnnxruntimeSession(session, "cpu", "fp32", case.spec)


def summary(rows: list[dict[str, Any]], wanted: float) -> dict[str, Any]:
    """How the waiting of one condition is spread, and what it did to the medians; printed and returned."""
    quiet: dict[str, list[float]] = {}
    for row in rows:
        if row["wanted_cores"] == 0:
            quiet.setdefault(row["engine"], []).append(row["p50_ms"])
    mine = [row for row in rows if row["wanted_cores"] == wanted]
    waited = [row["waited_percent"] for row in mine]
    slower = [row["p50_ms"] / float(np.median(quiet[row["engine"]])) for row in mine]
    found = {
        "wanted_cores": wanted,
        "n": len(mine),
        "waited_percent": _spread(waited),
        "p50_over_quiet": _spread(slower),
        "refused_for_waiting": sum(value > MAX_WAITED_PERCENT for value in waited),
        "refused": sum(not row["steady"] for row in mine),
        "others_cores": _spread([row["others_cores"] for row in mine]),
    }
    print(f"others want {wanted} cores: {json.dumps(found)}")
    return found


def _spread(values: list[float]) -> dict[str, float]:
    low, p10, p50, p90, high = (float(value) for value in np.percentile(values, [0, 10, 50, 90, 100]))
    return {"min": low, "p10": p10, "p50": p50, "p90": p90, "max": high}


@contextmanager
def programs_beside(cores: float) -> Iterator[None]:
    """Programs that want so many cores."""
    shares = [1.0] * int(cores) + ([cores % 1] if cores % 1 else [])
    running = [subprocess.Popen([sys.executable, "-c", WORKS, str(share)]) for share in shares]
    time.sleep(0.2 if shares else 0.05)
    try:
        yield
    finally:
        for program in running:
            program.kill()
            program.wait()


def cpu_seconds() -> tuple[float, float]:
    """Core-seconds that the machine worked, and this process of them."""
    fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    mine = os.times()
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK"), mine.user + mine.system


if __name__ == "__main__":
    main()
