"""float32 or bf16 on a CPU that multiplies bf16: measured before training, because it depends on more than the CPU.

Alone on two AVX512-BF16 cores, SAM-ResNet-50 at 64 pixels trained 1.5 to 1.8 times as fast in bf16, before its
convolutions became products.  Beside other programs it trained at a fourth of the speed of float32: the threads of
oneDNN's bf16 convolutions wait for one another in a loop, and where one has lost its core the others burn theirs.  So
it is tried on the network that is to be trained, on the machine as it is now.

The price is that a clock has a say in what a recipe gives.  So the choice is made once per training, said, written into
run.json, and kept: when the training goes on, by all its processes, and by all seeds of `samdeploy reproduce`.
"""

from __future__ import annotations

import copy
import sys
import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from samdeploy.errors import RecipeError
from samdeploy.models.layout import channels_last
from samdeploy.train.device import Autocast, autocast_dtype, multiplies_bf16, precision_name
from samdeploy.train.recipe.recipe import Recipe

IMAGES = 16  # in one try, at least; more, up to the training's batch, where they take less than STEP_S
STEP_S = 0.5  # larger batches gain more from bf16, and short steps are timed badly
TRIES = 5
MIN_GAIN = 1.1  # below that, float32 is the safer choice
SHARE = 30  # a training that takes less than so many times the probe is not worth it
STEPS = 2 * (TRIES + 1)
WORTH = SHARE * STEPS * IMAGES  # images over all epochs
# Up to this side the last stage's 3x3 convolution with stride 2 sees one position, where PyTorch 2.14's bf16 gradient
# of its weights on a CPU reads memory that nobody wrote: with NaN left there, 15 of 52 gradients were NaN, and 0 of 260
# with stride 1 or sides of 2 and 4.
UNSOUND_PX = 16


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found.

    Attributes:
        autocast: bf16 where it is clearly faster here and now, else None for float32.
        gain: how many times as fast as float32 bf16 was.
    """

    autocast: Autocast
    gain: float


def settle_precision(
    recipe: Recipe, model: nn.Module, device: torch.device, shape: tuple[int, int, int], kept: str | None
) -> tuple[Autocast, str]:
    """The precision of a training, and why it is that one.

    Args:
        model: on the CPU; left as it is.
        shape: images of one epoch, their height and width.
        kept: what "auto" chose when this training began, where it goes on.

    Raises:
        RecipeError: the device does not have the precision asked for.
    """
    asked, (images, height, width) = recipe.training.precision, shape
    is_small = device.type == "cpu" and min(height, width) <= UNSOUND_PX
    if is_small and "bf16" in (asked, kept):
        raise RecipeError(
            f"training.precision: bf16 at {height}x{width} pixels found; on a CPU PyTorch's bf16 gradients are wrong "
            f"up to {UNSOUND_PX} pixels; larger images or fp32 expected: --set training.precision=fp32"
        )
    if asked != "auto":
        return autocast_dtype(asked, device), "asked for"
    if kept is not None:
        try:
            return autocast_dtype(kept, device), "kept from the start of the training"
        except RecipeError:  # begun in fp16 on a GPU, gone on with on a CPU
            print(f"precision: {kept} until here, which this device does not train in; going on with auto's choice",
                  file=sys.stderr)  # fmt: skip
    if device.type != "cpu" or not multiplies_bf16():
        return autocast_dtype("auto", device), "the device's best"
    if is_small:
        return None, f"bf16 gradients on a CPU are wrong up to {UNSOUND_PX} pixels"
    total = images * recipe.training.epochs
    if total < WORTH:
        return None, "too short a training to measure what is faster"
    found = probe(model, height, width, min(recipe.training.batch_size, total // (SHARE * STEPS)))
    name = precision_name(found.autocast)
    why = f"measured: bf16 {found.gain:.2f} times as fast as fp32"
    print(
        f"precision: {name} ({why} here and now; the next training may find otherwise: --set training.precision={name} "
        "fixes it)",
        file=sys.stderr,
    )
    return found.autocast, why


def probe(model: nn.Module, height: int, width: int, most: int) -> Probe:
    """Train a few batches of a copy in both precisions, in turns.

    Args:
        model: on the CPU; left as it is.
        height, width: of the images.
        most: images in one batch, at most; `IMAGES` at least.
    """
    trial = channels_last(copy.deepcopy(model).train())

    def seconds(dtype: Autocast, count: int) -> float:
        images = torch.zeros(count, 3, height, width).contiguous(memory_format=torch.channels_last)
        labels = torch.zeros(count, dtype=torch.int64)
        start = time.perf_counter()
        trial.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            logits = trial(images)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        return time.perf_counter() - start

    for dtype in (None, torch.bfloat16):  # the first passes also load kernels
        seconds(dtype, IMAGES)
    count = max(IMAGES, min(most, int(STEP_S / seconds(None, IMAGES) * IMAGES)))
    pairs = [(seconds(None, count), seconds(torch.bfloat16, count)) for _ in range(TRIES)]
    gain = sorted(fp32 / bf16 for fp32, bf16 in pairs)[TRIES // 2]
    return Probe(torch.bfloat16 if gain >= MIN_GAIN else None, gain)
