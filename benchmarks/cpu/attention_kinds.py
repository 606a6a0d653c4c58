"""What attention costs in engines: ResNet-50 with each of timm's kinds, and SAM-ResNet-50, over ResNet-50 without.

    .venv/bin/python benchmarks/cpu/attention_kinds.py [--size 224] [--batch 1 16] [--rounds 11] [--out FILE.json]

Weights are random, which changes no time.  Every network goes the whole way: import, export, and a session that passed
its golden images.  All take turns in one process; a cost is the median over the rounds of the ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import torch

from samdeploy.backends import open_session
from samdeploy.backends.session import Session
from samdeploy.bench.turns import ratio, take_turns
from samdeploy.bundle.open import open_bundle
from samdeploy.errors import BackendUnavailable
from samdeploy.evaluate.latency.measure import random_batches
from samdeploy.export import ExportOptions, export_run
from samdeploy.importing.importing import ImportOptions, import_network
from samdeploy.models import build_model, save_weights
from samdeploy.models.preprocessing import Given

CLASSES = 1000
NONE = "none"
NETWORKS = {
    NONE: ("timm:resnet50", {}),
    "SAM, folded": ("sam-resnet50", {"gate": "identity"}),
    **{
        kind: ("timm:resnet50", {"attention": kind})
        for kind in ("se", "ese", "eca", "gc", "cbam", "lcbam", "coord", "scoord", "strip", "nl")
    },
}
ENGINES = (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))


def bundle_of(name: str, size: int, folder: Path) -> tuple[Path, int]:
    """The bundle of one network, and its number of parameters."""
    arch, options = NETWORKS[name]
    torch.manual_seed(0)
    model = build_model(arch, CLASSES, options)
    weights, classes = folder / f"{name}.safetensors", folder / "classes.txt"
    save_weights(model, weights)
    classes.write_text("\n".join(f"class {index}" for index in range(CLASSES)))
    given = Given(height=size, width=size, fit="squeeze")
    run = import_network(ImportOptions(str(weights), arch, options, classes, given=given), runs_root=folder / "runs")
    bundle = export_run(run, ExportOptions(engine="onnxruntime", precision="fp32", cam=False)).bundle
    return bundle, sum(weight.numel() for weight in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bundles = {name: bundle_of(name, options.size, Path(folder)) for name in NETWORKS}
        for backend, precision in ENGINES:
            with ExitStack() as stack:
                sessions: dict[str, Session] = {}
                try:
                    for name, (bundle, _) in bundles.items():
                        opened = open_session(open_bundle(bundle), backend, precision=precision)
                        sessions[name] = stack.enter_context(opened)
                except BackendUnavailable as error:
                    print(f"{backend} {precision}: {error}")
                    continue
                for batch in options.batch:
                    images = open_bundle(bundles[NONE][0]).golden()[0]
                    runs = {name: session.run for name, session in sessions.items()}
                    turns = take_turns(runs, random_batches(images, batch), options.rounds)
                    for name, times in turns.times.items():
                        cost = ratio(turns.times[NONE], times)
                        assert cost is not None
                        row = {"engine": f"{backend} {precision}", "batch": batch, "attention": name}
                        row |= {"parameters": bundles[name][1]}
                        row |= {
                            "cost_percent": [round(100 * (value - 1), 1) for value in (cost.median, cost.p10, cost.p90)]
                        }
                        rows.append(row)
                        print(row, flush=True)
    result = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "command": "benchmarks/cpu/attention_kinds.py",
        "versions": {name: version(name) for name in ("torch", "timm", "onnxruntime", "openvino")},
        "size": options.size,
        "rounds": options.rounds,
        "rows": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
