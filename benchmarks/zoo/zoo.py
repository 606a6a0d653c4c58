"""Sixty and more architectures the whole way, with random weights: what samdeploy makes of each design.

    .venv/bin/python benchmarks/zoo/zoo.py benchmarks/results/MACHINE-DATE-zoo.json [--only NAME]... [--again NAME]...
        [--failed] [--stages STAGE,...] [--work FOLDER] [--table] [--timeout 600]

Each is built, exported, checked at several batch sizes in ONNX Runtime and OpenVINO, quantised to INT8, built for
TensorRT-RTX, opened in C++ and evaluated, in a process of its own.  Rows are written as they come, so that a run that
was stopped goes on where it was; --failed and --again repeat rows, --table only writes docs/zoo.md from the rows.
With --work, bundles are kept there, and a later call can add the stages that --stages left out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import one
from architectures import GROUPS
from network import SEED, write_images
from rich.console import Console
from rich.progress import Progress
from table import write_table

from samdeploy.evaluate.machine import machine, versions

ROOT = Path(__file__).parents[2]
MOST_REFUSED = 0.05
PROBE = ROOT / "build" / "cpp" / "samdeploy-probe"  # built by the tests of tests/cpp

# A server that has imported what is slow to import forks one process for each architecture.
CONTEXT = multiprocessing.get_context("forkserver")
IMPORTED = ("one", "timm", "torchvision", "onnxscript", "openvino", "tensorrt_rtx", "sklearn.datasets", "scipy.stats")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", action="append", help="these architectures alone")
    parser.add_argument("--again", action="append", default=[], help="repeat these rows")
    parser.add_argument("--failed", action="store_true", help="repeat rows that did not go the whole way")
    parser.add_argument("--stages", type=lambda text: text.split(","), default=one.STAGES)
    parser.add_argument("--work", type=Path, help="keep bundles here")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one architecture")
    options = parser.parse_args()
    report = json.loads(options.out.read_text()) if options.out.is_file() else {"rows": []}
    rows: dict[str, dict[str, Any]] = {row["name"]: row for row in report["rows"]}
    names = options.only or [name for group in GROUPS.values() for name in group]
    failed = {name for name in names if "failed" in rows.get(name, {})}
    repeated = (failed if options.failed else set()) | set(options.again)
    rows = {name: row for name, row in rows.items() if name not in repeated}
    waiting = [
        name
        for name in names
        if name not in rows or ("failed" not in rows[name] and set(options.stages) - set(rows[name]["stages"]))
    ]
    console = Console(stderr=True)
    CONTEXT.set_forkserver_preload(list(IMPORTED))
    with tempfile.TemporaryDirectory() as temporary, Progress(console=console) as progress:
        folder = options.work or Path(temporary)
        write_images(folder / "images")
        task = progress.add_task("zoo", total=0 if options.table else len(waiting))
        for name in [] if options.table else waiting:
            progress.update(task, description=name)
            rows[name] = child(rows.get(name, {"name": name, "stages": {}}), folder, options)
            console.print(summary(rows[name]), highlight=False)
            write(options.out, rows)
            progress.advance(task)
    write(options.out, rows)
    write_table(ROOT / "docs" / "zoo.md", options.out, json.loads(options.out.read_text()))
    refused = [name for name, row in rows.items() if "failed" in row]
    print(f"{len(rows) - len(refused)} of {len(rows)} architectures went the whole way", *refused, sep="\n")
    return 0 if len(refused) <= MOST_REFUSED * len(rows) else 1


def child(row: dict[str, Any], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one architecture, whatever becomes of its process."""
    work = folder / row["name"].replace(":", "-")
    if not row["stages"]:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(exist_ok=True)
    log = work / "row.json"
    log.unlink(missing_ok=True)
    arguments = (row, folder / "images", work, str(PROBE), options.stages, log)
    process = CONTEXT.Process(target=one.run, args=arguments)
    process.start()
    process.join(options.timeout)
    found: dict[str, Any]
    if process.is_alive():
        process.kill()
        process.join()
        found = {**row, "ok": False, "failed": "time", "reason": f"more than {options.timeout:g} s"}
    elif log.is_file():
        found = json.loads(log.read_text())
    else:
        found = {**row, "ok": False, "failed": "process", "reason": f"exit {process.exitcode}"}
    if options.work is None or "failed" in found or found["ok"]:
        shutil.rmtree(work, ignore_errors=True)
    return found


def summary(row: dict[str, Any]) -> str:
    seconds = f"{sum(row['stages'].values()):5.0f} s"
    if "failed" in row:
        return f"{seconds}  {row['name']}: {row['failed']}: {row['reason'][-600:]}"
    maps = "yes" if row["maps"] else f"no: {row['no_maps']}"
    return f"{seconds}  {row['name']}: {', '.join(row['stages'])}; maps {maps}"


def write(path: Path, rows: dict[str, dict[str, Any]]) -> None:
    order = [name for group in GROUPS.values() for name in group]
    report = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": versions(),
        "seed": SEED,
        "command": "benchmarks/zoo/zoo.py",
        "rows": sorted((rows[name] for name in rows if name in order), key=lambda row: order.index(row["name"])),
    }
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
