"""Networks of any family: building them, their weights, and the forward pass that is exported.  Imports torch."""

from __future__ import annotations

from samdeploy.models.family import ModelFamily
from samdeploy.models.graph import Exported
from samdeploy.models.pretrained import Pretrained, load_pretrained, read_pretrained
from samdeploy.models.registry import FAMILIES, build_model, family_of
from samdeploy.models.weights import load_weights, save_weights, state_dict_from_bytes

__all__ = [
    "FAMILIES",
    "Exported",
    "ModelFamily",
    "Pretrained",
    "build_model",
    "family_of",
    "load_pretrained",
    "load_weights",
    "read_pretrained",
    "save_weights",
    "state_dict_from_bytes",
]
