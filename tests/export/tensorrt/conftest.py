"""The graph of a whole network, for engines that are really built."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from samdeploy.export.fp16.convert import fp16_graph
from samdeploy.graphs.edit import serialize
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model


@pytest.fixture(scope="session")
def resnet18(network, spec_of) -> Callable[[str], bytes]:  # type: ignore[no-untyped-def]
    """precision -> the graph of a folded SAM-ResNet-18."""
    fp32 = graph_from_model(fold(network("sam-resnet18", "identity")), spec_of("sam-resnet18", "identity"))
    return functools.cache(lambda precision: serialize(fp16_graph(fp32) if precision == "fp16" else fp32))
