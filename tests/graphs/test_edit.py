"""Changes of graphs that keep what they compute."""

from __future__ import annotations

import numpy as np

from samdeploy.backends.onnxruntime.session import emulate
from samdeploy.graphs.edit import constants, copy_of, fold_transposes, make_node, serialize, set_constant
from samdeploy.graphs.pixels import NORMALISED
from tests.graphs.small import small_graph


def test_transposed_weights_are_stored_as_they_are_read() -> None:
    model = small_graph(
        make_node("Flatten", "flat", [NORMALISED], axis=1),
        make_node("Transpose", "turned", ["weight"], perm=[1, 0]),
        make_node("MatMul", "first", ["flat", "turned"]),
        make_node("Transpose", "turned.2", ["square"]),
        make_node("MatMul", "logits", ["first", "turned.2"]),
        weights={"weight": (5, 192), "square": (5, 5)},
    )
    draw = np.random.default_rng(0)
    for name in ("weight", "square"):
        tensor = constants(model)[name]
        set_constant(tensor, draw.standard_normal(tensor.dims).astype(np.float32))
    folded = copy_of(model)
    fold_transposes(folded)
    assert [node.name for node in folded.graph.node[-3:]] == ["flat", "first", "logits"]
    image = draw.integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(emulate(serialize(folded), image), emulate(serialize(model), image))
