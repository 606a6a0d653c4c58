"""From the start of a process to the first answer: samdeploy against the bare runtime.

    .venv/bin/python benchmarks/embedding/startup.py [--out FILE.json] [--rounds 11] [--bundle DIR --image FILE]

Each run is a fresh process; samdeploy and the runtime take turns; what counts is the ratio within a round.  What the
two do stands in startup_child.py: the runtime checks and decodes nothing.  PyTorch must not be loaded in either.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from material import make_bundle, make_pictures
from stream import spread

HERE = Path(__file__).parent
PARTS = ("import_ms", "open_ms", "first_ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--runtimes", nargs="+", default=["openvino", "onnxruntime"])
    parser.add_argument("--bundle", type=Path, help="instead of SAM-ResNet-18 at 64 and 128 px with random weights")
    options = parser.parse_args()
    from samdeploy.evaluate.machine import machine, versions

    report: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine(), "versions": versions(), "runs": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="samdeploy-startup-") as folder:
        work = Path(folder)
        (image,) = make_pictures(work / "pictures", 1, 640, 480)
        bundles = (
            {str(options.bundle.name): options.bundle}
            if options.bundle
            else {f"sam-resnet18, {px} px": make_bundle(work / str(px), "sam-resnet18", px) for px in (64, 128)}
        )
        for name, bundle in bundles.items():
            for runtime in options.runtimes:
                report["runs"].append(compare(name, runtime, bundle, image, options.rounds))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def compare(name: str, runtime: str, bundle: Path, image: Path, rounds: int) -> dict[str, Any]:
    """Both programs in turns; the first round, which fills the file cache, does not count."""
    rows: dict[str, list[dict[str, Any]]] = {"bare": [], "samdeploy": []}
    loads = []
    for number in range(rounds + 1):
        loads.append(os.getloadavg()[0])
        for program in sorted(rows, reverse=bool(number % 2)):
            line = [sys.executable, str(HERE / "startup_child.py"), program, runtime, str(bundle), str(image)]
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{program} {runtime}: {done.stderr[-2000:]}")
            if number:
                rows[program].append(json.loads(done.stdout))
    ratios = [own["ms"] / bare["ms"] for own, bare in zip(rows["samdeploy"], rows["bare"], strict=True)]
    low, high = (spread(ratios, quantile) for quantile in (0.1, 0.9))
    print(
        f"\n{name}, {runtime}, {rounds} rounds: {statistics.median(ratios):.2f}x ({low:.2f} to {high:.2f}, p10 to p90)"
    )
    for program, found in rows.items():
        parts = ", ".join(f"{part[:-3]} {statistics.median(one[part] for one in found):.0f}" for part in PARTS)
        print(f"  {program:<10} {statistics.median(one['ms'] for one in found):6.0f} ms: {parts}", flush=True)
    return {
        "bundle": name, "runtime": runtime, "rounds": rounds, "load_1min": loads, "ratio": statistics.median(ratios),
        "ratio_p10": low, "ratio_p90": high, "rows": rows,
    }  # fmt: skip


if __name__ == "__main__":
    main()
