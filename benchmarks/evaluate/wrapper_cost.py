"""What one `Session.run` costs over the runtime's own call: Python calls, and microseconds.

    .venv/bin/python benchmarks/evaluate/wrapper_cost.py [--rounds 300] [--out FILE.json]

On a graph that is nearly nothing (the mean of an 8x8 image), so that the wrapper is most of the time.  Raw call and
session take turns; the figure is the median of the differences within a round, each of the fastest of some runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from samdeploy.backends.session import CheckedSession, Session
from samdeploy.bundle.spec import ModelSpec, Preprocessing, model_spec
from samdeploy.evaluate.machine import machine, versions

MOST_CALLS = 25
MOST_US = 20.0
_RUNS = 20

SPEC: ModelSpec = model_spec("sam-resnet18", {"gate": "identity"}, ("dark", "light", "other"), Preprocessing(8, 8))
BATCH = np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3)
Call = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [row(name, *make(), options.rounds) for name, make in RUNTIMES.items()]
    report = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "machine": machine(), "versions": versions(), "rows": rows}
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    if not all(found["holds"] for found in rows):
        raise SystemExit(1)


def row(name: str, raw: Call, wrapped: Call, rounds: int) -> dict[str, object]:
    """Calls and microseconds of one runtime, printed and returned."""
    calls = python_calls(wrapped) - python_calls(raw)
    times: dict[str, list[float]] = {"raw": [], "wrapped": []}
    for number in range(rounds):
        pair = [("raw", raw), ("wrapped", wrapped)]
        for key, call in pair if number % 2 else reversed(pair):
            times[key].append(fastest_us(call))
    differences = np.subtract(times["wrapped"], times["raw"])
    low, median, high = (float(value) for value in np.percentile(differences, [10, 50, 90]))
    holds = calls <= MOST_CALLS and median <= MOST_US
    print(
        f"{name:<12} {calls:3d} Python calls, {median:5.1f} us (p10 {low:.1f}, p90 {high:.1f}) over a raw call of "
        f"{np.median(times['raw']):.1f} us, n = {rounds} rounds: {'holds' if holds else 'TOO MUCH'}"
    )
    return {
        "runtime": name,
        "python_calls": calls,
        "us": median,
        "us_p10": low,
        "us_p90": high,
        "raw_us": float(np.median(times["raw"])),
        "rounds": rounds,
        "holds": holds,
    }


def fastest_us(call: Call) -> float:
    """Microseconds of the fastest of some runs: the others are those that something disturbed."""
    best = float("inf")
    for _ in range(_RUNS):
        start = time.perf_counter_ns()
        call()
        best = min(best, (time.perf_counter_ns() - start) / 1e3)
    return best


def python_calls(call: Call) -> int:
    """Python functions that one call enters, `call` itself left out."""
    count = 0

    def counting(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    call()  # what happens on the first call only is not what one more costs
    sys.setprofile(counting)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count - 1


def tiny_graph() -> bytes:
    """uint8 [N, 8, 8, 3] -> float32 [N, 3]: the mean of each channel."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["float", "axes"], ["logits"], keepdims=0),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])],
    )
    opset = helper.make_opsetid("", 18)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def checked(session: Session) -> Call:
    wrapped = CheckedSession(session, SPEC)
    return lambda: wrapped.run(BATCH)


def onnxruntime() -> tuple[Call, Call]:
    import onnxruntime as ort

    from samdeploy.backends.onnxruntime.session import OnnxruntimeSession

    inference = ort.InferenceSession(tiny_graph(), providers=["CPUExecutionProvider"])
    return lambda: inference.run(None, {"image": BATCH}), checked(OnnxruntimeSession(inference, "fp32", SPEC))


def openvino() -> tuple[Call, Call]:
    import openvino as ov

    from samdeploy.backends.openvino.session import OpenvinoSession

    core = ov.Core()
    compiled = core.compile_model(core.read_model(tiny_graph()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request = compiled.create_infer_request()
    raw = lambda: request.infer({0: BATCH}, share_inputs=True)  # noqa: E731
    return raw, checked(OpenvinoSession(compiled, "fp32", SPEC))


def pytorch() -> tuple[Call, Call]:
    import torch

    from samdeploy.backends.pytorch import PytorchSession

    class Mean(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.float().mean((1, 2))

    network = Mean().eval()

    @torch.inference_mode()
    def raw() -> object:
        return network(torch.tensor(BATCH)).numpy()

    return raw, checked(PytorchSession(Mean(), "cpu"))


RUNTIMES: dict[str, Callable[[], tuple[Call, Call]]] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "pytorch": pytorch,
}


if __name__ == "__main__":
    main()
