"""Our clock against the runtimes' own tools, on the same graph, with the same settings, in turns.

    .venv/bin/python benchmarks/evaluate/clock.py [--arch sam-resnet50] [--px 192] [--threads 0] [--out FILE.json]

Each of OpenVINO's benchmark_app and Polygraphy's runner for ONNX Runtime and our clock take turns on one open engine:
that compares the clocks and nothing else.  benchmark_app as a user starts it takes turns with ours in fresh processes,
too: that holds whatever else the two programs do differently, and the noise of the machine.

What counts is the ratio of the medians within a pair, ours to the tool's; who goes first alternates.  The clocks agree
where the 95 % interval of the median ratio lies within 5 % of 1.  Both time one inference from host memory to host
memory; ours holds `Session.run` with its checks and the copy of the answer, benchmark_app's the inference alone.

Weights are random; speed does not depend on them.  Needs openvino, onnxruntime and `pip install polygraphy`; one that
is missing is said.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import clock_onnxruntime
import clock_openvino
import numpy as np
from clock_case import Case, make_case

from samdeploy.evaluate.machine import machine, versions

AGREEMENT = 0.05
CONFIDENCE = 0.95
# With fewer no interval of 95 % lies within the pairs.
LEAST_PAIRS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="sam-resnet50")
    parser.add_argument("--px", type=int, default=192)
    parser.add_argument("--threads", type=int, default=0, help="0: what the runtime takes by itself")
    parser.add_argument("--seconds", type=float, default=130, help="for each comparison")
    parser.add_argument("--only", choices=sorted(COMPARISONS), action="append", help="leave the others out")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        case = make_case(Path(folder), options.arch, options.px, options.threads)
        for name in options.only or COMPARISONS:
            package, measure = COMPARISONS[name]
            if importlib.util.find_spec(package) is None:
                print(f"{name}: not compared: {package} is not installed")
                continue
            pairs, left_out = measure(case, options.seconds)
            rows.append(verdict(name, pairs, left_out))
    report = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": versions(),
        "network": f"{options.arch}, {options.px} px, 100 classes, fp32, batch 1",
        "threads": options.threads or "the runtime's own number",
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    if not all(row["agrees"] for row in rows):
        raise SystemExit(1)


def verdict(name: str, pairs: Sequence[tuple[float, float]], left_out: int) -> dict[str, object]:
    """The ratio of the medians of each pair (tool, ours) in ms, printed and returned.

    `agrees` is None where the interval holds both ratios that do and ratios that do not.
    """
    row: dict[str, object] = {"tool": name, "pairs": len(pairs), "left_out": left_out}
    if len(pairs) < LEAST_PAIRS:
        print(f"{name}: {len(pairs)} pairs, at least {LEAST_PAIRS} needed: no verdict on this machine now")
        return {**row, "agrees": None}
    from scipy.stats import quantile_test

    ratios = [ours / theirs for theirs, ours in pairs]
    interval = quantile_test(ratios, p=0.5).confidence_interval(CONFIDENCE)
    low, high = float(interval.low), float(interval.high)
    p10, median, p90 = (float(value) for value in np.percentile(ratios, [10, 50, 90]))
    agrees = None
    if low >= 1 - AGREEMENT and high <= 1 + AGREEMENT:
        agrees = True
    elif low > 1 + AGREEMENT or high < 1 - AGREEMENT:
        agrees = False
    word = {True: "agrees", False: "DOES NOT AGREE", None: "cannot tell"}[agrees]
    print(
        f"{name}: ours / the tool's = {median:.3f} (95 % interval {low:.3f} to {high:.3f}; p10 {p10:.3f}, "
        f"p90 {p90:.3f}; n = {len(pairs)} pairs, {left_out} left out): {word} within {100 * AGREEMENT:.0f} %"
    )
    return {
        **row,
        "ratio": median,
        "ratio_low": low,
        "ratio_high": high,
        "ratio_p10": p10,
        "ratio_p90": p90,
        "agrees": agrees,
        "tool_ms": [pair[0] for pair in pairs],
        "ours_ms": [pair[1] for pair in pairs],
    }


Measure = Callable[[Case, float], tuple[list[tuple[float, float]], int]]
# what is compared with -> the package that brings it, and the comparison
COMPARISONS: dict[str, tuple[str, Measure]] = {
    "benchmark_app, on one open engine": ("openvino", clock_openvino.one_engine),
    "benchmark_app, in fresh processes": ("openvino", clock_openvino.fresh_processes),
    "polygraphy, on one open engine": ("polygraphy", clock_onnxruntime.one_engine),
}


if __name__ == "__main__":
    main()
