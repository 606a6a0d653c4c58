"""Images a second of `--engine ray` on this machine against the plain labelling, in turns.

    python benchmarks/label/on_ray.py BUNDLE IMAGES [--precision int8] [--rounds 3] [--images-used 1000] [--out FILE]

IMAGES is a folder of photographs; they are written anew as JPEG of 640x480, quality 90.  Both ways open the engine and
label the same images with the same threads; Ray has one worker, so that both have the same processors.  A cluster is
there already in daily life: what starting one takes is named beside.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import ray
from rates import photographs  # the script beside this one

from samdeploy import Classifier
from samdeploy.evaluate.machine import machine, versions
from samdeploy.label.label import label
from samdeploy.label.options import LabelOptions
from samdeploy.label.ray import Wanted, label_on_ray

ROWS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images-used", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        files = photographs(options.images, folder, options.images_used)
        begin = time.perf_counter()
        ray.init(include_dashboard=False, log_to_driver=False)
        started = time.perf_counter() - begin
        found: dict[str, list[float]] = {"plain": [], "ray": []}
        outs = {way: Path(name) / way for way in found}
        for _ in range(options.rounds):
            begin = time.perf_counter()
            with Classifier.open(options.bundle, "onnxruntime", precision=options.precision) as classifier:
                assert label(classifier, LabelOptions(str(folder), outs["plain"], ROWS)).whole
            found["plain"].append(len(files) / (time.perf_counter() - begin))
            begin = time.perf_counter()
            wanted = Wanted(options.bundle, "onnxruntime", precision=options.precision, workers=1)
            assert label_on_ray(wanted, LabelOptions(str(folder), outs["ray"], ROWS))[0].whole
            found["ray"].append(len(files) / (time.perf_counter() - begin))
            for part in outs["plain"].glob("part-*"):
                assert part.read_bytes() == (outs["ray"] / part.name).read_bytes()
            for out in outs.values():
                shutil.rmtree(out)
        spec = classifier.bundle.spec
    rates = {way: median(each) for way, each in found.items()}
    values = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(), "versions": {**versions(), "ray": ray.__version__},
        "command": f"benchmarks/label/on_ray.py BUNDLE IMAGES --precision {options.precision}",
        "network": f"{spec.arch}, {spec.preprocessing.width} px, onnxruntime, {options.precision}",
        "images": f"{len(files)} JPEG of 640x480, quality 90", "images_per_s": found, "medians": rates,
        "ray_over_plain": rates["ray"] / rates["plain"], "cluster_started_in_s": round(started, 2),
    }  # fmt: skip
    print(json.dumps(values, indent=1))
    if options.out:
        options.out.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
