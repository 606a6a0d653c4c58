"""What timm's records say, and the names of its architectures."""

from __future__ import annotations

import pytest

from samdeploy.errors import InputError
from samdeploy.models.timm import FAMILY


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("timm:resnet50.a1_in1k", (224, 235, "bicubic", "center_crop")),
        ("timm:resnet50.tv_in1k", (224, 256, "bilinear", "center_crop")),
        ("timm:coat_lite_medium_384.in1k", (384, None, "bicubic", "squeeze")),
    ],
)
def test_preprocessing_is_that_of_the_weights(arch: str, expected: tuple[object, ...]) -> None:
    found = FAMILY.preprocessing(arch, {})
    assert found is not None
    assert (found.height, found.resize_short, found.resize.partition("-")[0], found.fit) == expected


@pytest.mark.parametrize("arch", ["timm:dm_nfnet_f0.dm_in1k", "timm:dm_nfnet_f1.dm_in1k"])
def test_a_record_that_a_bundle_cannot_express_is_refused(arch: str) -> None:
    with pytest.raises(InputError, match="squash"):
        FAMILY.preprocessing(arch, {})


def test_twins_have_the_same_tensors_and_another_padding() -> None:
    assert FAMILY.twins is not None
    assert FAMILY.twins("timm:efficientnet_lite0.ra_in1k") == ("timm:tf_efficientnet_lite0",)
    assert FAMILY.twins("timm:tf_efficientnet_lite0") == ("timm:efficientnet_lite0",)
    assert FAMILY.twins("timm:resnet50") == ()


@pytest.mark.parametrize("arch", ["timm:test_vit", "timm:resnest14d"])
def test_attention_is_an_option_of_resnets(arch: str) -> None:
    with pytest.raises(InputError, match=f"attention se: {arch} takes none, ResNets of timm do"):
        FAMILY.build(arch, 10, {"attention": "se"})
