"""What the Open Inference Protocol answers, over HTTP and gRPC: the tensors of a model, and logits in them."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from samdeploy.arrays import Float32Array
from samdeploy.bundle import Bundle
from samdeploy.bundle.spec import ModelSpec
from samdeploy.serve.infer_request import CLASSES, InferRequest, WantedOutput

EXTENSIONS = ("binary_tensor_data", "classification")


def model_metadata(name: str, versions: Sequence[str], bundle: Bundle) -> dict[str, Any]:
    """The answer to GET v2/models/NAME, which tells clients of tensors; -1 is any number of images."""
    spec = bundle.spec
    height, width = spec.preprocessing.height, spec.preprocessing.width
    return {
        "name": name,
        "versions": list(versions),
        "platform": "samdeploy",
        "inputs": [{"name": spec.input.name, "datatype": "UINT8", "shape": [-1, height, width, 3]}],
        "outputs": [
            {"name": spec.output.name, "datatype": "FP32", "shape": [-1, len(spec.classes)]},
            {"name": CLASSES, "datatype": "BYTES", "shape": [-1]},
        ],
    }


def model_config(name: str, bundle: Bundle, batch: int, precision: str) -> dict[str, Any]:
    """The answer to GET v2/models/NAME/config, Triton's extension, for perf_analyzer and `bench --url`."""
    spec = bundle.spec
    height, width = spec.preprocessing.height, spec.preprocessing.width
    return {
        "name": name,
        "platform": "samdeploy",
        "max_batch_size": batch,
        "input": [{"name": spec.input.name, "data_type": "TYPE_UINT8", "dims": [height, width, 3]}],
        "output": [
            {"name": spec.output.name, "data_type": "TYPE_FP32", "dims": [len(spec.classes)]},
            {"name": CLASSES, "data_type": "TYPE_STRING", "dims": []},
        ],
        "parameters": {"precision": {"string_value": precision}},
    }


def answer_tensor(
    wanted: WantedOutput, logits: Float32Array, spec: ModelSpec
) -> tuple[str, list[int], Float32Array | list[str]]:
    """(datatype, shape, values) of one output: float32 [N, K], or texts in the order of the shape."""
    if wanted.name == CLASSES:
        return "BYTES", [len(logits)], [spec.classes[index] for index in logits.argmax(axis=1).tolist()]
    if not wanted.classification:
        return "FP32", list(logits.shape), logits
    best = np.argsort(-logits, axis=1, kind="stable")[:, : wanted.classification]
    texts = [
        f"{row[index]:f}:{index}:{spec.classes[index]}"
        for row, order in zip(logits, best, strict=True)
        for index in order.tolist()
    ]
    return "BYTES", [len(logits), wanted.classification], texts


def write_infer(
    name: str, version: str, request: InferRequest, logits: Float32Array, spec: ModelSpec
) -> tuple[bytes, int]:
    """The body of an answer, and the length of the JSON at its front where binary tensors follow, else 0."""
    outputs: list[dict[str, Any]] = []
    behind: list[bytes] = []
    for wanted in request.outputs:
        datatype, shape, values = answer_tensor(wanted, logits, spec)
        output: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": shape}
        if wanted.binary:
            behind.append(raw_bytes(values))
            output["parameters"] = {"binary_data_size": len(behind[-1])}
        else:
            output["data"] = values if isinstance(values, list) else values.ravel().tolist()
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": outputs}
    if request.id:
        answer["id"] = request.id
    front = json.dumps(answer, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    return b"".join([front, *behind]), len(front) if behind else 0


def raw_bytes(values: Float32Array | list[str]) -> bytes:
    """A tensor as it goes behind the JSON, or into gRPC: little-endian floats, or texts after their lengths."""
    if isinstance(values, list):
        texts = [text.encode("utf-8", "replace") for text in values]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return values.astype("<f4", copy=False).tobytes()
