"""What `samdeploy eval` costs beyond the runtimes, and how its memory grows with the test set.

    .venv/bin/python benchmarks/evaluate/overhead.py [--out FILE.json] [--images 2000] [--rounds 5] [--no-memory]

Fashion-MNIST's test images at 64 px through SAM-ResNet-18 in PyTorch, ONNX Runtime and OpenVINO.  The weights are
random: speed and memory do not depend on them.

Time: each of eval's passes (PyTorch's with reading, resizing, keeping and hashing the images; the engines' with
reading them back) and a bare loop over the same batches on the same runtime object, one after the other, the order
turning with each round.  What counts is the ratio within a round, of wall time, and of processor time, which other
programs disturb less.  The comparison of the logits is added, once for each engine.  Not part of it: opening engines,
and the latency run, which takes the time it takes.

Memory: the peak resident set (VmHWM) of `samdeploy eval` over 2,000 and over 10,000 images, each in a process of its
own.  The prepared images would take 12,288 bytes each: 98 MB more for 8,000 more.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PX = 64
SIZES = (2_000, 10_000)
BACKENDS = ("pytorch", "onnxruntime", "openvino")
# Wall and processor seconds, of eval's pass and of the bare loop.
Turn = tuple[tuple[float, float], tuple[float, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, default=2000, help="for the times")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="samdeploy-overhead-") as folder:
        work = Path(folder)
        bundle = make_bundle(work)
        report: dict[str, Any] = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "px": PX, **where()}
        report["memory"] = [] if options.no_memory else [peak(bundle, work, count) for count in SIZES]
        report["time"] = times(bundle, subset(work, options.images), options.rounds)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def where() -> dict[str, Any]:
    """Machine and versions."""
    from samdeploy.evaluate.machine import machine, versions

    return {"machine": machine(), "load_1min": os.getloadavg()[0], "versions": versions()}


def make_bundle(work: Path) -> Path:
    """A bundle of random weights whose batch norms hold plausible statistics."""
    import torch

    from samdeploy.bundle.names import WEIGHTS_FILE
    from samdeploy.bundle.spec import Preprocessing
    from samdeploy.data import load_images, open_dataset
    from samdeploy.export import ExportOptions, export_run
    from samdeploy.models import build_model, save_weights
    from samdeploy.models.graph import Normalize
    from samdeploy.runs.record import RunRecord, write_run

    preprocessing = Preprocessing(PX, PX)
    dataset = open_dataset("fashion-mnist")
    images, _ = load_images(dataset.val.take(dataset.val.labels[:128]), preprocessing, description="statistics")
    torch.manual_seed(0)
    net = build_model("sam-resnet18", 10, {"gate": "identity"})
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(Normalize(preprocessing)(torch.from_numpy(images)))
    run_dir = work / "run"
    run_dir.mkdir()
    save_weights(net.eval(), run_dir / WEIGHTS_FILE)
    write_run(run_dir, RunRecord(
        arch="sam-resnet18", options={"gate": "identity"}, classes=dataset.classes, preprocessing=preprocessing,
        dataset="fashion-mnist", data_options={}, data_root="data", val_fraction=0.1, split_seed=0, counts={},
        fingerprints={}, status="complete", best_epoch=1, best_val_top1=0.0, best_val_loss=0.0, test_top1=None,
        test_correct=None, test_images=None, provenance={"made_by": "benchmarks/evaluate/overhead.py, random weights"},
    ))  # fmt: skip
    return export_run(run_dir, ExportOptions(engine="onnxruntime")).bundle


def subset(work: Path, count: int) -> Path:
    """Fashion-MNIST with the first `count` test images, as files of the same kind."""
    from samdeploy.data.sets.fashion_mnist import DEBIAN_FOLDER, FILES
    from samdeploy.data.sets.idx import read_idx

    folder = work / f"fashion-{count}"
    if folder.is_dir():
        return folder
    folder.mkdir()
    for name in FILES[:2]:
        (folder / f"{name}.gz").symlink_to(DEBIAN_FOLDER / f"{name}.gz")
    for name, axes in ((FILES[2], 3), (FILES[3], 1)):
        array = read_idx(DEBIAN_FOLDER / f"{name}.gz", axes)[:count]
        header = struct.pack(f">BBBB{axes}I", 0, 0, 8, axes, *array.shape)
        (folder / name).write_bytes(header + array.tobytes())
    return folder


def peak(bundle: Path, work: Path, count: int) -> dict[str, Any]:
    """Peak memory of `samdeploy eval` over `count` images."""
    code = (
        "import sys; from samdeploy.cli import main\n"
        "try: main()\n"
        "finally: print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    line = [sys.executable, "-c", code, "eval", bundle, "--data", subset(work, count), "--device", "cpu"]
    start = time.perf_counter()
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if "engine" not in done.stdout:
        raise SystemExit(f"samdeploy eval failed: {done.stderr}")
    mib = int(done.stdout.split()[-1]) / 1024
    print(f"{count:7,} images: peak {mib:8.1f} MiB, {seconds:6.1f} s with start, engines and latency", flush=True)
    return {"images": count, "peak_mib": mib, "seconds": seconds}


def times(bundle_path: Path, data: Path, rounds: int) -> dict[str, Any]:
    """Eval's passes and bare loops, in turns."""
    from samdeploy.backends import open_session
    from samdeploy.bundle import open_bundle
    from samdeploy.evaluate.accuracy.compare import compare
    from samdeploy.evaluate.passes import BATCH, engine_pass
    from samdeploy.evaluate.test_set.open import open_test_set
    from samdeploy.evaluate.test_set.prepared import PreparedImages

    bundle = open_bundle(bundle_path)
    test = open_test_set(bundle, data)
    sessions = {name: open_session(bundle, name, device="cpu") for name in BACKENDS}
    rows: dict[str, list[Turn]] = {name: [] for name in (*BACKENDS, "comparison")}
    with PreparedImages(len(test.samples), PX, PX) as images:
        reference = _reference_pass(sessions["pytorch"], bundle, test, images)
        batches = list(images.batches(BATCH))
        passes: dict[str, Callable[[], Any]] = {
            name: lambda name=name: engine_pass(sessions[name], images, 10, name) for name in BACKENDS[1:]
        }

        def pytorch() -> Any:
            with PreparedImages(len(test.samples), PX, PX) as own:
                return _reference_pass(sessions["pytorch"], bundle, test, own)

        passes["pytorch"] = pytorch
        for turn in range(rounds + 1):  # the first round warms up
            for name in BACKENDS:
                kinds = {"eval": passes[name], "bare": lambda name=name: _bare(name, sessions[name], batches)}
                took = {}
                for kind in sorted(kinds, reverse=bool(turn % 2)):
                    time.sleep(0.2)  # idle threads of the runtime before spin for a while
                    took[kind] = _timed(kinds[kind])
                rows[name].append((took["eval"], took["bare"]))
            took = {"eval": _timed(lambda: [compare(reference, reference, test.samples.labels) for _ in BACKENDS[1:]])}
            rows["comparison"].append((took["eval"], (0.0, 0.0)))
    return _summary(len(test.samples), {name: turns[1:] for name, turns in rows.items()})


