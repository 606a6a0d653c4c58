"""What timm's records say, and the names of its architectures."""

from __future__ import annotations

import pytest

from samdeploy.errors import InputError
from samdeploy.models.registry import complete_options, options_for_size
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


@pytest.mark.parametrize(
    ("arch", "side", "misfits", "expected"),
    [
        ("timm:vit_tiny_patch16_224", 64, False, {"image_side": 64}),
        ("timm:vit_tiny_patch16_224", 224, True, {}),
        ("timm:test_vit", 64, False, {}),  # it takes any size
        ("timm:test_vit", 64, True, {"image_side": 64}),
        ("timm:test_resnet", 64, True, {}),
        ("sam-resnet18", 64, True, {}),
    ],
)
def test_a_size_that_the_network_must_be_built_for(arch: str, side: int, misfits: bool, expected: object) -> None:
    assert options_for_size(arch, {}, side, side, misfits=misfits) == expected
    assert options_for_size(arch, {}, side, 32, misfits=misfits) == {}


def test_a_network_built_for_another_size_is_built_anew() -> None:
    arch, built = "timm:vit_tiny_patch16_224", {"image_side": 64}
    assert options_for_size(arch, built, 64, 64) == built
    assert options_for_size(arch, built, 96, 96) == {"image_side": 96}
    assert options_for_size(arch, built, 224, 224) == {"image_side": ""}
    assert options_for_size("timm:test_vit", built, 96, 96) == built  # which takes any size


def test_image_side_is_an_option_of_networks_of_one_size() -> None:
    with pytest.raises(InputError, match=r"image_side 64: timm:test_resnet is not built for one size of images"):
        FAMILY.build("timm:test_resnet", 10, {"image_side": 64})
    with pytest.raises(InputError, match=r"unknown image_side '8'\. Valid: 16 to 2048$"):
        complete_options("timm:test_vit", {"image_side": 8})
