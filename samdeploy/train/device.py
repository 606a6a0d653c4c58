"""Which device trains, and in which precision."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field

import torch

from samdeploy.errors import BackendUnavailable, RecipeError
from samdeploy.train.distributed import Ranks

# What the forward and backward passes compute in; None is float32 throughout.
Autocast = torch.dtype | None


@dataclass(frozen=True, slots=True)
class Compute:
    """What a training computes with.

    Attributes:
        device: where network and batches are.
        autocast: what the passes compute in.
        ranks: who else takes a share of each batch.
    """

    device: torch.device
    autocast: Autocast = None
    ranks: Ranks = field(default_factory=Ranks)


def training_device(asked: str, ranks: Ranks | None = None) -> torch.device:
    """The device of "auto", "cpu", "cuda" or "cuda:N"; of several processes on a machine, each gets a GPU of its own.

    Raises:
        BackendUnavailable: a GPU was asked for and there is none, or none of that number.
        RecipeError: one GPU was named for several processes.
    """
    if ranks is not None and ranks.world > 1:
        if ":" in asked:
            raise RecipeError(f"training.device: {asked!r} found, but {ranks.world} processes train; expected 'cuda'")
        if asked != "cpu" and torch.cuda.is_available():
            asked = f"cuda:{ranks.local_rank}"
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    number = int(asked.partition(":")[2] or 0)
    if number >= count:
        raise BackendUnavailable(
            f"device {asked!r} asked, but PyTorch {torch.__version__} sees {count} GPU(s) here; train on the CPU with "
            "--set training.device=cpu, or check the driver with nvidia-smi and that PyTorch is a CUDA build"
        )
    return torch.device("cuda", number)


def autocast_dtype(precision: str, device: torch.device) -> Autocast:
    """The type that "auto", "fp32", "bf16" or "fp16" computes in on `device`.

    "auto" prefers bf16 to fp16 on a GPU: attention without squashing makes activations large, and fp16 ends at
    65,504.  On the CPU "auto" is float32 here; `samdeploy.train.choices.precision_probe` knows CPUs that multiply bf16.

    Raises:
        RecipeError: fp16 on the CPU, where it is slower than fp32 and gains nothing.
    """
    if precision == "auto":
        if device.type == "cpu":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if precision == "fp16" and device.type == "cpu":
        raise RecipeError("training.precision: 'fp16' found, but the device is the CPU; use fp32 or bf16 there")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products of bf16; without them PyTorch emulates it, slowly."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def precision_name(autocast: Autocast) -> str:
    """The name that recipes use for what `autocast_dtype` gave."""
    return {None: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[autocast]


def device_name(device: torch.device) -> str:
    """The name of the hardware, for provenance."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}"
