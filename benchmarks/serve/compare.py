"""What a server costs: ours beside the engine alone, Triton's Python backend, LitServe and plain FastAPI, in turns.

    python benchmarks/serve/compare.py BUNDLE [--precision int8] [--rounds 20] [--seconds 1] [--images DIR] [--out FILE]

All run the same engine on the same images and are asked by the same client; every answer is compared with the engine's.
Triton runs from scripts/triton; FastAPI and LitServe are left out where they are not installed.  The engine alone is
measured in this process while no server is asked.  Differences and shares are taken within a round, which is short:
other work on the machine then touches both.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
from load import Question, ask, encoded, form, free_port, infer, raw, running
from PIL import Image

from samdeploy import Classifier
from samdeploy.backends import open_session
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle import open_bundle
from samdeploy.evaluate.machine import machine, versions
from samdeploy.export.triton.repository import write_repository

HERE = Path(__file__).parent
TRITON = HERE.parents[1] / "scripts" / "triton"
BATCH = 16
# Triton's Python backend on the engine, tensors in: what its users write.
MODEL = """
import sys, numpy as np, triton_python_backend_utils as pb_utils
from samdeploy.backends import open_session
from samdeploy.bundle import open_bundle
class TritonPythonModel:
    def initialize(self, arguments):
        self.session = open_session(open_bundle({bundle!r}), {backend!r}, precision={precision!r})
    def execute(self, requests):
        images = [pb_utils.get_input_tensor_by_name(one, "image").as_numpy() for one in requests]
        logits = self.session.run(np.concatenate(images))
        ends = np.cumsum([len(one) for one in images])[:-1]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("logits", np.ascontiguousarray(part))])
                for part in np.split(logits, ends)]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--images", type=Path, help="JPEGs, for encoded requests beside `stream`")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    session = open_session(bundle, options.backend, precision=options.precision)
    images, _ = bundle.golden()
    logits = np.concatenate([session.run(image[None]) for image in images])
    found: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        servers = _servers(stack, options, images, logits)
        for number in range(options.rounds):
            engine = _engine(session, images, options.seconds)
            found.setdefault("engine", []).append(engine)
            for name, (address, questions, group) in servers.items():
                with _awake(group):
                    alone = ask(address, questions, 1, options.seconds)
                    many = ask(address, questions, BATCH, options.seconds)
                found.setdefault(name, []).append(
                    {
                        "p50_ms": alone.ms(50), "p99_ms": alone.ms(99), "rate": many.rate,
                        "over_ms": alone.ms(50) - engine["p50_ms"], "share": many.rate / engine["rate"],
                        "p50_ms_of_16": many.ms(50), "p99_ms_of_16": many.ms(99),
                        "other": sum(alone.other.values()) + sum(many.other.values()),
                    }
                )  # fmt: skip
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
        rows = {name: {key: median(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()}
        if options.images:
            with _awake(servers["samdeploy"][2]):
                rows |= _encoded(options, servers["samdeploy"][0])
    print(_table(rows))
    if options.out:
        values = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions() | _versions("fastapi", "litserve", "uvicorn"),
            "command": "benchmarks/serve/compare.py BUNDLE --images DIR",
            "network": f"{bundle.spec.arch}, {bundle.spec.preprocessing.width} px",
            "engine": f"{options.backend}, {options.precision}",
            "rounds": options.rounds, "seconds": options.seconds, "medians": rows, "all": found,
        }  # fmt: skip
        options.out.write_text(json.dumps(values, indent=1) + "\n")


def _servers(
    stack: ExitStack, options: argparse.Namespace, images: np.ndarray, logits: np.ndarray
) -> dict[str, tuple[str, list[Question], int]]:
    """Started, and stopped until they are asked; by name: the address, what is asked there, the process group."""
    tolerance = 1e-3  # the same engine; another batch may sum in another order
    bundle, backend, precision = str(options.bundle.resolve()), options.backend, options.precision
    v2 = [infer("model", image, row, tolerance) for image, row in zip(images, logits, strict=True)]
    plain = [raw("/infer", image, row, tolerance) for image, row in zip(images, logits, strict=True)]
    found = {}
    port = free_port()
    ours = [sys.executable, "-m", "samdeploy", "serve", f"model={bundle}", "--port", str(port), "--backend", backend]
    group = stack.enter_context(running([*ours, "--precision", precision, "--batch", str(BATCH)], port))
    found["samdeploy"] = f"http://127.0.0.1:{port}", v2, group
    if (TRITON.parents[1] / ".venv-triton").is_dir():
        repository = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_repository(open_bundle(bundle), repository, "model", "onnxruntime", None)
        for other in ("model_decode", "model_images", "model_python"):
            shutil.rmtree(repository / other)
        config = repository / "model" / "config.pbtxt"
        text = config.read_text().replace('backend: "onnxruntime"', 'backend: "python"')
        config.write_text(text.replace('default_model_filename: "model.onnx"\n', ""))
        source = MODEL.format(bundle=bundle, backend=backend, precision=precision)
        (repository / "model" / "1" / "model.py").write_text(source)
        port = free_port()
        ports = [f"--http-port={port}", "--allow-grpc=false", "--allow-metrics=false", "--http-address=127.0.0.1"]
        group = stack.enter_context(running([TRITON, repository, *ports], port))
        found["Triton, Python backend"] = f"http://127.0.0.1:{port}", v2, group
    forms = [form("/infer", image, row, tolerance) for image, row in zip(images, logits, strict=True)]
    others = (("FastAPI", "fastapi", (), plain), ("LitServe", "litserve", (str(BATCH),), forms))
    for name, module, more, questions in others:
        if importlib.util.find_spec(module):
            port = free_port()
            script = HERE / f"plain_{module}.py"
            command = [sys.executable, script, bundle, backend, precision, str(port), *more]
            found[name] = f"http://127.0.0.1:{port}", questions, stack.enter_context(running(command, port))
    for *_, group in found.values():
        os.killpg(group, signal.SIGSTOP)
    return found


@contextmanager
def _awake(group: int) -> Iterator[None]:
    """One server runs; the others are stopped, for LitServe takes a fifth of a core while it waits."""
    os.killpg(group, signal.SIGCONT)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGSTOP)


