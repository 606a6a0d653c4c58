"""PyTorch's two exporters to ONNX: the one that captures programs, and the older one that traces, where that fails."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import nn

from samdeploy.bundle.spec import ModelSpec
from samdeploy.errors import ExportError, first_line
from samdeploy.graphs.pixels import NORMALISED

# The exporter's own opset, which every runtime release reads that samdeploy supports.
OPSET = 18
# Key of a node's metadata: the modules that it comes from, outermost first, as a list in Python's notation.
SCOPES = "pkg.torch.onnx.name_scopes"
# An example of one image would make the batch a constant in some networks.
_EXAMPLES = 3


def exported(module: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    """`module` as PyTorch writes it; its input is called `NORMALISED`.

    Raises:
        ExportError: neither exporter can write it.
    """
    import onnxscript  # noqa: F401 - the exporter's, which reports its absence less clearly

    size = spec.preprocessing
    example = torch.zeros(_EXAMPLES, 3, size.height, size.width)
    with _quiet():
        try:
            return _captured(module, example, spec)
        except Exception as error:  # the exporter fails on what it does not know with whatever it runs into
            reason = first_line(_cause(error))
        try:
            model = _traced(module, example, spec)
        except Exception:  # its reasons are those of an exporter that PyTorch no longer develops
            raise ExportError(f"graph: PyTorch cannot export {spec.arch} ({reason})") from None
    print(f"graph: written by PyTorch's older exporter, for the newer one failed ({reason})", file=sys.stderr)
    return model


def _captured(module: nn.Module, example: torch.Tensor, spec: ModelSpec) -> onnx.ModelProto:
    """By `torch.export`."""
    program = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=[NORMALISED],
        output_names=[spec.output.name],
        dynamic_shapes=({0: torch.export.Dim("N")},),
    )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def _traced(module: nn.Module, example: torch.Tensor, spec: ModelSpec) -> onnx.ModelProto:
    """By `torch.jit.trace`, refusing whatever it would have to take for constant."""
    file = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("error", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        torch.onnx.export(
            module,
            (example,),
            file,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=[NORMALISED],
            output_names=[spec.output.name],
            dynamic_axes={NORMALISED: {0: "N"}, spec.output.name: {0: "N"}},
        )
    model = onnx.load_from_string(file.getvalue())
    known = {name for name, _ in module.named_modules()}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        if node.op_type == "Constant":
            value = onnx.helper.get_attribute_value(node.attribute[0])
            value.name = node.output[0]
            model.graph.initializer.append(value)
            continue
        node.metadata_props.add(key=SCOPES, value=repr(_scopes(node.name, known)))
        model.graph.node.append(node)
    return model


def _scopes(path: str, known: set[str]) -> list[str]:
    """The modules in a name such as "/layer1/layer1.0/conv1/Conv", whose parts may repeat the one before.

    >>> _scopes("/layer1/layer1.0/conv1/Conv", {"layer1", "layer1.0", "layer1.0.conv1"})
    ['layer1', 'layer1.0', 'layer1.0.conv1']
    """
    found: list[str] = []
    for part in path.split("/")[1:-1]:
        outer = found[-1] if found else ""
        last = outer.rpartition(".")[2]
        inner = part.removeprefix(f"{last}.") if last else part
        name = next((name for name in (f"{outer}.{part}", f"{outer}.{inner}", part) if name in known), None)
        if name is not None:
            found.append(name)
    return found


def _cause(error: BaseException) -> BaseException:
    """The innermost: the exporter's own words are about its steps."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
