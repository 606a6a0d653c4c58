"""The reference: the network as trained, in float32.  Every engine is measured against this one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.errors import BackendUnavailable, InputError
from samdeploy.models.graph import Exported
from samdeploy.models.layout import channels_last
from samdeploy.models.maps import ClassActivationMaps
from samdeploy.models.memory import is_out_of_memory, memory_reason
from samdeploy.models.registry import build_model, family_of
from samdeploy.models.weights import load_state, state_dict_from_bytes

if TYPE_CHECKING:
    import onnx

    from samdeploy.backends.session import Wanted
    from samdeploy.bundle import Bundle

# Images per forward pass: a whole test set in one pass would need its activations in memory at once.
_CHUNK = 256

# The switches of TF32 belong to the process, not to a thread: without this lock one session could switch TF32
# back on while another computes, or restore the wrong setting.
_TF32_LOCK = threading.Lock()


def unavailable() -> str | None:
    """None: torch runs everywhere it can be imported."""
    return None


def load(wanted: Wanted) -> PytorchSession:
    """Rebuild the trained network from the bundle's weights.

    Raises:
        BackendUnavailable: no weights in the bundle, or CUDA asked and not there.
        BundleError: the weights were changed.
        WeightsError: the weights are not those of the manifest's architecture.
    """
    network, device = trained_network(wanted.bundle, wanted.device)
    return PytorchSession((ClassActivationMaps if wanted.maps else Exported)(network, wanted.bundle.spec), device)


def trained_network(bundle: Bundle, device: str) -> tuple[nn.Module, str]:
    """The trained network on the CPU, and where it is to run: "cpu" or "cuda"; raises as `load` does."""
    file = bundle.find("weights")
    if file is None:
        raise BackendUnavailable("the bundle holds no weights, and pytorch runs on nothing else; export again")
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable(
            f"pytorch {torch.__version__} finds no CUDA device; use device 'cpu', or check the driver with nvidia-smi"
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    spec = bundle.spec
    try:
        network = build_model(spec.arch, len(spec.classes), spec.options)
    except InputError as error:
        raise BackendUnavailable(f"pytorch cannot rebuild this bundle's network: {error}") from error
    load_state(network, state_dict_from_bytes(bundle.read(file)), file.path)
    return network, device if is_of_pytorch(network) else "cpu"


def is_of_pytorch(network: nn.Module) -> bool:
    """Whether PyTorch computes a network; one that came as a file of another kind is run by its family, on the CPU."""
    return next(network.parameters(), None) is not None


def reference_name(bundle: Bundle) -> str:
    """What computes the trained network, for people: see `ModelFamily.reference`."""
    return family_of(bundle.spec.arch).reference


def trained_graph(bundle: Bundle) -> onnx.ModelProto:
    """The FP32 graph of the trained network, as its family writes it: see `reference.trained_graph`."""
    network, _ = trained_network(bundle, "cpu")
    family = family_of(bundle.spec.arch)
    return family.to_onnx(family.simplify(network.eval()), bundle.spec)


class PytorchSession:
    """The trained network, float32 with TF32 off.  Threads may share it; on CUDA they take turns."""

    backend = "pytorch"
    precision = "fp32"

    def __init__(self, network: nn.Module, device: str) -> None:
        """`network`: uint8 [N, H, W, 3] -> float32 [N, K], or that and the maps; `device` is "cpu" or "cuda"."""
        self.device = device
        # uint8 NHWC permuted to NCHW is channels_last already; weights of the same layout save the conversions.
        with _memory_named(device):
            self._network: nn.Module = channels_last(network.eval().to(device))

    @torch.inference_mode()
    def run(self, batch: UInt8Array) -> Float32Array:
        """uint8 [N, H, W, 3], RGB -> logits float32 [N, K], owned by the caller."""
        return self._outputs(batch)[0]

    @torch.inference_mode()
    def run_with_maps(self, batch: UInt8Array) -> tuple[Float32Array, Float32Array]:
        """uint8 [N, H, W, 3], RGB -> logits float32 [N, K] and maps float32 [N, K, h, w]."""
        logits, maps = self._outputs(batch)
        return logits, maps

    def _outputs(self, batch: UInt8Array) -> list[Float32Array]:
        with _memory_named(self.device):
            parts = list(self._parts(batch))
            return [torch.cat(part).numpy().astype(np.float32, copy=False) for part in zip(*parts, strict=True)]

    def _parts(self, batch: UInt8Array) -> Iterator[list[torch.Tensor]]:
        """The outputs on the CPU, for `_CHUNK` images each."""
        for start in range(0, len(batch), _CHUNK):
            # A copy, because torch refuses to wrap read-only arrays without a warning.
            images = torch.tensor(batch[start : start + _CHUNK])
            with _exact_float32() if self.device == "cuda" else nullcontext():
                found = self._network(images.to(self.device))
                outputs = [output.cpu() for output in (found if isinstance(found, tuple) else (found,))]
            yield outputs

    def close(self) -> None:
        """Drop the network."""
        self._network = nn.Identity()


@contextmanager
def _memory_named(device: str) -> Iterator[None]:
    """A full memory becomes an error with its cure."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        where, cure = ("GPU's", "on this GPU, or use device cpu") if device == "cuda" else ("machine's", "here")
        raise BackendUnavailable(
            f"pytorch: the {where} memory is full ({memory_reason(error)}): use a smaller batch, or end other programs "
            f"{cure}"
        ) from None


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Switch TF32 off: convolutions use it by default on CUDA, with 10 bits of mantissa instead of 23."""
    # torch puts an object in the place of its module `cudnn`; type checkers see the module.
    convolution = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    product = torch.backends.cuda.matmul
    with _TF32_LOCK:
        before = convolution.fp32_precision, product.fp32_precision
        convolution.fp32_precision = product.fp32_precision = "ieee"
        try:
            yield
            torch.cuda.synchronize()
        finally:
            convolution.fp32_precision, product.fp32_precision = before
