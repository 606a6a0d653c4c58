"""OpenVINO: the precision that was asked for is the one that computes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from samdeploy.backends import open_session
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable
from samdeploy.files import SealedFile
from samdeploy.graphs.edit import constants, make_node, serialize, set_constant
from samdeploy.graphs.pixels import NORMALISED
from tests.graphs.small import small_graph
from tests.traced import changed_constant

ov = pytest.importorskip("openvino", reason="pip install 'samdeploy[openvino]'")
session = pytest.importorskip("samdeploy.backends.openvino.session")


def _effective(bundle: Bundle, hint: str) -> str:
    """What this CPU makes of a hint, asked of OpenVINO directly."""
    file = bundle.find("graph", precision="fp32")
    assert file is not None
    core = ov.Core()
    compiled = core.compile_model(core.read_model(bundle.read(file)), "CPU", {"INFERENCE_PRECISION_HINT": hint})
    return str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())


def test_fp32_is_fp32_on_a_cpu_that_prefers_bf16(digits_bundle: Bundle) -> None:
    images, logits = digits_bundle.golden()
    with open_session(digits_bundle, "openvino") as opened:
        error = np.abs(opened.run(images) - logits).max() / np.ptp(logits)
    assert error < 1e-5  # bf16, OpenVINO's own choice where the CPU has it, is off by 1e-3 and more


@pytest.mark.parametrize(("precision", "hint"), [("bf16", "bf16"), ("fp16", "f16")])
def test_a_precision_that_the_cpu_lacks_is_refused(digits_bundle: Bundle, precision: str, hint: str) -> None:
    effective = _effective(digits_bundle, hint)
    if effective != hint:
        with pytest.raises(
            BackendUnavailable, match=f"has no {precision} arithmetic for .+, and would compute in .+; use precision"
        ):
            open_session(digits_bundle, "openvino", precision=precision)
        return
    images, logits = digits_bundle.golden()
    with open_session(digits_bundle, "openvino", precision=precision) as opened:
        assert opened.precision == precision
        error = np.abs(opened.run(images) - logits).max() / np.ptp(logits)
    assert 1e-4 < error < 1e-1  # rounded, and not FP32 under another name


def test_fp16_is_the_graph_that_was_scaled_for_it(digits_bundle: Bundle) -> None:
    """Not the FP32 graph under another hint, whose tensors may leave FP16's range."""
    files = tuple(file for file in digits_bundle.files if (file.role, file.precision) != ("graph", "fp16"))
    with pytest.raises(BackendUnavailable, match=r"no graph in fp16 that openvino can run \(found: fp32\)"):
        open_session(dataclasses.replace(digits_bundle, files=files), "openvino", precision="fp16")


def test_a_convolution_that_takes_in_a_scale_is_counted() -> None:
    """OpenVINO calls the fused node after the product and the sum alone."""
    graph = small_graph(
        make_node("Conv", "stem", [NORMALISED, "stem.weight"]),
        make_node("Conv", "fc", ["stem", "fc.weight", "fc.bias"]),
        make_node("Mul", "scale", ["fc", "gamma"]),
        make_node("Add", "sum", ["scale", "stem"]),
        make_node("GlobalAveragePool", "logits", ["sum"]),
        weights={"stem.weight": (8, 3, 1, 1), "fc.weight": (8, 8, 1, 1), "fc.bias": (8,), "gamma": (8, 1, 1)},
    )
    for name in ("stem.weight", "fc.weight", "gamma"):
        graph = changed_constant(graph, name, lambda array: array + np.float32(0.5))
    with SealedFile(serialize(graph)) as sealed:
        compiled, work = session._compile(sealed, "fp32")
    assert "fc/WithoutBiases" not in dict(session._types_of_work(compiled))  # else this tests nothing
    session._prove(compiled, work, "fp32")


def test_matrix_products_are_counted() -> None:
    """A linear layer, the two products of attention, and a linear head."""
    model = small_graph(
        make_node("Conv", "stem", [NORMALISED, "stem.weight"]),
        make_node("Reshape", "columns", ["stem", "shape"]),
        make_node("Transpose", "tokens", ["columns"], perm=[0, 2, 1]),
        make_node("MatMul", "linear", ["tokens", "linear.weight"]),
        make_node("Add", "query", ["linear", "linear.bias"]),
        make_node("Transpose", "keys", ["query"], perm=[0, 2, 1]),
        make_node("MatMul", "scores", ["query", "keys"]),
        make_node("Softmax", "softmax", ["scores"], axis=-1),
        make_node("MatMul", "mixed", ["softmax", "query"]),
        make_node("ReduceMean", "mean", ["mixed"], axes=[1], keepdims=0),
        make_node("Gemm", "logits", ["mean", "head.weight", "head.bias"], transB=1),
        weights={
            **{"stem.weight": (32, 3, 1, 1), "linear.weight": (32, 32), "linear.bias": (32,)},
            **{"head.weight": (10, 32), "head.bias": (10,), "shape": (3,)},
        },
    )
    set_constant(constants(model)["shape"], np.array([0, 32, 64]))
    for name in ("stem.weight", "linear.weight", "linear.bias", "head.weight", "head.bias"):
        model = changed_constant(
            model, name, lambda array: array + np.linspace(-1, 1, array.size, dtype=np.float32).reshape(array.shape)
        )
    with SealedFile(serialize(model)) as sealed:
        compiled, work = session._compile(sealed, "fp32")
    assert sorted(work.in_precision.values()) == [32 * 10, 64 * 3 * 32, 64 * 32 * 32, 64 * 32 * 64, 64 * 32 * 64]
    session._prove(compiled, work, "fp32")
    with pytest.raises(BackendUnavailable, match=r"computes only 0\.0 % of the bf16 multiply-adds .* in f32"):
        session._prove(compiled, work, "bf16")
