"""The text of Triton's config.pbtxt; the fields are those of its model_config.proto."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samdeploy.bundle.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Word:
    """A name of an enumeration, which stands without quotes."""

    text: str


Value = str | int | bool | Word | Mapping[str, Any] | Sequence[Any]


def text_of(message: Mapping[str, Value], indent: str = "") -> str:
    """A message in protobuf's text format: a mapping is a message, a list a repeated field.

    >>> print(text_of({"name": "cat", "dims": [2, 3], "kind": Word("KIND_CPU")}), end="")
    name: "cat"
    dims: [2, 3]
    kind: KIND_CPU
    """
    return "".join(_field(name, value, indent) for name, value in message.items())


def _field(name: str, value: Value, indent: str) -> str:
    if isinstance(value, Mapping):
        return f"{indent}{name} {{\n{text_of(value, indent + '  ')}{indent}}}\n"
    if isinstance(value, Sequence) and not isinstance(value, str):
        if value and isinstance(value[0], Mapping):
            return "".join(_field(name, one, indent) for one in value)
        return f"{indent}{name}: [{', '.join(map(_scalar, value))}]\n"
    return f"{indent}{name}: {_scalar(value)}\n"


def _scalar(value: str | int | bool | Word) -> str:
    if isinstance(value, Word):
        return value.text
    return json.dumps(value)  # true, 7, "text": as protobuf writes them


def image(spec: ModelSpec) -> dict[str, Value]:
    """The tensor that the network takes, without its batch: uint8 [H, W, 3]."""
    size = spec.preprocessing
    return {"name": spec.input.name, "data_type": Word("TYPE_UINT8"), "dims": [size.height, size.width, 3]}


def encoded() -> dict[str, Value]:
    """An encoded image: one text for each image of the batch."""
    return {"name": "encoded", "data_type": Word("TYPE_STRING"), "dims": [1]}


def logits(spec: ModelSpec, labels: str = "") -> dict[str, Value]:
    """float32 [K]; `labels` names the file with the classes, one a line."""
    found: dict[str, Value] = {
        "name": spec.output.name, "data_type": Word("TYPE_FP32"), "dims": [len(spec.classes)],
    }  # fmt: skip
    return found | ({"label_filename": labels} if labels else {})


def batching(most: int, delay_us: int) -> dict[str, Value]:
    """Batches of up to `most` images, which wait for one another."""
    return {"max_batch_size": most, "dynamic_batching": {"max_queue_delay_microseconds": delay_us}}


def on(kind: str, count: int = 1) -> dict[str, Value]:
    """How many instances, and where: KIND_CPU, KIND_GPU, or KIND_AUTO, a GPU where there is one."""
    return {"instance_group": [{"count": count, "kind": Word(kind)}]}
