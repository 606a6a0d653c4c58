"""What an engine's inspector proves of the types that its layers compute in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from samdeploy.errors import ExportError
from samdeploy.export.tensorrt.precision_proof import HeavyLayer, check_engine_precision


def _conv(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"Name": name, "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": kind}], **fields}


RIGHT = [_conv("stem", "Half"), _conv("layer1.0.conv1", "Half"), _conv("head", "Half")]
LAYERS = [HeavyLayer("stem", "HALF", 60), HeavyLayer("layer1.0.conv1", "HALF", 37), HeavyLayer("head", "HALF", 3)]


@pytest.mark.parametrize(
    ("entries", "proven"),
    [
        # TensorRT 10: fused layers by name, formats as sentences
        (
            [
                _conv("stem + stem.relu", "Channel major FP16 format where channel % 8 == 0"),
                _conv("layer1.0.conv1", "Half"),
            ],
            True,
        ),
        # TensorRT 11: metadata, types under a key of their own
        (
            [
                {
                    "Name": "__myl_fused",
                    "LayerType": "gemm",
                    "Metadata": "[ONNX Layer: stem]\x1f[ONNX Layer: layer1.0.conv1]",
                    "Inputs": [{"Format": "LINEAR", "Datatype": "Half"}],
                }
            ],
            True,
        ),
        # dynamic shapes: the weights say it
        (
            [
                _conv("stem", "N/A due to dynamic shapes", Weights={"Type": "Half", "Count": 9}),
                _conv("layer1.0.conv1", "N/A due to dynamic shapes", Weights={"Type": "Half", "Count": 9}),
            ],
            True,
        ),
        # a small layer in FP32 is allowed
        ([_conv("stem", "Half"), _conv("layer1.0.conv1", "Half"), _conv("head", "Float")], True),
        # a reformat names the layer that it serves and says nothing of it
        ([*RIGHT, _conv("stem", "Float", LayerType="Reformat", Metadata="[ONNX Layer: stem]")], True),
        ([_conv("x", "Half", LayerType="NoOp", Metadata=f"[ONNX Layer: {name}]") for name in ("stem", "head")], False),
        # one fusion from pixels to logits: its border does not tell the types inside
        ([_conv("__myl", "Float", Metadata="[ONNX Layer: stem]\x1f[ONNX Layer: layer1.0.conv1]")], False),
        # Float in, Half out, no weights: unknown
        ([_conv("stem", "Float", Outputs=[{"Datatype": "Half"}]), _conv("layer1.0.conv1", "Half")], False),
        ([_conv("stem", "N/A due to dynamic shapes"), _conv("layer1.0.conv1", "Half")], False),
        ([_conv("another", "Half")], False),
        ([_conv("stem.2", "Half"), _conv("layer1.0.conv10", "Half")], False),
        (["stem", "layer1.0.conv1"], False),  # names only: not built with DETAILED verbosity
        ([], False),
    ],
)  # fmt: skip
def test_what_an_engine_proves(entries: list[Any], proven: bool) -> None:
    proof = check_engine_precision(json.dumps({"Layers": entries, "Bindings": []}), LAYERS, "fp16")
    assert proof.confirmed is proven


@pytest.mark.parametrize(
    "kind", ["Float", "Row major linear FP32", "Thirty-two wide channel vectorized row major Int8 format"]
)
def test_an_engine_in_another_type_is_an_error(kind: str) -> None:
    information = json.dumps({"Layers": [_conv("stem", "Half"), _conv("layer1.0.conv1", kind)]})
    text = r"fp16 was asked for, but TensorRT built 1 of 3 layers in another type: layer1.0.conv1 \((FLOAT|INT8)\)"
    with pytest.raises(ExportError, match=text):
        check_engine_precision(information, LAYERS, "fp16")


def test_layers_are_counted_by_what_the_engine_shows() -> None:
    mixed = _conv("layer1.0.conv1", "Half", Outputs=[{"Datatype": "Float"}])
    information = json.dumps({"Layers": [_conv("stem", "Half"), mixed, _conv("head", "Float")]})
    note = check_engine_precision(information, LAYERS, "fp16").note
    assert note == "the engine shows 1 of 3 layers in fp16, 1 in another type, 1 unknown"


def test_control_characters_in_metadata_are_read() -> None:
    metadata = "[ONNX Layer: stem]\x1f[ONNX Layer: layer1.0.conv1]"
    information = json.dumps({"Layers": [_conv("x", "Half", Metadata=metadata)]}).replace("\\u001f", "\x1f")
    assert check_engine_precision(information, LAYERS, "fp16").confirmed


@pytest.mark.parametrize(
    ("information", "because"),
    [
        ("", "it is empty"),
        ("no JSON", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError"),
        ('{"Layers": 3}', "TypeError"),
    ],
)
def test_a_description_that_cannot_be_read_is_named(information: str, because: str) -> None:
    proof = check_engine_precision(information, LAYERS, "fp16")
    assert not proof.confirmed
    assert f"the inspector's description of the engine cannot be read ({because}" in proof.note