def _engine(session: CheckedSession, images: np.ndarray, seconds: float) -> dict[str, float]:
    """The engine in this process: one image at a time, and its best batch."""
    best, latencies = 0.0, []
    for size in (1, 2, 4, 8, BATCH):
        batch = np.resize(images, (size, *images.shape[1:]))
        session.run(batch)
        times = []
        end = time.perf_counter() + seconds / 2
        while time.perf_counter() < end:
            begin = time.perf_counter()
            session.run(batch)
            times.append(time.perf_counter() - begin)
        best = max(best, size / median(times))
        latencies = latencies or times
    return {"p50_ms": 1000 * median(latencies), "p99_ms": float(1000 * np.percentile(latencies, 99)), "rate": best}


def _encoded(options: argparse.Namespace, address: str) -> dict[str, dict[str, float]]:
    """Encoded images through our server, beside `Classifier.stream` on the same files, in turns."""
    files = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:200]
    with Classifier.open(options.bundle, options.backend, precision=options.precision) as classifier:
        labels = [classifier.predict(path).label for path in files]
        questions = [encoded("model", path.read_bytes(), label) for path, label in zip(files, labels, strict=True)]
        stream, served, other = [], [], 0
        for _ in range(options.rounds):
            begin = time.perf_counter()
            count = sum(1 for _ in classifier.stream(files))
            stream.append(count / (time.perf_counter() - begin))
            answers = ask(address, questions, BATCH, max(2.0, options.seconds))
            served.append(answers.rate)
            other += sum(answers.other.values())
    size = Image.open(files[0]).size
    print(f"encoded: {len(files)} JPEGs, the first {size[0]} x {size[1]}", file=sys.stderr)
    share = median(one / whole for one, whole in zip(served, stream, strict=True))
    return {
        "stream, JPEG": {"rate": median(stream)},
        "samdeploy, JPEG": {"rate": median(served), "share_of_stream": share, "other": other},
    }


_COLUMNS = (("p50_ms", 10), ("over_ms", 10), ("rate", 12), ("share", 12), ("share_of_stream", 12))


def _table(rows: dict[str, dict[str, float]]) -> str:
    lines = [
        f"{'':24}{'1 client':>20}{'16 clients':>36}",
        f"{'':24}{'p50 ms':>10}{'over':>10}{'a second':>12}{'of engine':>12}{'of stream':>12}",
    ]
    for name, row in rows.items():
        cells = [f"{row[key]:{width}.2f}" if key in row else " " * width for key, width in _COLUMNS]
        lines.append(f"{name:24}{''.join(cells)}" + (f"  {row['other']:.0f} not right" if row.get("other") else ""))
    return "\n".join(lines)


def _versions(*names: str) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
