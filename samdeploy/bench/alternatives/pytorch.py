"""The network as PyTorch users run it without samdeploy: eager, compiled, and exported by PyTorch's own exporter."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from samdeploy.arrays import UInt8Array
from samdeploy.backends.pytorch import is_of_pytorch, trained_network
from samdeploy.bench.turns import Run
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, first_line
from samdeploy.models import Exported
from samdeploy.models.layout import channels_last


def on_cuda(device: str) -> bool:
    """Whether `eager` would compute on a GPU."""
    return device != "cpu" and torch.cuda.is_available()


def eager(bundle: Bundle, device: str) -> Run:
    """PyTorch as it is.

    Raises:
        BackendUnavailable: the network is none of PyTorch's.
    """
    return _run(*_placed(bundle, device))


def compiled(bundle: Bundle, device: str) -> Run:
    """`torch.compile`, made anew for each batch size, as fast as it can be had without tuning for hours.

    Raises:
        BackendUnavailable: it does not work here, for example for want of a C++ compiler.
    """
    network, place = _placed(bundle, device)
    run = _run(torch.compile(network, dynamic=False), place)

    def named(batch: UInt8Array) -> object:
        try:
            return run(batch)
        except Exception as error:  # from the compiler, the C++ compiler, or Triton
            raise BackendUnavailable(f"torch.compile fails: {first_line(error)}") from error

    return named


def plain_export(bundle: Bundle, images: UInt8Array) -> bytes:
    """What PyTorch's own exporter makes of the network, unfolded, as an ONNX file with a free batch size.

    Args:
        images: uint8 [2, H, W, 3]: examples.  With one, the exporter would fix the batch size at 1.

    Raises:
        BackendUnavailable: onnxscript is missing, or the exporter fails.
    """
    try:
        import onnxscript  # noqa: F401 - the exporter's, which reports its absence less clearly
    except ModuleNotFoundError:
        raise BackendUnavailable(
            "PyTorch's exporter needs onnxscript, which is not installed; pip install 'samdeploy[bench]'"
        ) from None
    network, _ = _trained(bundle, "cpu")
    try:
        return export_module(Exported(network, bundle.spec).eval(), images)
    except Exception as error:  # of many kinds, by version
        raise BackendUnavailable(f"PyTorch's exporter fails: {first_line(error)}") from error


def export_module(module: nn.Module, images: UInt8Array) -> bytes:
    """An ONNX file of a module with a free batch size, by PyTorch's own exporter; `images` as in `plain_export`."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "plain.onnx")
        torch.onnx.export(
            module,
            (torch.tensor(images),),
            path,
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        return path.read_bytes()


def _trained(bundle: Bundle, device: str) -> tuple[nn.Module, str]:
    """As `trained_network`.

    Raises:
        BackendUnavailable: as there, or it is none of PyTorch's networks.
    """
    network, place = trained_network(bundle, device)
    if not is_of_pytorch(network):
        raise BackendUnavailable(f"{bundle.spec.arch} came as a file that PyTorch does not run")
    return network, place


def _placed(bundle: Bundle, device: str) -> tuple[nn.Module, str]:
    network, place = _trained(bundle, device)
    # uint8 NHWC permuted to NCHW is channels_last already; weights of the same layout save the conversions.
    return channels_last(Exported(network, bundle.spec).eval().to(place)), place


def _run(module: Callable[[torch.Tensor], torch.Tensor], device: str) -> Run:
    @torch.inference_mode()
    def run(batch: UInt8Array) -> object:
        # On CUDA, .cpu() waits for the answer.
        return module(torch.from_numpy(batch).to(device)).cpu().numpy()

    return run
