"""Our clock against the runtimes' own tools, on the same file, with the same threads, in turns.

    .venv/bin/python benchmarks/evaluate/clock.py [BUNDLE] [--repeats 7] [--seconds 3] [--threads N] [--out FILE.json]

OpenVINO's benchmark_app and our clock take turns in fresh processes.  Polygraphy's runner for ONNX Runtime, with its
own clock, and ours take turns on one open session.  What counts is the ratio of the medians within a pair; the median
ratio must lie within 5 % of 1.  Other programs disturb separate processes unequally, so such pairs are left out.

Both tools time one inference from host memory to host memory; ours times `Session.run`, and so holds the cost of our
wrapper, too.  Needs openvino, onnxruntime and `pip install polygraphy`; one that is missing is said.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from samdeploy.bundle import Bundle, latest_bundle, open_bundle
from samdeploy.evaluate.clock import host_timer, warm_up
from samdeploy.evaluate.machine import machine, versions

AGREEMENT = 0.05
# Of a core, that other programs may take beside a pair that counts; and the fewest pairs for a verdict.
QUIET_CORES = 0.1
LEAST_PAIRS = 5
RUNS_PER_TURN = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=0, help="0: what the runtime takes by itself")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--limit", type=float, default=300, help="seconds after which no further pair is begun")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    bundle = open_bundle(options.bundle or latest_bundle(Path("runs")))
    if options.child:
        print(json.dumps(measured_here(bundle, options)))
        return
    rows = []
    for package, compare in COMPARISONS.items():
        if importlib.util.find_spec(package) is None:
            print(f"not compared: {package} is not installed")
        else:
            rows.append(compare(bundle, options))
    report = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": versions(),
        "repeats": options.repeats,
        "seconds": options.seconds,
        "threads": options.threads or "the runtime's own number",
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    if not all(row["agrees"] for row in rows):
        raise SystemExit(1)


def against_benchmark_app(bundle: Bundle, options: argparse.Namespace) -> dict[str, object]:
    """OpenVINO's tool and our clock, each in fresh processes; who goes first alternates.

    A pair beside which other programs took more than a tenth of a core is printed and left out.
    """
    times: list[tuple[float, float]] = []
    left_out, start = 0, time.monotonic()
    while len(times) < options.repeats and time.monotonic() - start < options.limit:
        before = busy_seconds()
        if (len(times) + left_out) % 2:
            theirs, ours = benchmark_app(bundle, options), ours_openvino(bundle, options)
        else:
            ours, theirs = ours_openvino(bundle, options), benchmark_app(bundle, options)
        worked, seconds = busy_seconds() - before
        others = worked / seconds
        quiet = others <= QUIET_CORES
        print(f"openvino: benchmark_app {theirs:.4f} ms, ours {ours:.4f} ms, others {others:.2f} cores"
              f"{'' if quiet else ': left out'}", flush=True)  # fmt: skip
        if quiet:
            times.append((theirs, ours))
        else:
            left_out += 1
    return verdict("openvino", "benchmark_app", times, left_out)


def against_polygraphy(bundle: Bundle, options: argparse.Namespace) -> dict[str, object]:
    """Polygraphy's ONNX Runtime runner with its own clock, and ours, on one and the same open session, in turns."""
    import onnxruntime
    from polygraphy.backend.onnxrt import OnnxrtRunner

    from samdeploy.backends.onnxruntime import OnnxruntimeSession
    from samdeploy.backends.session import CheckedSession

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(graph_bytes(bundle), settings, providers=["CPUExecutionProvider"])
    wrapped = CheckedSession(OnnxruntimeSession(session, "cpu", "fp32", bundle.spec), bundle.spec)
    name, images, ours = bundle.spec.input.name, pictures(bundle), host_timer(wrapped.run)
    with OnnxrtRunner(session) as runner:

        def theirs(image: np.ndarray) -> float:
            runner.infer({name: image}, check_inputs=False)
            return float(runner.last_inference_time()) * 1e3

        warm_up(theirs, images, 3.0)
        warm_up(ours, images, 3.0)
        times: list[tuple[float, float]] = []
        for number in range(10 * options.repeats):
            pair = {}
            for clock in (theirs, ours) if number % 2 else (ours, theirs):
                pair[clock] = statistics.median(clock(images[turn % len(images)]) for turn in range(RUNS_PER_TURN))
            times.append((pair[theirs], pair[ours]))
    return verdict("onnxruntime", "polygraphy", times, 0)


