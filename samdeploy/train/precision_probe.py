"""float32 or bf16 on a CPU that multiplies bf16: measured before training, because it depends on more than the CPU.

One thread of an AVX512-BF16 CPU trains SAM-ResNet-50 at 64 pixels 1.8 times as fast in bf16.  Two threads beside other
programs trained it half as fast: oneDNN's bf16 kernels wait for one another in a loop, and where a thread has lost its
core the others burn theirs.  So it is tried on the network that is to be trained, on the machine as it is now.
"""

from __future__ import annotations

import copy
import time

import torch
from torch.nn import functional as F

from samdeploy.models import SamResNet
from samdeploy.train.device import Autocast

PICTURES = 16  # in one try
TRIES = 3
MIN_GAIN = 1.1  # below that, float32 is the safer choice
SHARE = 30  # a training that takes less than so many times the probe is not worth it


def faster_precision(model: SamResNet, height: int, width: int, total_pictures: int) -> Autocast:
    """bf16 where it is clearly faster here and now, else None for float32.

    Args:
        model: on the CPU; left as it is.
        height, width: of the pictures to train on.
        total_pictures: over all epochs.
    """
    trial = copy.deepcopy(model).train().to(memory_format=torch.channels_last)
    images = torch.zeros(PICTURES, 3, height, width).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(PICTURES, dtype=torch.int64)

    def seconds(dtype: Autocast) -> float:
        start = time.perf_counter()
        trial.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            logits = trial(images)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        return time.perf_counter() - start

    seconds(None)  # the first pass also loads kernels
    plain = seconds(None)
    if plain * total_pictures / PICTURES < SHARE * 2 * (TRIES + 1) * plain:
        return None
    seconds(torch.bfloat16)
    pairs = [(seconds(None), seconds(torch.bfloat16)) for _ in range(TRIES)]
    gain = sorted(fp32 / bf16 for fp32, bf16 in pairs)[TRIES // 2]
    return torch.bfloat16 if gain >= MIN_GAIN else None
