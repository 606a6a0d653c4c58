"""Networks in ONNX files as a `ModelFamily`: "onnx:NAME", where NAME is the file's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from samdeploy.bundle.spec import ModelSpec, OptionValue, Preprocessing
from samdeploy.errors import InputError, first_line
from samdeploy.models.family import FeaturesAndHead, ModelFamily, NetworkFile
from samdeploy.models.torch_family import TorchFamily

if TYPE_CHECKING:
    import onnx

    from samdeploy.models.onnx_file.given import GivenFile

_STATE = "onnx"
_NAME = re.compile(r"onnx:[\w.+-]+")


class OnnxNetwork(nn.Module):
    """The file as its state: weights.safetensors holds its bytes."""

    onnx: torch.Tensor

    def __init__(self) -> None:
        """Empty until `load_state_dict`."""
        super().__init__()
        self.register_buffer(_STATE, torch.empty(0, dtype=torch.uint8))
        self._given: GivenFile | None = None

    @property
    def content(self) -> bytes:
        """The ONNX file."""
        content: bytes = self.onnx.cpu().numpy().tobytes()
        return content

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [N, 3, H, W], normalised -> logits float32 [N, K], computed on the CPU."""
        from samdeploy.models.onnx_file.given import GivenFile

        given = self._given or GivenFile(self.content)
        self._given = given
        return torch.from_numpy(given.run(x.cpu().numpy())[0]).to(x.device)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        """A file of any length."""
        if (found := state_dict.get(prefix + _STATE)) is not None:
            self.onnx, self._given = found.clone(), None
        super()._load_from_state_dict(state_dict, prefix, *others)


class OnnxFamily(TorchFamily):
    """The networks are as many as there are files."""

    prefix = "onnx"
    # By ONNX Runtime in FP32, see `GivenFile`.
    reference = "the ONNX file"

    def architectures(self) -> Sequence[str]:
        return ()

    def knows(self, arch: str) -> bool:
        return _NAME.fullmatch(arch) is not None

    def build(self, arch: str, num_classes: int, options: Mapping[str, OptionValue]) -> nn.Module:
        """Without weights there is no network: `load_state` brings all of it."""
        return OnnxNetwork()

    def read_network(self, path: Path) -> NetworkFile:
        from samdeploy.models.onnx_file.accept import accept

        try:
            content, own, classes, notes = accept(path)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except Exception as error:  # onnx and its tools fail on damaged files with whatever they run into
            raise InputError(f"{path}: damaged, or of an unknown form ({first_line(error)})") from error
        # The name becomes part of a manifest and of graphs.
        name = re.sub(r"[^\w.+-]", "_", path.stem)
        state = {_STATE: torch.frombuffer(bytearray(content), dtype=torch.uint8)}
        return NetworkFile(f"{self.prefix}:{name}", state, classes, own.height, own.width, notes)

    def to_onnx(self, model: nn.Module, spec: ModelSpec) -> onnx.ModelProto:
        from samdeploy.models.onnx_file.convert import bundle_graph

        assert isinstance(model, OnnxNetwork)
        return bundle_graph(model.content, spec)

    def features_and_head(self, model: nn.Module, size: Preprocessing) -> FeaturesAndHead | None:
        """Features are computed by the file as given; the head's numbers are read from it."""
        from samdeploy.models.onnx_file.maps import features_and_head

        assert isinstance(model, OnnxNetwork)
        return features_and_head(model.content)


FAMILY: ModelFamily = OnnxFamily()
