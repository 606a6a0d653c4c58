"""A family of ordinary PyTorch networks: what its author need not write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from torch import nn

from samdeploy.bundle.spec import ModelSpec, OptionValue, Preprocessing
from samdeploy.models.average import find_features_and_head
from samdeploy.models.family import ChannelGates, FeaturesAndHead, NetworkFile, Part, Rescaled, Stage

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    import torch


class TorchFamily(ABC):
    """Defaults of `samdeploy.models.family.ModelFamily`, where each method is described.

    A subclass sets `prefix` and writes `architectures` and `build`; the others only where it knows better.
    """

    prefix: str
    options: Mapping[str, tuple[OptionValue, ...]] = MappingProxyType({})
    reference: str = "PyTorch"
    parts: Sequence[Part] | None = None
    published_state: Callable[[str], Mapping[str, torch.Tensor]] | None = None
    twins: Callable[[str], Sequence[str]] | None = None
    for_side: Callable[[str, int], Mapping[str, OptionValue]] | None = None
    other_task: Callable[[str], str] | None = None
    weights_url: Callable[[str], str] | None = None
    rescale: Callable[[nn.Module, Mapping[str, float]], Rescaled] | None = None
    calmer: Callable[[Mapping[str, OptionValue]], str] | None = None
    stages: Callable[[nn.Module], Sequence[Stage]] | None = None
    read_network: Callable[[Path], NetworkFile] | None = None
    channel_gates: Callable[[onnx.ModelProto, Mapping[str, OptionValue]], ChannelGates] | None = None

    @abstractmethod
    def architectures(self) -> Sequence[str]: ...

    def knows(self, arch: str) -> bool:
        return arch in self.architectures()

    @abstractmethod
    def build(self, arch: str, num_classes: int, options: Mapping[str, OptionValue]) -> nn.Module: ...

    def preprocessing(self, arch: str, options: Mapping[str, OptionValue]) -> Preprocessing | None:
        return None

    def license(self, arch: str) -> str | None:
        return None

    def labels(self, arch: str, num_classes: int) -> Sequence[tuple[str, ...]]:
        return ()

    def simplify(self, model: nn.Module) -> nn.Module:
        """The network itself: runtimes fold its batch norms."""
        return model

    def to_onnx(self, model: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
        """By PyTorch's own exporter."""
        from samdeploy.models.traced import graph_from_module  # late: training needs no onnx

        return graph_from_module(model, spec)

    def features_and_head(self, model: nn.Module, size: Preprocessing) -> FeaturesAndHead | None:
        """Found by running the network once."""
        return find_features_and_head(model, size)
