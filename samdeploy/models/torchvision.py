"""torchvision's classifiers as a `ModelFamily`: "torchvision:resnet18"."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from samdeploy.bundle.spec import RESIZES, OptionValue, Preprocessing
from samdeploy.models.family import ModelFamily
from samdeploy.models.torch_family import TorchFamily

# They give two or three tensors of logits while they are trained.
_SEVERAL_OUTPUTS = ("googlenet", "inception_v3")
_OTHER_TASKS = {
    "detection": "is a detection model",
    "segmentation": "is a segmentation model",
    "video": "takes videos",
    "quantization": "is quantized already",
}


class TorchvisionFamily(TorchFamily):
    """See https://docs.pytorch.org/vision/stable/models.html."""

    prefix = "torchvision"

    @functools.cache  # noqa: B019 - there is one instance
    def architectures(self) -> Sequence[str]:
        from torchvision import models  # late: takes two seconds

        names = models.list_models(module=models)
        return tuple(f"{self.prefix}:{name}" for name in names if name not in _SEVERAL_OUTPUTS)

    def build(self, arch: str, num_classes: int, options: Mapping[str, OptionValue]) -> nn.Module:
        from torchvision import models

        model: nn.Module = models.get_model(_name(arch), weights=None, num_classes=num_classes)
        return model

    def preprocessing(self, arch: str, options: Mapping[str, OptionValue]) -> Preprocessing | None:
        """What torchvision validates the architecture's best weights with."""
        record = _weights(arch).transforms()
        (side,), (short,) = record.crop_size, record.resize_size
        resize = RESIZES[record.interpolation.value]
        return Preprocessing(
            side, side, "center_crop", short, tuple(record.mean), tuple(record.std), resize, crop="half-even"
        )

    def labels(self, arch: str, num_classes: int) -> Sequence[tuple[str, ...]]:
        """The categories of the weights' record; a name that occurs twice gets its number: "crane (517)"."""
        names = [str(name) for name in _weights(arch).meta["categories"]]
        if len(names) != num_classes:
            return ()
        once = [name if names.index(name) == place else f"{name} ({place})" for place, name in enumerate(names)]
        return (tuple(once),)

    def other_task(self, arch: str) -> str:
        from torchvision import models

        name = _name(arch)
        if name in _SEVERAL_OUTPUTS:
            return "has several outputs while it is trained"
        if name not in models.list_models():
            return ""
        # torchvision.models.detection.faster_rcnn, for example
        kind = models.get_model_builder(name).__module__.split(".")[2]
        return _OTHER_TASKS.get(kind, f"is a model for {kind}")

    def weights_url(self, arch: str) -> str:
        url: str = _weights(arch).url
        return url


def _name(arch: str) -> str:
    return arch.partition(":")[2]


def _weights(arch: str) -> Any:
    """The enum member of the best published weights."""
    from torchvision import models

    return models.get_model_weights(_name(arch)).DEFAULT


FAMILY: ModelFamily = TorchvisionFamily()
