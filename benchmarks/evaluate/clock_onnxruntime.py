"""Polygraphy's runner for ONNX Runtime with its own clock, and ours."""

from __future__ import annotations

import itertools
import statistics

from clock_case import Case, in_turns

# Runs whose median is one turn.
RUNS = 15


def one_engine(case: Case, seconds: float) -> tuple[list[tuple[float, float]], int]:
    """Both on one and the same open session, in turns; nothing is left out."""
    import onnxruntime
    from polygraphy.backend.onnxrt import OnnxrtRunner

    from samdeploy.backends.onnxruntime.session import OnnxruntimeSession
    from samdeploy.backends.session import CheckedSession
    from samdeploy.evaluate.latency.clock import host_timer, warm_up

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = case.threads
    session = onnxruntime.InferenceSession(str(case.graph), settings, providers=["CPUExecutionProvider"])
    wrapped = CheckedSession(OnnxruntimeSession(session, "cpu", "fp32", case.spec), case.spec)
    name, images, timer = case.spec.input.name, case.images(), host_timer(wrapped.run)
    inputs = itertools.cycle(images)
    with OnnxrtRunner(session) as runner:

        def one_of_theirs() -> float:
            runner.infer({name: next(inputs)}, check_inputs=False)
            return float(runner.last_inference_time()) * 1e3

        warm_up(timer, images, 3.0)
        return in_turns(
            lambda: statistics.median(one_of_theirs() for _ in range(RUNS)),
            lambda: statistics.median(timer(next(inputs)) for _ in range(RUNS)),
            seconds,
        ), 0
