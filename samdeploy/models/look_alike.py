"""Whose weights a state dict holds, by its names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

# (bottlenecks?, blocks per stage) -> layers
_DEPTHS = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}
_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.")
# The beginning of a name that only this family has.
_OTHERS = (
    ("cls_token", "a vision transformer"),
    ("class_token", "a vision transformer"),
    ("conv_proj.", "a vision transformer"),
    ("patch_embed.", "a transformer"),
    ("features.denseblock1.", "a DenseNet"),
    ("features.conv0.", "a DenseNet"),
    ("stem.stem_conv", "a RegNet"),
    ("stages.", "a ConvNeXt"),
    ("features.0.0.", "a MobileNet, EfficientNet or ConvNeXt"),
    ("features.0.weight", "a VGG or AlexNet"),
    ("Conv2d_1a_3x3.", "an Inception"),
    ("onnx", "an ONNX graph"),
)


def look_alike(state: Mapping[str, torch.Tensor]) -> str:
    """ "resnet18", "sam-resnet50", "a vision transformer", ...; "" if nobody can tell."""
    blocks = [found.groups() for key in state if (found := _BLOCK.match(key))]
    if not blocks:
        return next((name for start, name in _OTHERS if any(key.startswith(start) for key in state)), "")
    depths = tuple(len({index for stage, index in blocks if stage == str(number)}) for number in (1, 2, 3, 4))
    bottleneck = "layer1.0.conv3.weight" in state
    layers = _DEPTHS.get((bottleneck, depths))  # type: ignore[arg-type]
    if layers is None:
        return ""
    middle = state.get("layer1.0.conv2.weight")
    if middle is not None and middle.shape[:2] != (64, 64):
        is_grouped = middle.shape[0] != middle.shape[1]
        return f"{'resnext' if is_grouped else 'wide_resnet'}{layers}"
    return f"{'sam-' if 'layer1.0.sl.fc.weight' in state else ''}resnet{layers}"
