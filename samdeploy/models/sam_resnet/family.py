"""SAM-ResNet as a `ModelFamily`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from torch import nn

from samdeploy.bundle.spec import ModelSpec, OptionValue, Preprocessing
from samdeploy.models.family import ChannelGates, FeaturesAndHead, ModelFamily, Part, Rescaled, Stage
from samdeploy.models.sam_resnet.attention import GATES, StreamlinedAttention
from samdeploy.models.sam_resnet.fold import FoldedResNet, fold
from samdeploy.models.sam_resnet.rescale import choose_scales, rescale
from samdeploy.models.sam_resnet.resnet import ARCHS, STEMS, SamResNet
from samdeploy.models.torch_family import TorchFamily

if TYPE_CHECKING:
    import onnx

# The original work starts from torchvision's V1 weights, not from the better V2.  The addresses are here because
# importing torchvision's models takes two seconds.
PUBLISHED_WEIGHTS = {
    "sam-resnet18": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "sam-resnet34": "https://download.pytorch.org/models/resnet34-b627a593.pth",
    "sam-resnet50": "https://download.pytorch.org/models/resnet50-0676ba61.pth",
    "sam-resnet101": "https://download.pytorch.org/models/resnet101-63fe2227.pth",
    "sam-resnet152": "https://download.pytorch.org/models/resnet152-394f9c45.pth",
}


_CALMER = {
    "original": "start with the attention switched off: --set model.gate=identity",
    "identity": "bound the attention: --set model.gate=bounded",
}


class SamResNetFamily(TorchFamily):
    """ResNets with streamlined attention; see `samdeploy.models.sam_resnet.resnet`."""

    prefix = "sam"
    options: Mapping[str, tuple[OptionValue, ...]] = {
        "gate": ("identity", *(gate for gate in GATES if gate != "identity")),
        "stem": STEMS,
    }
    parts: Sequence[Part] | None = (
        Part("stem", lambda name: name.startswith(("conv1.", "bn1.")) and "num_batches" not in name),
        Part("attention", lambda name: ".sl." in name, options=("gate",)),
        Part("head", lambda name: name.startswith("fc.")),
    )

    def architectures(self) -> Sequence[str]:
        return ARCHS

    def build(self, arch: str, num_classes: int, options: Mapping[str, OptionValue]) -> SamResNet:
        return SamResNet(arch, num_classes, str(options["gate"]), str(options.get("stem", STEMS[0])))

    def simplify(self, model: nn.Module) -> FoldedResNet:
        return fold(cast(SamResNet, model))

    def to_onnx(self, model: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
        from samdeploy.models.sam_resnet.onnx import graph_from_model  # late: training needs no onnx

        return graph_from_model(cast(FoldedResNet, model), spec)

    def features_and_head(self, model: nn.Module, size: Preprocessing) -> FeaturesAndHead | None:
        network = cast(SamResNet, model)
        return FeaturesAndHead(network.features, network.fc)

    def weights_url(self, arch: str) -> str:
        return PUBLISHED_WEIGHTS[arch]

    def calmer(self, options: Mapping[str, OptionValue]) -> str:
        return _CALMER.get(str(options["gate"]), "")

    def stages(self, model: nn.Module) -> Sequence[Stage]:
        """Outputs of batch norms, attention and blocks: a convolution's own vanishes when its batch norm is folded."""
        return [_stage(f"layer{number}", stage) for number, stage in enumerate(cast(SamResNet, model).stages(), 1)]

    def channel_gates(self, model: onnx.ModelProto, options: Mapping[str, OptionValue]) -> ChannelGates:
        from samdeploy.models.sam_resnet.gates import channel_gates

        return channel_gates(model, options)

    def rescale(self, model: nn.Module, largest: Mapping[str, float]) -> Rescaled:
        """See `samdeploy.models.sam_resnet.rescale`."""
        net = cast(FoldedResNet, model)
        scales = choose_scales(net, largest)
        exponents = scales.exponents()
        return Rescaled(rescale(net, scales) if exponents else net, exponents)


def _stage(name: str, stage: nn.Sequential) -> Stage:
    attention = [module for module in stage.modules() if isinstance(module, StreamlinedAttention)]
    norms = [module for module in stage.modules() if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm)]
    return Stage(name, [*stage, *norms, *attention], [_gate(module) for module in attention if module.gate != "none"])


def _gate(module: StreamlinedAttention) -> tuple[nn.Module, float]:
    return module.squash if module.gate == "bounded" else module.fc, 0.0 if module.gate == "original" else 1.0


FAMILY: ModelFamily = SamResNetFamily()
