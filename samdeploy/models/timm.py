"""timm's classifiers as a `ModelFamily`: "timm:seresnet50", or with the tag of weights "timm:resnet50.a1_in1k"."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from samdeploy.bundle.spec import RESIZES, OptionValue, Preprocessing
from samdeploy.errors import InputError, PackageMissing, first_line
from samdeploy.models.family import ModelFamily, NotFetched
from samdeploy.models.torch_family import TorchFamily

if TYPE_CHECKING:
    from types import ModuleType

# What `attn_layer` of timm's ResNets takes, but for layers that replace a convolution, and "ge" and "bat", which fail
# there (timm 1.0.31); "" keeps the architecture's own.
ATTENTION = (
    *("", "se", "ese", "eca", "ecam", "ceca", "gc", "gca", "cbam", "lcbam", "coord", "scoord", "ela", "strip", "nl"),
)
# Sides of images, in pixels, that networks of one size can be built for; "" keeps the architecture's own.
SIDES = ("", *range(16, 2049))
# Of records that no bundle expresses.
_OTHER = "Prepare images as for another network, which may cost accuracy: --preprocessing timm:NAME"


class TimmFamily(TorchFamily):
    """See https://huggingface.co/docs/timm."""

    prefix = "timm"
    options: Mapping[str, tuple[OptionValue, ...]] = MappingProxyType({"attention": ATTENTION, "image_side": SIDES})

    @functools.cache  # noqa: B019 - there is one instance
    def architectures(self) -> Sequence[str]:
        """Plain names first, then those with the tag of their published weights."""
        timm = _timm()
        return tuple(f"{self.prefix}:{name}" for name in (*timm.list_models(), *timm.list_pretrained()))

    def build(self, arch: str, num_classes: int, options: Mapping[str, OptionValue]) -> nn.Module:
        timm = _timm()
        attention, side = options.get("attention"), options.get("image_side")
        own: dict[str, Any] = {"block_args": {"attn_layer": attention}} if attention else {}
        own |= {"img_size": side} if side else {}
        try:
            model: nn.Module = timm.create_model(_name(arch), pretrained=False, num_classes=num_classes, **own)
        except (TypeError, AssertionError) as error:  # AssertionError: ResNeSt
            if side:
                raise InputError(f"image_side {side}: {arch} is not built for one size of images") from error
            raise InputError(f"attention {attention}: {arch} takes none, ResNets of timm do") from error
        return model

    def for_side(self, arch: str, side: int) -> Mapping[str, OptionValue]:
        """What timm's `img_size` is for: position embeddings of ViTs, windows of Swin."""
        needed: dict[str, OptionValue] = {"image_side": side}
        if _record(arch).input_size == (3, side, side):
            return {"image_side": ""}
        if side not in SIDES:
            return {}
        try:
            with torch.device("meta"):
                self.build(arch, 1, needed)
        except NotImplementedError:  # some compute their widths in tensors, once they took the size
            return needed
        except Exception:  # it takes no side, or not this one, of which its first images tell
            return {}
        return needed

    def preprocessing(self, arch: str, options: Mapping[str, OptionValue]) -> Preprocessing | None:
        """What `timm.data.create_transform` does for validation with these weights.

        Raises:
            InputError: their record asks for what a bundle cannot express.
        """
        from timm.data import resolve_data_config

        record = resolve_data_config(pretrained_cfg=_record(arch).to_dict())
        channels, height, width = record["input_size"]
        if channels != 3:
            raise InputError(f"{arch}: takes images of {channels} channels; 3 expected, RGB")
        filter_, mode, share = record["interpolation"], record["crop_mode"], record["crop_pct"]
        if filter_ not in RESIZES:
            raise InputError(
                f"{arch}: resizes with filter {filter_!r}; a bundle knows {' and '.join(RESIZES)}. {_OTHER}"
            )
        mean, std, resize = tuple(record["mean"]), tuple(record["std"]), RESIZES[filter_]
        if mode == "squash" and share == 1:
            return Preprocessing(height, width, "squeeze", None, mean, std, resize)
        if mode != "center" or height != width or share > 1:
            raise InputError(
                f"{arch}: its images are cropped by mode {mode!r} with share {share:g} at {height}x{width}; "
                f"a bundle knows the middle of a square, and whole images squeezed. {_OTHER}"
            )
        # torchvision's CenterCrop, which timm uses, rounds half of an odd margin to the even number.
        return Preprocessing(height, width, "center_crop", int(height / share), mean, std, resize, crop="half-even")

    def license(self, arch: str) -> str | None:
        license: str | None = _record(arch).license
        return license

    def twins(self, arch: str) -> Sequence[str]:
        """Weights of TensorFlow pad as it does, and have an architecture of their own: "tf_efficientnet_lite0"."""
        name = _name(arch).partition(".")[0]
        twin = f"{self.prefix}:{name.removeprefix('tf_') if name.startswith('tf_') else f'tf_{name}'}"
        return (twin,) if twin in self.architectures() else ()

    def labels(self, arch: str, num_classes: int) -> Sequence[tuple[str, ...]]:
        """WordNet's synsets, as the folders of ImageNet are called, where the count is that of a set of ImageNet."""
        from timm.data import ImageNetInfo, infer_imagenet_subset

        subset = infer_imagenet_subset({"num_classes": num_classes})
        return () if subset is None else (tuple(ImageNetInfo(subset).label_names()),)

    def published_state(self, arch: str) -> Mapping[str, torch.Tensor]:
        """The weights of the tag, or of the architecture's default tag, by timm's own loading and cache.

        Raises:
            NotFetched: there are none, or they cannot be fetched.
        """
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it names each of ten tries, for a minute
        try:
            model: nn.Module = _timm().create_model(_name(arch), pretrained=True)
        except Exception as error:  # of huggingface_hub, its HTTP client, or timm: one for each way to fail
            record = _record(arch)
            url = f"https://huggingface.co/{record.hf_hub_id}" if record.hf_hub_id else record.url
            raise NotFetched(
                f"{arch}: its published weights could not be fetched ({first_line(error).rstrip('.')}). Download "
                f"the file of {url} on another machine"
            ) from None
        return model.state_dict()


def _timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError:
        raise PackageMissing("timm's architectures need the package timm: pip install 'samdeploy[timm]'") from None
    module: ModuleType = timm
    return module


def _name(arch: str) -> str:
    return arch.partition(":")[2]


def _record(arch: str) -> Any:
    """timm's own record of an architecture's weights, a `PretrainedCfg`."""
    return _timm().models.get_pretrained_cfg(_name(arch))


FAMILY: ModelFamily = TimmFamily()
