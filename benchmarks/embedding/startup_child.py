"""From the start of the process's own code to the first answer: startup_child.py PROGRAM RUNTIME BUNDLE IMAGE

PROGRAM "samdeploy": import, `Classifier.open` with all its checks, `predict` of a file.
PROGRAM "bare": the runtime alone, as its manual shows: load the same graph, and run one picture of the right size
that is an array already.  What samdeploy does on top (hashes, golden pictures, proof of precision, decoding and
resizing, softmax) is what is measured.  Prints one JSON line.
"""

from __future__ import annotations

import time

START = time.perf_counter()


def main() -> None:
    import json
    import sys

    program, runtime, bundle, image = sys.argv[1:]
    marks = samdeploy(runtime, bundle, image) if program == "samdeploy" else bare(runtime, bundle)
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

    graph = f"{bundle}/model.fp32.onnx"
    if runtime == "openvino":
        import openvino as ov

        marks = [time.perf_counter()]
        core = ov.Core()
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}  # those of the session
        compiled = core.compile_model(core.read_model(graph), "CPU", settings)
        height, width = (axis.get_length() for axis in list(compiled.input(0).partial_shape)[1:3])
        marks.append(time.perf_counter())
        answer = compiled.create_infer_request().infer({0: np.zeros((1, height, width, 3), np.uint8)})[0]
    else:
        import onnxruntime as ort

        marks = [time.perf_counter()]
        inference = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
        _, height, width, _ = inference.get_inputs()[0].shape
        marks.append(time.perf_counter())
        answer = inference.run(None, {"image": np.zeros((1, height, width, 3), np.uint8)})[0]
    assert np.isfinite(answer).all()
    return [*marks, time.perf_counter()]


if __name__ == "__main__":
    main()
