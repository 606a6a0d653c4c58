"""Networks: SAM-ResNet as trained, its exact fold, and the forward pass that is exported.  Imports torch."""

from __future__ import annotations

from samdeploy.models.family import FAMILIES, ModelFamily, build_model, family_of
from samdeploy.models.graph import Exported
from samdeploy.models.pretrained import Pretrained, load_pretrained, read_pretrained
from samdeploy.models.sam_resnet.attention import GATES, StreamlinedAttention
from samdeploy.models.sam_resnet.fold import FoldedResNet, fold
from samdeploy.models.sam_resnet.resnet import ARCHS, SamResNet
from samdeploy.models.weights import load_weights, save_weights, state_dict_from_bytes

__all__ = [
    "ARCHS",
    "FAMILIES",
    "GATES",
    "Exported",
    "FoldedResNet",
    "ModelFamily",
    "Pretrained",
    "SamResNet",
    "StreamlinedAttention",
    "build_model",
    "family_of",
    "fold",
    "load_pretrained",
    "load_weights",
    "read_pretrained",
    "save_weights",
    "state_dict_from_bytes",
]
