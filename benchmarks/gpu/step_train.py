"""Training throughput: forward, loss, backward and fused Adam, bf16 autocast, channels last, images on the device."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from child import emit, reason, run
from networks import Plan, coloured_images, fresh
from timing import Call, measure
from torch.nn import functional as F

from samdeploy.bundle.spec import Preprocessing
from samdeploy.models.graph import Normalize


def step(plan: Plan, work: Path, options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    for px in plan.sizes:
        rows, calls = {}, {}
        for name in ("sam", "resnet50"):
            row = {"kind": "training", "runtime": "eager bf16", "net": name, "px": px, "batch": plan.train_batch}
            try:
                calls[name] = _steps(plan, name, px)
                calls[name][0]()
                rows[name] = row
            except Exception as error:
                calls.pop(name, None)
                emit(**row, status=f"failed: {reason(error)}")
        for name, ms in measure(calls, 2 * plan.seconds, plan.device).items():
            emit(**rows[name], status="ok", ms=ms, images_per_s=round(1000 * plan.train_batch / ms["median"], 1))


def _steps(plan: Plan, name: str, px: int) -> list[Call]:
    net = fresh(plan, name).to(plan.device).to(memory_format=torch.channels_last).train()
    normalize = Normalize(Preprocessing(px, px)).to(plan.device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, fused=plan.device == "cuda")
    labels_of = torch.randint(plan.classes, (plan.buffers, plan.train_batch)).to(plan.device)
    batches = [
        (coloured_images(plan.train_batch, px, seed).to(plan.device), labels_of[seed]) for seed in range(plan.buffers)
    ]

    def learn(images: torch.Tensor, labels: torch.Tensor) -> None:
        with torch.autocast(plan.device, dtype=torch.bfloat16, enabled=plan.device == "cuda"):
            logits = net(normalize(images)).float()
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return [lambda x=x, y=y: learn(x, y) for x, y in batches]


if __name__ == "__main__":
    run(step)
