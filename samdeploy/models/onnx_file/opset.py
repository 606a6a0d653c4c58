"""A graph in a version of ONNX's operators that every runtime release reads."""

from __future__ import annotations

import onnx
import onnx.checker
import onnx.defs
import onnx.helper
import onnx.inliner
import onnx.shape_inference
import onnx.version_converter

from samdeploy.errors import InputError, first_line
from samdeploy.models.onnx_file.interface import OWN_DOMAINS, opset_of

# Which every runtime release that samdeploy supports reads.
BUNDLE_OPSETS = range(17, 22)
_RAISED_TO = 18
_ERRORS = (
    onnx.version_converter.ConvertError,
    onnx.checker.ValidationError,
    onnx.shape_inference.InferenceError,
)


def of_bundle_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph in an opset of `BUNDLE_OPSETS`.

    Raises:
        InputError: it cannot be converted.
    """
    found = opset_of(model)
    try:
        if found < BUNDLE_OPSETS[0]:
            model = onnx.version_converter.convert_version(model, _RAISED_TO)
        elif found > BUNDLE_OPSETS[-1]:
            model = _lowered(model, BUNDLE_OPSETS[-1])
    except (*_ERRORS, RuntimeError) as error:
        raise InputError(
            f"is of opset {found} and cannot be converted ({first_line(error)}). Export it again with opset_version=18"
        ) from None
    opset = [entry for entry in model.opset_import if entry.domain in OWN_DOMAINS]
    model.ir_version = onnx.helper.find_min_ir_version_for(opset)
    del model.opset_import[:]
    model.opset_import.extend(opset)
    return model


def _lowered(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Newer operators are written out; the others only learned more types, which ONNX's checker makes sure of."""
    newer = [
        ("", op)
        for op in sorted({node.op_type for node in model.graph.node})
        if not onnx.defs.has(op, max_inclusive_version=opset)
    ]
    if newer:
        model = onnx.inliner.inline_selected_functions(model, newer, inline_schema_functions=True)
    for entry in model.opset_import:
        if entry.domain in OWN_DOMAINS:
            entry.version = opset
    onnx.checker.check_model(model, full_check=True)
    return model
