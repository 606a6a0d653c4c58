"""What an export prints of INT8: exact figures, never rounded up to all."""

from __future__ import annotations

from samdeploy.export.int8.search import QuantizedGraph
from samdeploy.report.text.export import int8_lines


def test_a_share_just_below_all_is_not_called_all() -> None:
    made = QuantizedGraph(
        graph=b"", form="cpu", val_top1_fp32=91.85, val_top1_int8=91.75, val_images=6000,
        kept={"layer4.0.conv1": "in int8 alone, logits move by 9.1 % of their spread"}, calibration_images=128,
        coverage=98.0, int8_share_of_multiply_adds=99.986,
    )  # fmt: skip
    assert int8_lines(made).splitlines() == [
        "INT8 for ONNX Runtime and OpenVINO: validation top-1 91.85 -> 91.75 % (6,000",
        "images; one is 0.02 points), 99.9 % of the multiply-adds in int8; pixels and",
        "head always stay FP32",
        "INT8 loses 0.10 points here; to lose less: --max-drop below that, or --precision",
        "fp32",
        "layer4.0.conv1  stays FP32: in int8 alone, logits move by 9.1 % of their spread",
    ]
