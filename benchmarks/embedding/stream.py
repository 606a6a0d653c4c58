"""`Classifier.stream` against C++ on the same machine, bundle, images and batch: images per second, and memory.

    cmake -S benchmarks/embedding -B build/embedding -DPython3_EXECUTABLE=$PWD/.venv/bin/python
    cmake --build build/embedding
    .venv/bin/python benchmarks/embedding/stream.py [--out FILE.json] [--rounds 7] [--seconds 4] [--batch 8]

The programs take turns, each in a process of its own, OpenVINO in FP32, from JPEG files to classes:

stream   Python: decodes in threads while the engine works
worker   C++, the same with threads: `samdeploy-worker`
serial   C++, the library: decodes one image after the other, then infers the batch
plain    C++ without samdeploy: OpenVINO and libjpeg-turbo by hand, one after the other

What counts is the ratio within a round: of images per second, and of processor time per image (of a run less that
of a short one, so that starting does not count).  Beside other programs only the second means something: threads that
wait for Python's lock get less of a busy machine than threads that need none.  All programs must name the same classes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from material import make_bundle, make_images

HERE = Path(__file__).parent
PROGRAMS = ("stream", "worker", "serial", "plain")
# Architecture, pixels of a side: one where decoding is most of the work, one where inference is.
NETWORKS = (("sam-resnet18", 64), ("sam-resnet18", 128))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--build", type=Path, default=HERE.parents[1] / "build" / "embedding")
    parser.add_argument(
        "--worker", type=Path, default=HERE.parents[1] / "build" / "cpp" / "examples" / "samdeploy-worker"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--size", default="640x480")
    options = parser.parse_args()
    from samdeploy.evaluate.machine import machine, versions

    width, height = (int(side) for side in options.size.split("x"))
    report: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine(), "versions": versions(),
        "images": options.images, "size": options.size, "batch": options.batch, "runs": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="samdeploy-stream-") as folder:
        work = Path(folder)
        files = make_images(work / "images", options.images, width, height)
        for arch, px in NETWORKS:
            bundle = make_bundle(work / f"{arch}-{px}", arch, px)
            report["runs"].append(compare(arch, px, bundle, files, options))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def compare(arch: str, px: int, bundle: Path, files: list[Path], options: argparse.Namespace) -> dict[str, Any]:
    """All programs in turns, on one bundle."""
    batch, seconds = str(options.batch), 0.0
    graph = bundle / "model.fp32.onnx"
    loops = 1  # of the worker, which counts passes: as many as `stream` made in its first round

    def run(*line: object) -> dict[str, Any]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(list(map(str, line)), capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise SystemExit(f"{line[0]}: exit code {done.returncode}: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return found | {"cpu_s": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime}

    calls: dict[str, Callable[[], dict[str, Any]]] = {
        "stream": lambda: run(sys.executable, HERE / "stream_child.py", bundle, batch, seconds, *files),
        "worker": lambda: run(
            options.worker,
            bundle,
            files[0].parent,
            "--batch",
            batch,
            "--decoders",
            processors(),
            "--loops",
            loops,
            "--json",
        ),
        "serial": lambda: run(options.build / "embed-samdeploy", bundle, batch, 0, seconds, *files),
        "plain": lambda: run(options.build / "embed-plain", graph, px, px, 0, batch, 0, seconds, *files),
    }
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in PROGRAMS}
    loads = []
    short = {name: calls[name]() for name in PROGRAMS}
    seconds = options.seconds
    for number in range(options.rounds):
        loads.append(os.getloadavg()[0])
        for name in PROGRAMS if number % 2 == 0 else (PROGRAMS[0], *reversed(PROGRAMS[1:])):
            rows[name].append(calls[name]())
            loops = max(1, round(rows["stream"][0]["images"] / len(files)))
    classes = {name: found[0]["classes"] for name, found in rows.items() if "classes" in found[0]}
    for name, found in classes.items():
        if found != classes["stream"][: len(found)]:
            raise SystemExit(f"{name} and stream name different classes")
    print(f"\n{arch} at {px} px, batch {batch}, {len(files)} JPEGs of {options.size}, {options.rounds} rounds")
    print("program  images/s      min      max  peak MiB  stream is    p10    p90   CPU ms  stream is    p10    p90")
    for name, found in rows.items():
        for one in found:
            work = one["images"] - short[name]["images"]
            if work <= 0:
                raise SystemExit(f"{name}: one pass in {seconds} s; ask for more --seconds")
            one["cpu_ms"] = 1e3 * (one["cpu_s"] - short[name]["cpu_s"]) / work
    summary = {}
    for name, found in rows.items():
        rates = [one["images_per_s"] for one in found]
        ratios = [
            stream["images_per_s"] / one["images_per_s"] for stream, one in zip(rows["stream"], found, strict=True)
        ]
        low, high = (spread(ratios, q) for q in (0.1, 0.9))
        costs = [one["cpu_ms"] for one in found]
        shares = [one["cpu_ms"] / stream["cpu_ms"] for stream, one in zip(rows["stream"], found, strict=True)]
        cpu_low, cpu_high = (spread(shares, q) for q in (0.1, 0.9))
        summary[name] = {
            "images_per_s": rates, "cpu_ms_per_image": costs, "peak_rss_mib": [one["peak_rss_mib"] for one in found],
            "stream_ratio": statistics.median(ratios), "stream_ratio_p10": low, "stream_ratio_p90": high,
            "stream_cpu_ratio": statistics.median(shares), "stream_cpu_ratio_p10": cpu_low,
            "stream_cpu_ratio_p90": cpu_high,
        }  # fmt: skip
        peak = statistics.median(one["peak_rss_mib"] for one in found)
        print(
            f"{name:<8} {statistics.median(rates):10.1f} {min(rates):8.1f} {max(rates):8.1f} {peak:9.0f} "
            f"{statistics.median(ratios):9.2f}x {low:6.2f} {high:6.2f} {statistics.median(costs):8.2f} "
            f"{statistics.median(shares):9.2f}x {cpu_low:6.2f} {cpu_high:6.2f}",
            flush=True,
        )
    return {"arch": arch, "px": px, "rounds": options.rounds, "load_1min": loads, "programs": summary}


def spread(values: list[float], quantile: float) -> float:
    ordered = sorted(values)
    place = quantile * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def processors() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
