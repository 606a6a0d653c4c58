"""What an engine's inspector proves of the types that its layers compute in."""

from __future__ import annotations

import json
from typing import Any

import pytest

from samdeploy.errors import ExportError
from samdeploy.export.precision_proof import HeavyLayer, check_engine_precision


def _conv(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"Name": name, "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": kind}], **fields}


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
        ([_conv("stem", "N/A due to dynamic shapes"), _conv("layer1.0.conv1", "Half")], False),
        ([_conv("another", "Half")], False),
        ([_conv("stem.2", "Half"), _conv("layer1.0.conv10", "Half")], False),
        (["stem", "layer1.0.conv1"], False),  # names only: not built with DETAILED verbosity
        ([], False),
    ],
)  # fmt: skip
def test_what_an_engine_proves(entries: list[Any], proven: bool) -> None:
    assert check_engine_precision(json.dumps({"Layers": entries, "Bindings": []}), LAYERS, "fp16") is proven


@pytest.mark.parametrize(
    "kind", ["Float", "Row major linear FP32", "Thirty-two wide channel vectorized row major Int8 format"]
)
def test_an_engine_in_another_type_is_an_error(kind: str) -> None:
    information = json.dumps({"Layers": [_conv("stem", "Half"), _conv("layer1.0.conv1", kind)]})
    text = r"fp16 was asked for, but TensorRT built 1 of 3 layers in another type: layer1.0.conv1 \((FLOAT|INT8)\)"
    with pytest.raises(ExportError, match=text):
        check_engine_precision(information, LAYERS, "fp16")


@pytest.mark.parametrize("information", ["", "no JSON", "[]", "{}", '{"Layers": 3}'])
def test_an_inspector_that_says_nothing_proves_nothing(information: str) -> None:
    assert check_engine_precision(information, LAYERS, "fp16") is False
