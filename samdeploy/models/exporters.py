"""PyTorch's two exporters to ONNX: the one that captures programs, and the older one that traces, where that fails."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import onnx
import torch
from torch import nn
from torch.nn import functional

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
    with _quiet(), _plain_operators():
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
def _plain_operators() -> Iterator[None]:
    """Write some operators as what they are made of, which PyTorch's exporter does worse."""
    own: dict[str, Callable[..., torch.Tensor]] = {
        "adaptive_avg_pool2d": _average,
        "scaled_dot_product_attention": _attention,
    }
    originals = {name: getattr(functional, name) for name in own}
    for name, operator in own.items():
        setattr(functional, name, _bound(operator, originals[name]))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(functional, name, original)


def _bound(operator: Callable[..., torch.Tensor], original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Not a `functools.partial`, which has no name: PyTorch's exporter asks for one."""

    def bound(*inputs: Any, **options: Any) -> torch.Tensor:
        return operator(original, *inputs, **options)

    return bound


def _average(original: Callable[..., torch.Tensor], x: torch.Tensor, output_size: object) -> torch.Tensor:
    """Of features with channels last, PyTorch copies the means index by index."""
    is_global = output_size in (1, (1, 1), [1, 1])
    return x.mean(dim=(2, 3), keepdim=True) if is_global else original(x, output_size)


def _attention(
    original: Callable[..., torch.Tensor],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    *others: Any,
    scale: float | None = None,
    **options: Any,
) -> torch.Tensor:
    """PyTorch's own has strides that views of some networks cannot follow, and its graph computes its shapes."""
    if any((*others, *options.values())) or (attn_mask is not None and attn_mask.dtype == torch.bool):
        return original(query, key, value, attn_mask, dropout_p, *others, scale=scale, **options)
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    weights = (scores if attn_mask is None else scores + attn_mask).softmax(dim=-1)
    return weights @ value


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
