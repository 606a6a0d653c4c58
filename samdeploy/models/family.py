"""The seam: what samdeploy asks of a family of networks.

Only `samdeploy/models/<family>` knows an architecture.  Everything after `to_onnx` works on nodes and tensor names of
the graph.  A new family is one file and one line of `FAMILIES` in `samdeploy/models/registry.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from samdeploy.bundle.spec import ModelSpec, OptionValue, Preprocessing
from samdeploy.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

    import onnx
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class FeaturesAndHead:
    """A network cut where its features are averaged: ``head(features(x).mean(dim=(2, 3)))`` is the network.

    Attributes:
        features: float [N, 3, H, W], normalised -> float [N, C, h, w].
        head: float [..., C] -> logits float [..., K]; affine.
    """

    features: Callable[[torch.Tensor], torch.Tensor]
    head: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Rescaled:
    """The same function, with some of its tensors stored smaller.

    Attributes:
        model: for `ModelFamily.to_onnx`.
        exponents: tensor of the graph -> k, where it is stored as its value times 2**-k; only those that are not 0.
    """

    model: nn.Module
    exponents: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Stage:
    """What is watched of one stage of a network while it is trained.

    Attributes:
        name: "layer1".
        activations: modules whose outputs an exported network has, too.
        gates: modules whose outputs are gates, and what is added to them: channels are multiplied by the sum.
    """

    name: str
    activations: Sequence[nn.Module]
    gates: Sequence[tuple[nn.Module, float]] = ()


@dataclass(frozen=True, slots=True)
class ChannelGates:
    """What multiplies the channels of an exported network, module by module.

    Attributes:
        kind: for titles, such as "identity".
        formula: of a gate.
        neutral: the gate where a module says nothing.
        tensors: module, such as "layer2.0" -> tensor of its gates, [N, C] or [N, C, 1, 1], in the order of the network.
    """

    kind: str
    formula: str
    neutral: float
    tensors: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """Tensors that start fresh where a file of weights does not hold them.

    Attributes:
        name: "attention".
        holds: whether a tensor of this name, as in the state dict, belongs to it.
        options: that must be those of the training which the file is from.
    """

    name: str
    holds: Callable[[str], bool]
    options: tuple[str, ...] = ()


class NotFetched(WeightsError):
    """Published weights could not be fetched; its text ends with where to download them."""


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A file that holds a whole network.

    Attributes:
        arch: its name, with the family's prefix.
        state: for `load_state` into what `build` gives.
        num_classes: of its logits.
        height, width: of the images that it takes, in pixels.
        notes: lines for the user.
    """

    arch: str
    state: Mapping[str, torch.Tensor]
    num_classes: int
    height: int
    width: int
    notes: tuple[str, ...] = ()


class ModelFamily(Protocol):
    """A family of networks.  `samdeploy.models.torch_family.TorchFamily` has defaults for all but `build`.

    Attributes:
        prefix: of its architectures' names, the key in `samdeploy.models.registry.FAMILIES`.
        options: name -> the values that it may take, the first of which is the default: keys of a recipe's [model].
        reference: what engines are compared with, for people: what computes the trained network.
    """

    prefix: str
    options: Mapping[str, tuple[OptionValue, ...]]
    reference: str

    @property
    def rescale(self) -> Callable[[nn.Module, Mapping[str, float]], Rescaled] | None:
        """Brings the tensors of a simplified network into the range of FP16, exactly; None where the family cannot.

        Called with the network and the largest absolute value of each tensor of its graph, by the tensor's name.
        """
        ...

    @property
    def calmer(self) -> Callable[[Mapping[str, OptionValue]], str] | None:
        """What makes trainings with these options calmer, as a command line's --set in words; "" for nothing."""
        ...

    @property
    def stages(self) -> Callable[[nn.Module], Sequence[Stage]] | None:
        """What to watch of a network while it is trained; None: its top-level stages, without any gates."""
        ...

    @property
    def channel_gates(self) -> Callable[[onnx.ModelProto, Mapping[str, OptionValue]], ChannelGates] | None:
        """The gates of channels in an exported graph of a network with these options; None where there are none."""
        ...

    @property
    def parts(self) -> Sequence[Part] | None:
        """What pretrained weights need not hold, the head last; None: the head, found as what the classes change."""
        ...

    @property
    def published_state(self) -> Callable[[str], Mapping[str, torch.Tensor]] | None:
        """Fetches an architecture's published weights with the tools of whoever published them; None: `weights_url`."""
        ...

    @property
    def for_side(self) -> Callable[[str, int], Mapping[str, OptionValue]] | None:
        """Options with which an architecture takes square images of a side in pixels, where it is built for one size.

        Those that are absent for its own size; {} for architectures that have none; None where the family has no such
        option.
        """
        ...

    @property
    def other_task(self) -> Callable[[str], str] | None:
        """What networks are that the same package has and that are no classifiers: "is a detection model"; else ""."""
        ...

    @property
    def twins(self) -> Callable[[str], Sequence[str]] | None:
        """Architectures with the same tensors that compute something else, such as another padding."""
        ...

    @property
    def weights_url(self) -> Callable[[str], str] | None:
        """Published weights of an architecture: a state dict whose file's name ends in the start of its SHA-256."""
        ...

    @property
    def read_network(self) -> Callable[[Path], NetworkFile] | None:
        """Reads a file that holds a network and not just its weights; None where there are no such files.

        Raises InputError where it is no classifier that can be exported.
        """
        ...

    def architectures(self) -> Sequence[str]:
        """Names that `build` takes, with the prefix."""
        ...

    def knows(self, arch: str) -> bool:
        """Whether `build` takes this name: one of `architectures()`, where those can be listed."""
        ...

    def build(self, arch: str, num_classes: int, options: Mapping[str, OptionValue]) -> nn.Module:
        """A network with fresh weights, drawn from torch's global generator: normalised [N, 3, H, W] -> [N, K].

        Args:
            arch: with its prefix.
            options: complete and checked.
        """
        ...

    def preprocessing(self, arch: str, options: Mapping[str, OptionValue]) -> Preprocessing | None:
        """What the architecture's published weights expect; None where there is no such record."""
        ...

    def license(self, arch: str) -> str | None:
        """Of the architecture's published weights, as their own record names it."""
        ...

    def labels(self, arch: str, num_classes: int) -> Sequence[tuple[str, ...]]:
        """Names of the classes of its published weights, as several tools call them; none where no record says."""
        ...

    def simplify(self, model: nn.Module) -> nn.Module:
        """The same function as a trained network in eval mode, with less to compute; `model` is left as it is."""
        ...

    def to_onnx(self, model: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
        """A simplified network in FP32: uint8 [N, H, W, 3] RGB -> logits float32 [N, K], normalisation included."""
        ...

    def features_and_head(self, model: nn.Module, size: Preprocessing) -> FeaturesAndHead | None:
        """Where a trained network averages the features of images of a size; None where it does not: it has no maps."""
        ...
