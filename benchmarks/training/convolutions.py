"""Each convolution of ResNet-18 and -50 in bf16 on a CPU: oneDNN's own passes against a product of matrices.

    .venv/bin/python benchmarks/training/convolutions.py [--rounds 7] [--out FILE.json]

Forward, gradient of the images and gradient of the weights, milliseconds, each way in turns.  A star marks where
`samdeploy.models.sam_resnet.convolution` takes the product; its limits come from this table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from samdeploy.evaluate.machine import machine, versions
from samdeploy.models.sam_resnet import convolution
from samdeploy.models.sam_resnet.convolution import Conv2d
from samdeploy.train.loop.host_memory import freed_memory_kept

PASSES = ("forward", "images", "weights")


class Shape(NamedTuple):
    """One convolution: channels in, side of the square images, channels out, side of the kernel, stride."""

    inside: int
    side: int
    outside: int
    size: int
    stride: int


# (network, pixels, batch) -> its shapes but for the stem, from the first stage to the last.
SHAPES = {
    ("ResNet-50", 64, 128): (
        Shape(64, 16, 64, 3, 1), Shape(64, 16, 256, 1, 1), Shape(256, 16, 128, 1, 1), Shape(128, 16, 128, 3, 2),
        Shape(128, 8, 128, 3, 1), Shape(256, 16, 512, 1, 2), Shape(512, 8, 128, 1, 1), Shape(256, 8, 256, 3, 2),
        Shape(256, 4, 256, 3, 1), Shape(1024, 4, 256, 1, 1), Shape(1024, 4, 2048, 1, 2), Shape(512, 4, 512, 3, 2),
        Shape(512, 2, 512, 3, 1), Shape(512, 2, 2048, 1, 1), Shape(2048, 2, 512, 1, 1),
    ),
    ("ResNet-18", 32, 256): (
        Shape(64, 8, 64, 3, 1), Shape(64, 8, 128, 3, 2), Shape(128, 4, 128, 3, 1), Shape(128, 4, 256, 3, 2),
        Shape(256, 2, 256, 3, 1), Shape(256, 2, 512, 3, 2), Shape(512, 1, 512, 3, 1), Shape(256, 2, 512, 1, 2),
    ),
    ("ResNet-50", 192, 32): (
        Shape(64, 48, 64, 3, 1), Shape(64, 48, 256, 1, 1), Shape(256, 48, 512, 1, 2), Shape(128, 24, 128, 3, 1),
        Shape(256, 12, 256, 3, 1), Shape(1024, 12, 256, 1, 1), Shape(512, 6, 512, 3, 1), Shape(512, 6, 2048, 1, 1),
    ),
}  # fmt: skip


def passes(shape: Shape, batch: int) -> dict[str, Callable[[], object]]:
    """Each pass by itself, in the way that the limits of the moment ask for."""
    conv = Conv2d(shape.inside, shape.outside, shape.size, shape.stride).to(memory_format=torch.channels_last)
    x = torch.randn(batch, shape.inside, shape.side, shape.side).bfloat16()
    x, weight = x.contiguous(memory_format=torch.channels_last), conv.weight.detach().bfloat16()
    learning_x, learning_weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    to_images = convolution._Convolution.apply(learning_x, weight, shape.stride)
    to_weights = convolution._Convolution.apply(x, learning_weight, shape.stride)
    coming = torch.randn_like(to_weights)

    return {
        "forward": lambda: convolution._Convolution.apply(x, weight, shape.stride),
        "images": lambda: torch.autograd.grad(to_images, learning_x, coming, retain_graph=True),
        "weights": lambda: torch.autograd.grad(to_weights, learning_weight, coming, retain_graph=True),
    }


def milliseconds(call: Callable[[], object]) -> float:
    """One call."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    with freed_memory_kept():
        for (network, pixels, batch), shapes in SHAPES.items():
            print(f"{network}, {pixels} px, batch {batch}: oneDNN's convolution / product, ms\n{'':22}", end="")
            print("".join(f"{name:>18}" for name in PASSES))
            for shape in shapes:
                row = measure(shape, batch, options.rounds)
                rows.append({"network": network, "pixels": pixels, "batch": batch, **shape._asdict(), **row})
                cells = (f"{row[name][0]:7.2f} / {row[name][1]:5.2f} {'*' if row[name][2] else ' '}" for name in PASSES)
                label = f"{shape.inside}@{shape.side} {shape.size}x{shape.size} {shape.outside} /{shape.stride}"
                print(f"{label:22}" + "".join(f"{cell:>18}" for cell in cells), flush=True)
    if options.out:
        found = {"machine": machine(), "versions": versions(), "rounds": options.rounds, "rows": rows}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def measure(shape: Shape, batch: int, rounds: int) -> dict[str, tuple[float, float, bool]]:
    """Of each pass: medians of oneDNN's way and of the product, and whether the product takes it as it is used."""
    usual = convolution._by_product
    calls = passes(shape, batch)
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in PASSES}
    for number in range(rounds + 2):
        for product in (False, True):
            convolution._by_product = lambda *_, product=product: product
            for name, call in calls.items():
                value = milliseconds(call)
                if number > 1:
                    found[name][product].append(value)
    convolution._by_product = usual
    count = batch * ((shape.side - 1) // shape.stride + 1) ** 2
    taken = {
        "forward": usual(count, shape.outside, shape.size, convolution.PIXELS_A_CHANNEL),
        "images": usual(count, shape.inside, shape.size, convolution.PIXELS_A_CHANNEL)
        and 1 in (shape.size, shape.stride),
        "weights": usual(count, shape.outside, shape.size, convolution.PIXELS_A_CHANNEL_FOR_WEIGHTS),
    }
    return {
        name: (statistics.median(own), statistics.median(product), taken[name])
        for name, (own, product) in found.items()
    }


if __name__ == "__main__":
    main()
