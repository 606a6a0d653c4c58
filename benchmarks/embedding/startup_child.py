"""From the start of the process's own code to the first answer: startup_child.py PROGRAM RUNTIME BUNDLE IMAGE

PROGRAM "samdeploy": import, `Classifier.open` with all its checks, `predict` of a file.
PROGRAM "bare": the runtime alone, as its manual shows: load the same graph, and run one image of the right size
that is an array already.  What samdeploy does on top (hashes, golden images, proof of precision, decoding and
resizing, softmax) is what is measured.
PROGRAM "by hand": the least that anybody must do who keeps the promises of docs/bundle.md, written for this one graph:
hash it in a thread while the runtime is imported, run the golden images, then decode and resize one with Pillow.
Prints one JSON line.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

START = time.perf_counter()


def main() -> None:
    import json
    import sys

    program, runtime, bundle, image = sys.argv[1:]
    if program == "samdeploy":
        marks = samdeploy(runtime, bundle, image)
    else:
        marks = bare(runtime, bundle) if program == "bare" else by_hand(runtime, bundle, image)
    marks = [1e3 * (mark - START) for mark in marks]
    if "torch" in sys.modules:
        raise SystemExit("PyTorch was loaded")
    names = ("import_ms", "open_ms", "first_ms")
    spans = [after - before for before, after in zip([0.0, *marks], marks, strict=False)]
    print(json.dumps({"program": program, "runtime": runtime, **dict(zip(names, spans, strict=True)), "ms": marks[-1]}))


def samdeploy(runtime: str, bundle: str, image: str) -> list[float]:
    from samdeploy import Classifier

    marks = [time.perf_counter()]
    with Classifier.open(bundle, runtime, device="cpu") as classifier:
        marks.append(time.perf_counter())
        assert classifier.predict(image).label
        marks.append(time.perf_counter())
    return marks


def bare(runtime: str, bundle: str) -> list[float]:
    import numpy as np

    marks, infer, (height, width) = load(runtime, f"{bundle}/model.fp32.onnx")
    assert np.isfinite(infer(np.zeros((1, height, width, 3), np.uint8))).all()
    return [*marks, time.perf_counter()]


def by_hand(runtime: str, bundle: str, image: str) -> list[float]:
    import hashlib
    import json
    import threading

    with open(f"{bundle}/manifest.json", "rb") as manifest:  # noqa: PTH123 - pathlib would count
        (graph,) = [file for file in json.load(manifest)["files"] if file["role"] == "graph"]
    found: list[str] = []

    def digest() -> None:
        with open(f"{bundle}/{graph['path']}", "rb") as file:  # noqa: PTH123
            found.append(hashlib.sha256(file.read()).hexdigest())

    hashing = threading.Thread(target=digest)
    hashing.start()
    import numpy as np
    from PIL import Image

    importlib.import_module(runtime)
    hashing.join()
    assert found == [graph["sha256"]]
    marks, infer, (height, width) = load(runtime, f"{bundle}/{graph['path']}")
    answers = np.load(f"{bundle}/golden/logits.npy")
    assert np.allclose(infer(np.load(f"{bundle}/golden/images.npy")), answers, atol=1e-4 * np.ptp(answers))
    marks[-1] = time.perf_counter()
    with Image.open(image) as opened:
        pixels = np.asarray(opened.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    assert np.isfinite(infer(pixels[None])).all()
    return [*marks, time.perf_counter()]


def load(runtime: str, graph: str) -> tuple[list[float], Callable[[Any], Any], tuple[int, int]]:
    """When the runtime was imported and the graph loaded; what runs a batch; height and width of an image."""
    if runtime == "openvino":
        import openvino as ov

        marks = [time.perf_counter()]
        core = ov.Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}  # those of the session
        compiled = core.compile_model(core.read_model(graph), "CPU", settings)
        height, width = (axis.get_length() for axis in list(compiled.input(0).partial_shape)[1:3])
        request = compiled.create_infer_request()
        marks.append(time.perf_counter())
        return marks, lambda batch: request.infer({0: batch})[0], (height, width)
    import onnxruntime as ort

    marks = [time.perf_counter()]
    inference = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    _, height, width, _ = inference.get_inputs()[0].shape
    marks.append(time.perf_counter())
    return marks, lambda batch: inference.run(None, {"image": batch})[0], (height, width)


if __name__ == "__main__":
    main()
