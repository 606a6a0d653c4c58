"""Does the attention help?  The same recipe with each gate and with none, several seeds each, the same budget.

    .venv/bin/python benchmarks/training/gates.py [--recipe fashion-mnist] [--seeds 3] [--set KEY=VALUE]... \\
        [--into runs/gates] [--out FILE.json]

Stopped, it goes on where it was when it is started again: each gate is a `samdeploy reproduce` in a folder of its own.
Validation chooses the epoch; the test images are looked at once per run.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from datetime import UTC, datetime
from pathlib import Path

from samdeploy.evaluate.machine import machine, versions
from samdeploy.models.sam_resnet.attention import GATES
from samdeploy.train.recipe.load import load_recipe
from samdeploy.train.reproduce import reproduce
from samdeploy.train.reproduction import Reproduction
from samdeploy.train.run.folder import GATES_FILE
from samdeploy.train.watch.activations import FP16_MAX


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="fashion-mnist")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--into", type=Path, default=Path("runs/gates"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found: dict[str, Reproduction] = {}
    # One seed of every gate before the next seed: what is stopped early is still a fair comparison.
    for count in range(1, options.seeds + 1):
        for gate in GATES:
            recipe = load_recipe(options.recipe, [*options.settings, f"model.gate={gate}"])
            found[gate] = reproduce(recipe, count=count, folder=options.into / gate)
    print()
    print(table(found))
    if options.out:
        values = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
            "recipe": options.recipe,
            "settings": options.settings,
            "gates": {gate: one.to_json() | {"largest": largest(one)} for gate, one in found.items()},
        }
        options.out.write_text(json.dumps(values, indent=2) + "\n")


def table(found: dict[str, Reproduction]) -> str:
    """A line per gate."""
    lines = [
        f"{'gate':9} {'mean':>6} {'sd':>5} {'95 % interval':>16}  {'test top-1 of each seed':23}"
        "  largest activation, bits to FP16's end"
    ]
    for gate, one in found.items():
        mean, sd, interval = one.mean(), one.sd(), one.interval()
        cells = "diverged" if mean is None else f"{mean:6.2f}"
        spread = "" if sd is None else f"{sd:5.2f}"
        limits = "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"
        each = ", ".join("diverged" if run.test_top1 is None else f"{run.test_top1:.2f}" for run in one.runs)
        activation = max((value for value in largest(one) if value is not None), default=math.nan)
        bits = math.log2(FP16_MAX / activation)
        lines.append(f"{gate:9} {cells:>6} {spread:>5} {limits:>16}  {each:23}  {activation:.1f}, {bits:.1f}")
    return "\n".join(lines)


def largest(found: Reproduction) -> list[float | None]:
    """Largest activation of each run in the epoch that was kept, over the images that gates.csv is of."""
    values: list[float | None] = []
    for run in found.runs:
        if run.path is None:
            values.append(None)
            continue
        with (Path(run.path) / GATES_FILE).open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["epoch"]) == run.best_epoch]
        values.append(max(float(row["largest"]) for row in rows))
    return values


if __name__ == "__main__":
    main()