def _timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds."""
    start, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start, time.process_time() - processor


def _reference_pass(session: Any, bundle: Any, test: Any, images: Any) -> Any:
    from contextlib import closing

    from samdeploy.data.images import Fingerprint
    from samdeploy.data.stream import stream_images
    from samdeploy.evaluate.passes import BATCH, reference_pass

    blocks = stream_images(test.samples, bundle.spec.preprocessing, description="test images", block=BATCH)
    with closing(blocks):
        digest = Fingerprint(images.shape)
        logits = reference_pass(session, blocks, images, digest, 10)
        digest.hexdigest(test.samples.labels)
        return logits


def _bare(name: str, session: Any, batches: list[Any]) -> None:
    """The runtime's own call on its own object, over images that lie in memory."""
    inner = session._session
    if name == "pytorch":
        import torch

        with torch.inference_mode():
            for batch in batches:
                inner._network(torch.from_numpy(batch)).numpy()
    elif name == "onnxruntime":
        for batch in batches:
            inner._inference.run(None, {"image": batch})
    else:
        for batch in batches:
            inner._request.infer({0: batch}, share_inputs=True, share_outputs=False)


def _summary(count: int, rows: dict[str, list[Turn]]) -> dict[str, Any]:
    rounds = range(len(rows["comparison"]))
    print(f"\n{count:,} images, {len(rounds)} rounds; medians")
    print(f"{'pass':<12} {'eval s':>8} {'bare s':>8} {'ratio':>6} {'of processor time':>18} {'threads busy':>13}")
    for name, turns in rows.items():
        own, bare = (statistics.median(turn[side][0] for turn in turns) for side in (0, 1))
        busy = statistics.median(turn[0][1] / turn[0][0] for turn in turns)
        ratios = [
            f"{statistics.median(turn[0][clock] / turn[1][clock] for turn in turns):.3f}" if bare else "-"
            for clock in (0, 1)
        ]
        print(f"{name:<12} {own:8.3f} {bare:8.3f} {ratios[0]:>6} {ratios[1]:>18} {busy:13.2f}")
    report: dict[str, Any] = {"images": count, "rounds_eval_and_bare_wall_and_processor_s": rows}
    for clock, name in enumerate(("wall", "processor")):
        ratios = [
            sum(turns[turn][0][clock] for turns in rows.values())
            / sum(turns[turn][1][clock] for turns in rows.values())
            for turn in rounds
        ]
        report[f"total_{name}_ratio"] = ratios
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        print(f"all together, {name} time: {statistics.median(ratios):.3f} times the bare runtimes ({spread})")
    return report


if __name__ == "__main__":
    main()
