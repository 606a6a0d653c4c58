"""OpenVINO's benchmark_app and our clock: on one open engine, and each as a program of its own."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from clock_case import Case, in_turns, read_case

# Runs whose median is one turn; of a program more, as it takes seconds to start.
RUNS, RUNS_OF_A_PROGRAM = 15, 40
# Of a core, that other programs may take beside a pair of programs that counts.
QUIET_CORES = 0.1
# As our backend compiles it.
CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY", "PERFORMANCE_HINT": "LATENCY"}


def one_engine(case: Case, seconds: float) -> tuple[list[tuple[float, float]], int]:
    """benchmark_app's own loop and clock, and ours, on one compiled network in turns; nothing is left out."""
    from openvino.tools.benchmark.benchmark import Benchmark

    from samdeploy.evaluate.latency.clock import host_timer, warm_up

    compiled, session = open_engine(case)
    images = case.images()
    tool = Benchmark("CPU", 1, RUNS, None, "sync", True, 0)
    request = compiled.create_infer_request()
    request.get_input_tensor().shape = images[0].shape
    inputs, timer = itertools.cycle(images), host_timer(session.run)

    def theirs() -> float:
        request.get_input_tensor().data[:] = next(inputs)
        times, _, _ = tool.sync_inference(request, _OneImage())
        return float(statistics.median(times))

    warm_up(timer, images, 3.0)
    return in_turns(theirs, lambda: statistics.median(timer(next(inputs)) for _ in range(RUNS)), seconds), 0


class _OneImage:
    """What benchmark_app's loop asks its queue for."""

    def get_next_batch_size(self) -> int:
        return 1


def fresh_processes(case: Case, seconds: float) -> tuple[list[tuple[float, float]], int]:
    """benchmark_app and our clock as programs; a pair beside which others took a tenth of a core is left out."""
    pairs: list[tuple[float, float]] = []
    left_out, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        before = _busy_seconds()
        if (len(pairs) + left_out) % 2:
            theirs, ours = benchmark_app(case), our_program(case)
        else:
            ours, theirs = our_program(case), benchmark_app(case)
        worked, took = _busy_seconds() - before
        quiet = worked / took <= QUIET_CORES
        print(f"benchmark_app {theirs:.2f} ms, ours {ours:.2f} ms, others {worked / took:.2f} cores"
              f"{'' if quiet else ': left out'}", flush=True)  # fmt: skip
        if quiet:
            pairs.append((theirs, ours))
        else:
            left_out += 1
    return pairs, left_out


def benchmark_app(case: Case) -> float:
    """Median in ms of OpenVINO's own tool, with the settings of our backend and one synchronous request."""
    config = Path(case.folder, "config.json")
    # In the file, because the tool takes -nthreads without a hint only.
    threads = {"INFERENCE_NUM_THREADS": case.threads} if case.threads else {}
    config.write_text(json.dumps({"CPU": {"EXECUTION_MODE_HINT": "ACCURACY", **threads}}))
    program = "from openvino.tools.benchmark.main import main; main()"
    line = [sys.executable, "-c", program, "-m", case.graph, "-d", "CPU", "-hint", "latency", "-api", "sync"]
    line += ["-infer_precision", "f32", "-data_shape", f"[1,{case.px},{case.px},3]", "-inference_only", "true"]
    line += ["-niter", RUNS_OF_A_PROGRAM, "-load_config", config]
    done = subprocess.run([str(part) for part in line], capture_output=True, text=True, check=False, timeout=600)
    found = re.search(r"Median:\s+([0-9.]+) (ms|us)", done.stdout)
    if found is None:
        raise SystemExit(f"benchmark_app failed:\n{done.stdout}\n{done.stderr}")
    return float(found.group(1)) / (1000 if found.group(2) == "us" else 1)


def our_program(case: Case) -> float:
    """Median in ms of the clock of `samdeploy eval` and `samdeploy bench`, in a fresh process."""
    line = [sys.executable, __file__, case.folder]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise SystemExit(f"our clock failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Our clock in this process."""
    from samdeploy.evaluate.latency.clock import host_timer
    from samdeploy.evaluate.latency.measure import measure

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    case = read_case(parser.parse_args().folder)
    _, session = open_engine(case)
    print(json.dumps(measure(host_timer(session.run), case.images(), runs=RUNS_OF_A_PROGRAM).p50_ms))


def open_engine(case: Case) -> tuple[Any, Any]:
    """The compiled network, and our session on it."""
    import openvino

    from samdeploy.backends.openvino.session import OpenvinoSession
    from samdeploy.backends.session import CheckedSession

    threads = {"INFERENCE_NUM_THREADS": str(case.threads)} if case.threads else {}
    compiled = openvino.Core().compile_model(str(case.graph), "CPU", {**CONFIG, **threads})
    return compiled, CheckedSession(OpenvinoSession(compiled, "fp32", case.spec), case.spec)


def _busy_seconds() -> np.ndarray:
    """[core-seconds that other programs worked, seconds] so far, from /proc/stat less our own and our children's."""
    fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    busy = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # without idle and waiting for disks
    mine = os.times()
    own = mine.user + mine.system + mine.children_user + mine.children_system
    return np.array([busy - own, time.monotonic()])


if __name__ == "__main__":
    main()
