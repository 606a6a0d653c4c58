"""Faults in the graph: found by the golden images at opening, and by `eval` where those were made with the fault.

Where a check is blind to a fault, that is asserted too: it is why the others are needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samdeploy.backends import availability, open_session
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.errors import BackendUnavailable, BundleError
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from tests.evaluate import faults
from tests.evaluate.planted import Seal, consistency_of

GRAPH_FAULTS = {
    "two classes swapped": faults.swapped_classes,
    "no normalisation": faults.no_normalisation,
    "a wrong mean": faults.wrong_mean,
}


def with_golden_of_the_fault(root: Path, seal: Seal) -> Bundle:
    """The bundle of an exporter that took the golden logits from its own wrong graph."""
    bundle = seal(root)
    with open_session(bundle, "onnxruntime", device="cpu", check=False) as session:
        np.save(root / "golden" / "logits.npy", session.run(bundle.golden()[0]))
    return seal(root)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("fault", GRAPH_FAULTS)
def test_the_golden_images_find_another_model(copy_of_bundle: Path, seal: Seal, fault: str, backend: str) -> None:
    if availability(backend):
        pytest.skip(str(availability(backend)))
    faults.edit_graph(copy_of_bundle, GRAPH_FAULTS[fault])
    with pytest.raises(
        BundleError, match=r"the golden images give logits that differ by .*not the model of this bundle"
    ):
        open_session(seal(copy_of_bundle), backend, device="cpu")


@pytest.mark.usefixtures("short_latency")
def test_eval_finds_what_the_golden_images_were_made_with(copy_of_bundle: Path, seal: Seal) -> None:
    faults.edit_graph(copy_of_bundle, faults.wrong_mean)
    right = (copy_of_bundle / "golden" / "logits.npy").read_bytes()
    bundle = with_golden_of_the_fault(copy_of_bundle, seal)
    with open_session(bundle, "onnxruntime", device="cpu") as session:  # the golden images are blind to it
        found = consistency_of(session, bundle)
    assert found.passed, found.checks  # and so is consistency: the engine is wrong in the same way everywhere
    # The golden answers are not those of the weights: the bundle contradicts itself.
    report = evaluate_bundle(bundle, EvalOptions(backend="onnxruntime", device="cpu"))
    assert any("golden/logits.npy: is not what weights.safetensors answers" in fault for fault in report.faults)
    # With the golden logits of the network, the gate says how far off the engine is.
    (copy_of_bundle / "golden" / "logits.npy").write_bytes(right)
    report = evaluate_bundle(seal(copy_of_bundle), EvalOptions(backend="onnxruntime", device="cpu"))
    assert not report.passed
    assert "a logit differs by" in report.results[0].reason


@pytest.mark.usefixtures("short_latency")
def test_eval_finds_what_no_golden_image_shows(copy_of_bundle: Path, seal: Seal) -> None:
    """A tensor is cut off at the largest value of the golden images, as a range that was measured on too few."""
    examples, _ = open_bundle(copy_of_bundle).golden()
    faults.edit_graph(copy_of_bundle, faults.cut_off_at_the_largest_of(examples, "layer3.1.relu"))
    bundle = seal(copy_of_bundle)
    with open_session(bundle, "onnxruntime", device="cpu") as session:
        found = consistency_of(session, bundle)
    assert found.passed, found.checks
    report = evaluate_bundle(bundle, EvalOptions(backend="onnxruntime", device="cpu"))
    assert not report.passed
    assert "probe images: answers for " in report.results[0].reason


@pytest.mark.usefixtures("short_latency")
def test_a_reduced_precision_with_two_classes_swapped(copy_of_bundle: Path, seal: Seal) -> None:
    """Rounding must not be an excuse: in bf16 the golden images find the swap, and so does top-1."""
    try:
        open_session(open_bundle(copy_of_bundle), "openvino", precision="bf16").close()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    faults.edit_graph(copy_of_bundle, faults.swapped_classes)
    bundle = seal(copy_of_bundle)
    with pytest.raises(BundleError, match="not the model of this bundle"):
        open_session(bundle, "openvino", precision="bf16")
    report = evaluate_bundle(bundle, EvalOptions(backend="openvino", precision="bf16", device="cpu"))
    assert not report.passed
    assert report.results[0].comparison is not None
    assert report.results[0].comparison.top1 < report.results[0].comparison.reference_top1 - 10


def test_blue_for_red_shows_although_the_data_are_grey(copy_of_bundle: Path, seal: Seal) -> None:
    """Three equal channels have no order; the golden images in colour have."""
    faults.edit_graph(copy_of_bundle, faults.blue_first)
    with pytest.raises(BundleError, match="reads channels as BGR, not RGB"):
        open_session(seal(copy_of_bundle), "onnxruntime", device="cpu")