def verdict(runtime: str, tool: str, times: list[tuple[float, float]], left_out: int) -> dict[str, object]:
    """The ratio of the medians of each pair (tool, ours), printed and returned."""
    row: dict[str, object] = {"runtime": runtime, "tool": tool, "pairs": len(times), "left_out": left_out}
    if len(times) < LEAST_PAIRS:
        print(f"{runtime}: {len(times)} quiet pairs, at least {LEAST_PAIRS} needed: no verdict on this machine now")
        return {**row, "agrees": None}
    ratios = [mine / theirs for theirs, mine in times]
    low, median, high = (float(value) for value in np.percentile(ratios, [10, 50, 90]))
    agrees = abs(median - 1) <= AGREEMENT
    print(
        f"{runtime}: ours / {tool} = {median:.3f} (p10 {low:.3f}, p90 {high:.3f}, n = {len(ratios)} pairs): "
        f"{'agrees' if agrees else 'DOES NOT AGREE'} within {100 * AGREEMENT:.0f} %"
    )
    figures = {"ratio": median, "ratio_p10": low, "ratio_p90": high, "agrees": agrees}
    return {**row, "tool_ms": [pair[0] for pair in times], "ours_ms": [pair[1] for pair in times], **figures}


def busy_seconds() -> np.ndarray:
    """[core-seconds that other programs worked, seconds] so far, from /proc/stat less our own and our children's."""
    fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    busy = (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # without idle and waiting for disks
    mine = os.times()
    own = mine.user + mine.system + mine.children_user + mine.children_system
    return np.array([busy - own, time.monotonic()])


def ours_openvino(bundle: Bundle, options: argparse.Namespace) -> float:
    """The clock of `samdeploy eval` and `samdeploy bench` in a fresh process; the median in ms."""
    line = [sys.executable, __file__, str(bundle.root), "--seconds", str(options.seconds), "--child"]
    done = subprocess.run(
        [*line, "--threads", str(options.threads)], capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise SystemExit(f"our clock failed:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def benchmark_app(bundle: Bundle, options: argparse.Namespace) -> float:
    """OpenVINO's own tool, with the settings of our backend and one synchronous request."""
    with tempfile.TemporaryDirectory() as folder:
        graph, config = Path(folder, "model.onnx"), Path(folder, "config.json")
        graph.write_bytes(graph_bytes(bundle))
        # In the file, because the tool takes -nthreads without a hint only.
        threads = {"INFERENCE_NUM_THREADS": options.threads} if options.threads else {}
        config.write_text(json.dumps({"CPU": {"EXECUTION_MODE_HINT": "ACCURACY", **threads}}))
        shape = ",".join(map(str, (1, *bundle.spec.input.shape[1:])))
        program = "from openvino.tools.benchmark.main import main; main()"
        line = [sys.executable, "-c", program, "-m", graph, "-d", "CPU", "-hint", "latency", "-api", "sync"]
        line += ["-infer_precision", "f32", "-data_shape", f"[{shape}]", "-inference_only", "true"]
        line += ["-t", max(1, round(options.seconds)), "-load_config", config]
        done = subprocess.run([str(part) for part in line], capture_output=True, text=True, check=False, timeout=600)
    found = re.search(r"Median:\s+([0-9.]+) ms", done.stdout)
    if found is None:
        raise SystemExit(f"benchmark_app failed:\n{done.stdout}\n{done.stderr}")
    return float(found.group(1))


def measured_here(bundle: Bundle, options: argparse.Namespace) -> float:
    """Our clock in this process: the median in ms."""
    import openvino

    from samdeploy.backends.openvino import OpenvinoSession
    from samdeploy.backends.session import CheckedSession
    from samdeploy.evaluate.latency import measure

    # As our backend compiles it, but for the number of threads, which it does not offer.
    config = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY", "PERFORMANCE_HINT": "LATENCY"}
    if options.threads:
        config["INFERENCE_NUM_THREADS"] = str(options.threads)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(graph_bytes(bundle)), "CPU", config)
    with CheckedSession(OpenvinoSession(compiled, "fp32", bundle.spec), bundle.spec) as session:
        return measure(host_timer(session.run), pictures(bundle), limit_s=options.seconds).p50_ms


def graph_bytes(bundle: Bundle) -> bytes:
    file = bundle.find("graph", precision="fp32")
    assert file is not None, "the bundle holds no FP32 graph"
    return bundle.read(file)


def pictures(bundle: Bundle) -> list[np.ndarray]:
    images, _ = bundle.golden()
    return [images[index : index + 1] for index in range(len(images))]


# the package that brings the tool -> the comparison
COMPARISONS = {"openvino": against_benchmark_app, "polygraphy": against_polygraphy}


if __name__ == "__main__":
    main()
