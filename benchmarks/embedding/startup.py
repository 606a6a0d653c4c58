"""From the start of a process to the first answer: samdeploy against the bare runtime.

    .venv/bin/python benchmarks/embedding/startup.py [--out FILE.json] [--rounds 11] [--bundle DIR --image FILE]

Each run is a fresh process; samdeploy and the runtime take turns; what counts is the ratio within a round.  What the
programs do stands in startup_child.py: the runtime alone checks and decodes nothing, and what is written "by hand"
does just what the bundle's specification asks for.  PyTorch must not be loaded in any.  Last, whether this machine's
processors are cores of their own: how much longer numpy's import takes beside another process that computes hashes.
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

from material import make_bundle, make_images
from stream import spread

HERE = Path(__file__).parent
IMPORT = "import time; start = time.perf_counter(); import numpy; print(1e3 * (time.perf_counter() - start))"
HASHING = "import hashlib; data = bytes(1 << 24); print(end='.', flush=True)\nwhile True: hashlib.sha256(data)"
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
        (image,) = make_images(work / "images", 1, 640, 480)
        bundles = (
            {str(options.bundle.name): options.bundle}
            if options.bundle
            else {f"sam-resnet18, {px} px": make_bundle(work / str(px), "sam-resnet18", px) for px in (64, 128)}
        )
        for name, bundle in bundles.items():
            for runtime in options.runtimes:
                report["runs"].append(compare(name, runtime, bundle, image, options.rounds))
    report["import_beside_hashing"] = import_beside_hashing(options.rounds)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def compare(name: str, runtime: str, bundle: Path, image: Path, rounds: int) -> dict[str, Any]:
    """Both programs in turns; the first round, which fills the file cache, does not count."""
    rows: dict[str, list[dict[str, Any]]] = {"bare": [], "by hand": [], "samdeploy": []}
    loads = []
    for number in range(rounds + 1):
        loads.append(os.getloadavg()[0])
        turn = number % len(rows)
        for program in [*rows][turn:] + [*rows][:turn]:
            line = [sys.executable, str(HERE / "startup_child.py"), program, runtime, str(bundle), str(image)]
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{program} {runtime}: {done.stderr[-2000:]}")
            if number:
                rows[program].append(json.loads(done.stdout))
    print(f"\n{name}, {runtime}, {rounds} rounds")
    compared: dict[str, dict[str, float]] = {}
    for program, other in (("samdeploy", "bare"), ("by hand", "bare"), ("samdeploy", "by hand")):
        ratios = [one["ms"] / two["ms"] for one, two in zip(rows[program], rows[other], strict=True)]
        low, high = (spread(ratios, quantile) for quantile in (0.1, 0.9))
        compared[f"{program} / {other}"] = {"ratio": statistics.median(ratios), "p10": low, "p90": high}
        print(f"  {program} / {other}: {statistics.median(ratios):.2f}x ({low:.2f} to {high:.2f}, p10 to p90)")
    for program, found in rows.items():
        parts = ", ".join(f"{part[:-3]} {statistics.median(one[part] for one in found):.0f}" for part in PARTS)
        print(f"  {program:<10} {statistics.median(one['ms'] for one in found):6.0f} ms: {parts}", flush=True)
    return {"bundle": name, "runtime": runtime, "rounds": rounds, "load_1min": loads, **compared, "rows": rows}


def import_beside_hashing(rounds: int) -> dict[str, Any]:
    """How long numpy's import takes alone, and while another process hashes: 1.0 apart where cores are not shared."""
    times: dict[str, list[float]] = {"alone": [], "beside": []}
    for _ in range(rounds):
        for which, found in times.items():
            busy = None
            if which == "beside":
                busy = subprocess.Popen([sys.executable, "-c", HASHING], stdout=subprocess.PIPE)
                assert busy.stdout is not None and busy.stdout.read(1)  # it has begun
            try:
                done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
            finally:
                if busy is not None:
                    busy.kill()
                    busy.communicate()
            found.append(float(done.stdout))
    ratio = statistics.median(beside / alone for alone, beside in zip(*times.values(), strict=True))
    print(f"\nimport of numpy beside a process that computes hashes: {ratio:.2f}x of alone")
    return {"ratio": ratio, **{f"{which}_ms": found for which, found in times.items()}}


if __name__ == "__main__":
    main()
