"""Where the gates of a SAM-ResNet are in its exported graph: an extra of the family."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from samdeploy.bundle.spec import OptionValue
from samdeploy.models.family import ChannelGates

_FORMULAS = {"identity": "1 + W·GAP(x)", "bounded": "1 + tanh(W·GAP(x))", "original": "W·GAP(x)"}


def channel_gates(model: onnx.ModelProto, options: Mapping[str, OptionValue]) -> ChannelGates:
    """The gate of each block.

    A gate is neutral where ``W·GAP(x)`` is 0: that is 1, the channel as it is, for the identity and the bounded gate,
    and 0 for the original one, which passes nothing that it does not choose to.
    """
    kind = str(options["gate"])
    last = ".factor" if kind == "bounded" else ".gate"
    nodes = [node for node in model.graph.node if node.name.endswith(last)]
    return ChannelGates(
        kind=kind,
        formula=_FORMULAS.get(kind, ""),
        neutral=0.0 if kind == "original" else 1.0,
        tensors={node.name.removesuffix(last): node.output[0] for node in nodes},
    )
