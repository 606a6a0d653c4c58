"""Engines that are right on the test images and wrong elsewhere: each fault is found, and named by its probe."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from samdeploy.backends import open_session
from samdeploy.backends.int8 import int8_reference, read_quantization
from samdeploy.backends.session import CheckedSession, pick_file
from samdeploy.bundle import Bundle
from samdeploy.data.probe_images import probe_images
from samdeploy.errors import BackendUnavailable
from samdeploy.evaluate.accuracy.facts import logit_spread
from samdeploy.evaluate.consistency.probes import LIMITS, ProbeAnswers, ProbeReference, judge_answers, probe_reference

Wrong = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def reference(digits_bundle: Bundle) -> ProbeReference:
    golden, logits = digits_bundle.golden()
    with open_session(digits_bundle, "pytorch", device="cpu") as session:
        return probe_reference(session, golden, logit_spread(logits))


@pytest.fixture(scope="module")
def engine(digits_bundle: Bundle) -> CheckedSession:
    return open_session(digits_bundle, "onnxruntime", device="cpu")


def judged(found: np.ndarray, reference: ProbeReference) -> ProbeAnswers:
    return judge_answers(found, reference.logits, reference.probes, reference.typical, "fp32")


def test_probes_are_the_same_bytes_everywhere() -> None:
    golden = (np.arange(8 * 24 * 20 * 3) * 7919 >> 5 & 255).astype(np.uint8).reshape(8, 24, 20, 3)
    made = probe_images(golden)
    assert made.images.shape == (72, 24, 20, 3) and made.images.dtype == np.uint8
    assert len(set(made.names)) == len({image.tobytes() for image in made.images}) == 72
    assert hashlib.sha256(made.images.tobytes()).hexdigest()[:16] == "e3d3b115eba4d62b"


@pytest.mark.parametrize("shape", [(4, 1, 1, 3), (5, 1, 5, 3), (8, 31, 7, 3)])
def test_probes_of_any_size(shape: tuple[int, ...]) -> None:
    assert probe_images(np.zeros(shape, np.uint8)).images.shape == (72, *shape[1:])


def test_an_honest_engine_is_not_accused(engine: CheckedSession, reference: ProbeReference) -> None:
    found = judged(engine.run(reference.probes.images), reference)
    assert not found.fault and found.worst < found.allowed / 10
    assert len(found.left_out) < 16 and not found.blind
    assert "probe images within" in found.summary


def _flat(colour: tuple[int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda images: (images == np.array(colour)).all(axis=(1, 2, 3))


# What is done to the answers of which images.
FAULTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float, str]] = {
    "not a number on white": (_flat((255, 255, 255)), np.nan, "answers for white are not finite"),
    "one colour": (_flat((128, 0, 255)), -1.0, "answers for colour 128, 0, 255 are off by"),
    "dark images": (lambda images: images.mean(axis=(1, 2, 3)) < 24, -1.0, "answers for "),
    "high contrast": (lambda images: images.std(axis=(1, 2, 3)) > 120, -1.0, "answers for "),
    "saturated": (lambda images: (np.ptp(images, axis=3) == 255).any(axis=(1, 2)), -1.0, "answers for "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_where_no_test_image_looks(fault: str, engine: CheckedSession, reference: ProbeReference) -> None:
    chosen, error, text = FAULTS[fault]
    images = reference.probes.images
    logits = engine.run(images)
    logits[chosen(images)] *= np.float32(error)
    found = judged(logits, reference)
    assert found.fault.startswith(f"probe images: {text}") and found.order == ""
    assert set(found.wrong) <= {name for name, hit in zip(reference.probes.names, chosen(images), strict=True) if hit}


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_channels_in_another_order_are_named(
    order: tuple[int, ...], engine: CheckedSession, reference: ProbeReference
) -> None:
    found = judged(engine.run(np.ascontiguousarray(reference.probes.images[..., order])), reference)
    name = "".join("RGB"[channel] for channel in order)
    assert found.fault.startswith(f"channels: the engine reads {name} for RGB; answers for ")


def test_int8_is_held_against_its_own_ranges(int8_bundle: Bundle, reference: ProbeReference) -> None:
    """Cut off at its ranges, it is far from FP32, and close to the network with these ranges."""
    images = reference.probes.images
    expected = int8_reference(int8_bundle, "onnxruntime", images)
    with open_session(int8_bundle, "onnxruntime", precision="int8", device="cpu", check=False) as session:
        found, swapped = session.run(images), session.run(np.ascontiguousarray(images[..., ::-1]))
    fair = judge_answers(found, expected, reference.probes, reference.typical, "int8")
    assert not fair.fault and not fair.left_out and fair.worst < LIMITS["int8"] / 2
    assert judge_answers(found, reference.logits, reference.probes, reference.typical, "int8").fault
    wrong = judge_answers(swapped, expected, reference.probes, reference.typical, "int8")
    assert wrong.fault.startswith("channels: the engine reads BGR for RGB; ")


@pytest.mark.parametrize("scale", [np.float32("inf"), np.float32(0), None])
def test_int8_cannot_excuse_itself_from_the_comparison(int8_bundle: Bundle, scale: np.float32 | None) -> None:
    """A range that is infinite or computed would leave nothing to compare with."""
    import onnx

    model = onnx.load_from_string(int8_bundle.read(pick_file(int8_bundle, "graph", "onnxruntime", "int8")))
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    number = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    if scale is None:
        number.name += ".other"
    else:
        number.CopyFrom(onnx.numpy_helper.from_array(np.array(scale), number.name))
    with pytest.raises(BackendUnavailable, match=r"does not hold the range of '.*' as two numbers"):
        read_quantization(model.SerializeToString())


def test_probes_of_which_int8_answers_none_are_a_fault(reference: ProbeReference) -> None:
    logits = np.full_like(reference.logits, np.nan)
    found = judge_answers(reference.logits, logits, reference.probes, reference.typical, "int8")
    assert found.fault == "probe images: in the ranges of its own graph the network answers none of them"
    assert not judge_answers(reference.logits, logits, reference.probes, reference.typical, "bf16").fault


def test_probes_that_explode_are_left_out_and_counted(reference: ProbeReference) -> None:
    logits = reference.logits.copy()
    logits[3], logits[5, 0], logits[7, 0] = np.inf, np.nan, 1e6
    exploding = ProbeReference(reference.probes, logits, reference.typical)
    names = reference.probes.names
    found = judged(logits, exploding)
    assert not found.fault and {names[3], names[5]} <= set(found.left_out) and names[7] not in found.left_out
    assert f"{len(found.left_out)} left out" in found.summary
    coarse = judge_answers(logits, logits, reference.probes, reference.typical, "bf16")
    assert {names[3], names[5], names[7]} <= set(coarse.left_out)


def test_a_network_that_does_not_look_at_colour_is_named(reference: ProbeReference) -> None:
    grey = reference.probes.images.mean(axis=(1, 2, 3), dtype=np.float64)
    logits = np.stack([grey, -grey], axis=1).astype(np.float32)
    found = judge_answers(logits, logits, reference.probes, 100.0, "fp32")
    assert set(found.blind) == {"BGR", "RBG", "GRB", "GBR", "BRG"}
    assert "the network hardly looks at colour" in found.summary
