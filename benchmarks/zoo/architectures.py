"""The architectures of the zoo: the small member of each design."""

from __future__ import annotations

# Title -> architectures; "+attention=cbam" sets an option of the family.
GROUPS: dict[str, tuple[str, ...]] = {
    "ResNets with attention, and their relatives": (
        "timm:seresnet18",
        "timm:legacy_seresnet18",
        "timm:seresnext26t_32x4d",
        "timm:ecaresnet26t",
        "timm:skresnet18",
        "timm:gcresnext26ts",
        "timm:resnest14d",
        "timm:bat_resnext26ts",
        "timm:botnet26t_256",
        "timm:sebotnet33ts_256",
        "timm:eca_botnext26ts_256",
        "timm:halonet26t",
        "timm:eca_halonext26ts",
        "timm:lambda_resnet26t",
        "timm:lambda_resnet26rpt_256",
        "timm:resnet18+attention=cbam",
        "timm:resnet18+attention=lcbam",
        "timm:resnet18+attention=coord",
        "timm:resnet18+attention=scoord",
        "timm:resnet18+attention=ela",
        "timm:resnet18+attention=strip",
        "timm:resnet18+attention=gc",
        "timm:resnet18+attention=gca",
        "timm:resnet18+attention=ceca",
        "timm:resnet18+attention=ecam",
        "timm:resnet18+attention=nl",
        "timm:ese_vovnet19b_slim_dw",
        "timm:cspresnet50",
        "timm:resnetblur18",
        "timm:nf_seresnet26",
        "timm:eca_nfnet_l0",
        "timm:resnetv2_18",
    ),
    "Other designs of timm": (
        "timm:convnext_atto",
        "timm:convnextv2_atto",
        "timm:efficientnet_b0",
        "timm:mobilenetv3_small_100",
        "timm:mobilenetv4_conv_small",
        "timm:regnety_002",
        "timm:vit_tiny_patch16_224",
        "timm:deit_tiny_distilled_patch16_224",
        "timm:swin_tiny_patch4_window7_224",
        "timm:test_maxvit",
        "timm:fastvit_t8",
        "timm:repvgg_a0",
        "timm:vgg11",
        "timm:ghostnet_100",
        "timm:edgenext_xx_small",
        "timm:levit_128s",
        "timm:mixnet_s",
        "timm:hgnetv2_b0",
        "timm:mobilevit_xxs",
        "timm:efficientformer_l1",
        "timm:poolformer_s12",
        "timm:pvt_v2_b0",
        "timm:dla46_c",
        "timm:mixer_s32_224",
    ),
    "torchvision": (
        "torchvision:resnet18",
        "torchvision:alexnet",
        "torchvision:squeezenet1_1",
        "torchvision:shufflenet_v2_x0_5",
        "torchvision:mnasnet0_5",
        "torchvision:mobilenet_v2",
        "torchvision:mobilenet_v3_small",
        "torchvision:regnet_y_400mf",
        "torchvision:densenet121",
        "torchvision:vit_b_32",
    ),
}


def parse(name: str) -> tuple[str, dict[str, str]]:
    """Architecture and options of an entry.

    >>> parse("timm:resnet26+attention=cbam")
    ('timm:resnet26', {'attention': 'cbam'})
    """
    arch, *options = name.split("+")
    return arch, dict(option.split("=") for option in options)
