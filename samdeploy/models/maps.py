"""Class activation maps of a network as trained, without any simplification: what exported maps are compared with."""

from __future__ import annotations

import torch
from torch import nn

from samdeploy.bundle.spec import ModelSpec
from samdeploy.errors import InputError
from samdeploy.models.graph import Normalize
from samdeploy.models.registry import family_of


class ClassActivationMaps(nn.Module):
    """``CAM_k(h, w) = w_k . features(h, w)``, the head at every position of the features.

    The head may be several linear layers: it is affine, so its linear part is ``head(x) - head(0)``.
    Zhou et al. 2016, "Learning deep features for discriminative localization", equation 2.
    """

    def __init__(self, net: nn.Module, spec: ModelSpec) -> None:
        """`net` is a network of `spec.arch`, taken as it is; call `eval()` on this module before use.

        Raises:
            InputError: the network has no place where its features are averaged.
        """
        super().__init__()
        cut = family_of(spec.arch).features_and_head(net, spec.preprocessing)
        if cut is None:
            raise InputError(f"{spec.arch}: no class activation maps, for it does not average its features")
        self.normalize = Normalize(spec.preprocessing)
        self.net = net
        self._cut = cut

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [N, H, W, 3], RGB -> logits float32 [N, K] and maps float32 [N, K, h, w].

        The mean of a map plus the class's bias is the class's logit.
        """
        features = self._cut.features(self.normalize(image))
        head = self._cut.head
        bias = head(features.new_zeros(1, features.shape[1]))
        maps = head(features.permute(0, 2, 3, 1)) - bias
        return head(features.mean(dim=(2, 3))).float(), maps.permute(0, 3, 1, 2).contiguous().float()
