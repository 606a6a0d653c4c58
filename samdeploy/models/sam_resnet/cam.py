"""Class activation maps of the network as trained, without any fold: what exported maps are compared with."""

from __future__ import annotations

import torch
from torch import nn

from samdeploy.bundle.spec import ModelSpec
from samdeploy.models.graph import Normalize
from samdeploy.models.sam_resnet.resnet import SamResNet


class ClassActivationMaps(nn.Module):
    """``CAM_k(h, w) = w_k . features(h, w)``, the head at every position of the last stage's output.

    The head may be several linear layers: it is affine, so its linear part is ``head(x) - head(0)``.
    Zhou et al. 2016, "Learning deep features for discriminative localization", equation 2.
    """

    def __init__(self, net: SamResNet, spec: ModelSpec) -> None:
        """`net` is taken as it is; call `eval()` on this module before use."""
        super().__init__()
        self.normalize = Normalize(spec.preprocessing)
        self.net = net

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [N, H, W, 3], RGB -> logits float32 [N, K] and maps float32 [N, K, h, w].

        The mean of a map plus the class's bias is the class's logit.
        """
        features = self.net.features(self.normalize(image))
        logits = self.net.fc(features.mean(dim=(2, 3)))
        bias = self.net.fc(features.new_zeros(1, features.shape[1]))
        maps = self.net.fc(features.permute(0, 2, 3, 1)) - bias
        return logits.float(), maps.permute(0, 3, 1, 2).contiguous().float()
