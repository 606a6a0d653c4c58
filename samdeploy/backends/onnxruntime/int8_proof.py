"""In which type ONNX Runtime really computed the convolutions of a run, as its profile tells.

The profile is the only inspector that ONNX Runtime has: the kernels it chose, after all its own rewriting, each with
its operator and the types of its inputs.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from samdeploy.errors import BackendUnavailable
from samdeploy.files import SealedFile
from samdeploy.graphs.inference import Options, open_inference, run_inference

# Percent of the convolutions that must compute in the precision.  A few blocks of an FP16 graph may be FP32 on purpose
# (below 5 % of the multiply-adds, but small layers count as much as large ones here), and half of an INT8 one.
MIN_SHARE = {"fp32": 100.0, "fp16": 75.0, "int8": 50.0}

_TYPES = {"float": "fp32", "float16": "fp16", "uint8": "int8", "int8": "int8"}


def open_int8(graph: SealedFile, name: str, pixels: tuple[int, ...]) -> Any:
    """An `onnxruntime.InferenceSession` that has run one black image under the profiler, and computes in INT8.

    Args:
        name: of the input.
        pixels: (H, W, 3).

    Raises:
        BackendUnavailable: ONNX Runtime refuses the graph, or too few convolutions compute in INT8.
    """
    with tempfile.TemporaryDirectory(prefix="samdeploy-") as folder:
        inference = open_inference(graph, Options(profile=str(Path(folder, "profile"))))
        run_inference(inference, {name: np.zeros((1, *pixels), np.uint8)})
        check_profile(Path(inference.end_profiling()).read_text(encoding="utf-8", errors="replace"), "int8")
    return inference


def check_profile(profile: str, precision: str) -> str:
    """Compare what the convolutions of a profile computed in with `precision`.

    Returns:
        In words, such as "20 of 20 convolutions in int8".

    Raises:
        BackendUnavailable: there is none, or fewer than `MIN_SHARE` percent of them compute in `precision`.
    """
    types = Counter(_convolution_types(profile))
    total = types.total()
    if not total or 100 * types[precision] / total < MIN_SHARE[precision]:
        found = ", ".join(f"{count} in {kind}" for kind, count in types.most_common()) or "none at all"
        raise BackendUnavailable(
            f"ONNX Runtime computes too few convolutions in {precision}: {found}; at least "
            f"{MIN_SHARE[precision]:.0f} % are expected; export again, or use another precision or backend"
        )
    return f"{types[precision]} of {total} convolutions in {precision}"


def _convolution_types(profile: str) -> list[str]:
    """The type of each convolution's first input, in our words."""
    found = []
    for event in json.loads(profile):
        arguments = event.get("args", {})
        if event.get("cat") == "Node" and "Conv" in arguments.get("op_name", "") and arguments.get("input_type_shape"):
            kind = next(iter(arguments["input_type_shape"][0]), "unknown")
            found.append(_TYPES.get(kind, kind))
    return found
