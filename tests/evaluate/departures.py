"""What the tests of `eval --why` share: a fault of one weight, and what is said of any."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.numpy_helper

from samdeploy.bundle import Bundle
from samdeploy.evaluate.why.explain import Why
from samdeploy.files import json_bytes
from samdeploy.report.text.why import why_table
from tests.evaluate import faults

Seal = Callable[[Path], Bundle]
CPU_RUNTIMES = ("onnxruntime", "openvino")


def one_weight(model: onnx.ModelProto) -> None:
    """One of the 147,456 weights of a convolution."""
    weight = faults._weights(model)["layer2.0.conv2.weight"]
    array = onnx.numpy_helper.to_array(weight).copy()
    array[3, 5, 1, 1] += 0.5
    faults._rewrite(weight, array)


def check_words_and_json(why: Why) -> None:
    text = why_table(why)
    assert max(len(line) for line in text.splitlines()) <= 80
    marked = [line.split()[0] for line in text.splitlines() if line.endswith(" <")]
    assert marked == [why.name]
    assert " ".join(text.split()).endswith(f"likely cause: {' '.join(why.cause.split())}")
    values = json.loads(json_bytes(why.to_json()))
    assert (values["first"], values["cause"], values["n_tensors"]) == (why.name, why.cause, len(why.rows))
    assert why.name in [row["name"] for row in values["tensors"]]
