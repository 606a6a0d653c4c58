"""SAM-ResNet as a `ModelFamily`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import onnx
from torch import nn

from samdeploy.bundle.spec import ModelSpec, OptionValue, Preprocessing
from samdeploy.models.family import FeaturesAndHead, ModelFamily, Rescaled
from samdeploy.models.sam_resnet.attention import GATES
from samdeploy.models.sam_resnet.fold import FoldedResNet, fold
from samdeploy.models.sam_resnet.onnx import graph_from_model
from samdeploy.models.sam_resnet.rescale import choose_scales, rescale
from samdeploy.models.sam_resnet.resnet import ARCHS, SamResNet


class SamResNetFamily:
    """ResNets with streamlined attention; see `samdeploy.models.sam_resnet.resnet`."""

    prefix = "sam"
    options: Mapping[str, tuple[OptionValue, ...]] = {"gate": ("identity", *(g for g in GATES if g != "identity"))}

    def architectures(self) -> Sequence[str]:
        return ARCHS

    def build(self, arch: str, num_classes: int, options: Mapping[str, OptionValue]) -> SamResNet:
        return SamResNet(arch, num_classes, str(options["gate"]))

    def preprocessing(self, arch: str, options: Mapping[str, OptionValue]) -> Preprocessing | None:
        return None  # the published weights are of the training recipes' own sizes

    def simplify(self, model: nn.Module) -> FoldedResNet:
        return fold(cast(SamResNet, model))

    def to_onnx(self, model: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
        return graph_from_model(cast(FoldedResNet, model), spec, "fp32")

    def features_and_head(self, model: nn.Module) -> FeaturesAndHead | None:
        network = cast(SamResNet, model)
        return FeaturesAndHead(network.features, network.fc)

    def rescale(self, model: nn.Module, largest: Mapping[str, float]) -> Rescaled:
        """See `samdeploy.models.sam_resnet.rescale`."""
        net = cast(FoldedResNet, model)
        scales = choose_scales(net, largest)
        exponents = scales.exponents()
        return Rescaled(rescale(net, scales) if exponents else net, exponents)


FAMILY: ModelFamily = SamResNetFamily()
