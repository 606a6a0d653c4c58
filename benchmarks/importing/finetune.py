"""Fine-tuning from published weights beside training from scratch, and beside a frozen trunk, with equal epochs.

    .venv/bin/python benchmarks/importing/finetune.py IMAGES WEIGHTS [--arch timm:tf_efficientnet_lite0] [--size 96]
        [--epochs 5] [--seeds 3] [--out FILE.json]

IMAGES holds train/, val/ and test/.  Each training is `samdeploy train` in a process of its own; the test images are
looked at once in each, at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from scipy.stats import binomtest

from samdeploy.runs.record import open_run

# What each way changes; learning rates are the usual ones of each, and not searched.
WAYS = {
    "from scratch": ("model.pretrained=false", "training.learning_rate=1e-3"),
    "fine-tuned": ("model.pretrained={weights}", "training.learning_rate=3e-4"),
    "head alone": ("model.pretrained={weights}", "training.learning_rate=3e-3", "training.freeze=trunk"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--arch", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--size", default="96")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for way, changes in WAYS.items():
                start = time.perf_counter()
                settings = [change.format(weights=options.weights.resolve()) for change in changes]
                settings += [f"model.arch={options.arch}", f"training.seed={seed}", "augment.flip=true"]
                command = [sys.executable, "-m", "samdeploy", "train", str(options.images), "--runs", folder]
                command += ["--size", options.size, "--epochs", str(options.epochs)]
                command += [part for setting in settings for part in ("--set", setting)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                run = open_run(Path(done.stdout.strip().splitlines()[-1]))
                assert run.test_correct is not None and run.test_images is not None
                interval = binomtest(run.test_correct, run.test_images).proportion_ci()
                rows.append(
                    {
                        "way": way,
                        "seed": seed,
                        "test_top1": run.test_top1,
                        "interval": [round(100 * end, 2) for end in (interval.low, interval.high)],
                        "test_images": run.test_images,
                        "seconds": round(time.perf_counter() - start),
                    }
                )
                print(rows[-1], flush=True)
    for way in WAYS:
        found = [row["test_top1"] for row in rows if row["way"] == way]
        print(f"{way:14} mean {statistics.mean(found):.2f} %, {min(found):.2f} to {max(found):.2f}, n = {len(found)}")
    if options.out:
        result = {
            "machine": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "command": "benchmarks/importing/finetune.py",
            "versions": {name: version(name) for name in ("torch", "timm")},
            "arch": options.arch,
            "size": options.size,
            "epochs": options.epochs,
            "rows": rows,
        }
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
