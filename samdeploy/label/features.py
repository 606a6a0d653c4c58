"""What the last linear layer of a network reads, beside the logits that it makes of it."""

from __future__ import annotations

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends.difference import difference_shares, image_ranges
from samdeploy.backends.golden import GOLDEN_TOLERANCE
from samdeploy.backends.reference import parse_graph
from samdeploy.backends.session import pick_file
from samdeploy.bundle import Bundle
from samdeploy.classifier import Classifier
from samdeploy.errors import BackendUnavailable, BundleError, InputError

# The graph whose tensors can be let out, as they were trained: those of FP16 graphs may be scaled, of INT8 quantised.
BACKEND, PRECISION = "onnxruntime", "fp32"


class Features:
    """The FP32 graph of a bundle in ONNX Runtime with two outputs; the classifier's own session is not used.

    Attributes:
        width: numbers for each image.
    """

    def __init__(self, classifier: Classifier) -> None:
        """
        Args:
            classifier: opened with `BACKEND` and `PRECISION`; its device is used.

        Raises:
            InputError: another engine; or the network does not end in one linear layer.
            BackendUnavailable: onnx is not installed, or ONNX Runtime refuses the graph.
            BundleError: the golden images give other logits with two outputs.
        """
        session, bundle = classifier.session, classifier.bundle
        if (session.backend, session.precision) != (BACKEND, PRECISION):
            raise InputError(
                f"--features: {session.backend} {session.precision} found; they come from the FP32 graph in ONNX "
                f"Runtime: leave --backend and --precision out, or name {BACKEND} and {PRECISION}"
            )
        model = parse_graph(bundle.read(pick_file(bundle, "graph", BACKEND, PRECISION)))
        from samdeploy.graphs.cam_head import NoMaps, find_linear_input
        from samdeploy.graphs.edit import with_outputs
        from samdeploy.graphs.inference import CPU, CUDA, Options, device_of, open_inference

        try:
            name, self.width = find_linear_input(model)
        except NoMaps as error:
            raise InputError(f"--features: {error}; label without --features") from None
        self._input = bundle.spec.input.name
        both = with_outputs(model, [bundle.spec.output.name, name]).SerializeToString()
        self._inference = open_inference(both, Options(CUDA if session.device == "cuda" else CPU))
        if device_of(self._inference) != session.device:
            raise BackendUnavailable(f"--features: ONNX Runtime left {session.device}; name --device cpu")
        self._check(bundle)

    def _check(self, bundle: Bundle) -> None:
        """A runtime fuses otherwise where a tensor is an output."""
        images, logits = bundle.golden()
        found, features = self.run(images)
        worst = difference_shares(found, logits, image_ranges(logits)).max()
        if not worst <= GOLDEN_TOLERANCE[PRECISION] or features.shape != (len(images), self.width):
            raise BundleError(
                f"--features: the golden images give logits off by {worst:.2e} of their range and features "
                f"{list(features.shape)}; at most {GOLDEN_TOLERANCE[PRECISION]:.0e} and "
                f"[{len(images)}, {self.width}] expected; make the bundle again with `samdeploy export`"
            )

    def run(self, batch: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """uint8 [N, H, W, 3], RGB -> logits float32 [N, K] and features float32 [N, `width`].

        Raises:
            BackendUnavailable: ONNX Runtime failed, for example for want of memory.
        """
        from samdeploy.graphs.inference import run_inference

        logits, features = run_inference(self._inference, {self._input: batch})
        return np.asarray(logits, np.float32), np.asarray(features, np.float32)
