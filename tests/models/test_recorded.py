"""What checkpoints of timm's and torchvision's scripts say about their images."""

from __future__ import annotations

from argparse import Namespace

import pytest

from samdeploy.models.preprocessing import Given, in_words, preprocessing_for
from samdeploy.models.recorded import recorded

ARCH = "timm:test_resnet"  # 160x160, shorter side to 168, bilinear, mean and std 0.5
GREY = [0.4, 0.4, 0.4]
TIMM = {"args": Namespace(img_size=None, input_size=[3, 128, 128], crop_pct=0.8, interpolation="bicubic", mean=GREY,
                          std=GREY)}  # fmt: skip
TORCHVISION = {"args": Namespace(val_resize_size=92, val_crop_size=64, train_crop_size=50, interpolation="bilinear")}


def words(around: dict[str, object], given: Given) -> str:
    """What import prints."""
    whole = given.before(recorded(around).given)
    return in_words(preprocessing_for(ARCH, {}, whole), ARCH, {}, given, whole)


@pytest.mark.parametrize(
    ("around", "given", "expected"),
    [
        (TIMM, Given(), "shorter side to 160, bicubic, middle 128x128; mean 0.4,0.4,0.4, std 0.4,0.4,0.4 (as the "
                        "file says: --size, --resize or --fit, --filter, --mean, --std)"),
        (TIMM, Given(height=96, width=96), "shorter side to 120, bicubic, middle 96x96; mean 0.4,"),
        (TIMM, Given(resize_short=128, mean=(0.1, 0.1, 0.1)), "shorter side to 128, bicubic, middle 128x128; mean 0.1,"
                        "0.1,0.1, std 0.4,0.4,0.4 (as given; as the file says: --size, --filter, --std)"),
        (TIMM, Given(fit="squeeze"), "squeezed to 128x128, bicubic"),
        (TIMM, Given(like=ARCH), "shorter side to 168, bilinear, middle 160x160; mean 0.5,0.5,0.5, std 0.5,0.5,0.5 "
                        "(from the record of timm:test_resnet)"),
        (TORCHVISION, Given(), "shorter side to 92, bilinear, middle 64x64; mean 0.5,0.5,0.5, std 0.5,0.5,0.5 (from "
                        "the record of timm:test_resnet; as the file says: --size, --resize or --fit, --filter)"),
        (TORCHVISION, Given(height=160, width=160), "shorter side to 168, bilinear, middle 160x160"),
        ({"pretrained_cfg": {"input_size": (3, 64, 64), "crop_pct": 1.0, "crop_mode": "squash"}}, Given(), "squeezed to"
                        " 64x64"),
        ({"pretrained_cfg": {"crop_pct": 0.5}, "args": {"crop_pct": 0.8}}, Given(), "shorter side to 200"),
    ],
)  # fmt: skip
def test_is_taken_where_nothing_else_is_given(around: dict[str, object], given: Given, expected: str) -> None:
    assert words(around, given).startswith(f"images: {expected}")


@pytest.mark.parametrize(
    "args",
    [
        {"interpolation": "random"}, {"mean": GREY}, {"mean": [123.0, 116.0, 103.0], "std": [58.0, 57.0, 57.0]},
        {"crop_pct": 1.2}, {"crop_pct": 0.9, "crop_mode": "border"}, {"img_size": 64, "input_size": [3, 32, 32]},
        {"val_crop_size": 64}, {"val_resize_size": 60, "val_crop_size": 64}, {"input_size": [1, 28, 28]},
    ],
)  # fmt: skip
def test_what_leaves_a_doubt_is_named_and_not_taken(args: dict[str, object]) -> None:
    found = recorded({"args": Namespace(**args)})
    assert found.given == Given()
    assert found.unclear == ", ".join(f"{key} {args[key]}" for key in sorted(args, key=ORDER.index))


ORDER = ("input_size", "img_size", "crop_pct", "crop_mode", "val_resize_size", "val_crop_size", "interpolation", "mean",
         "std")  # fmt: skip
