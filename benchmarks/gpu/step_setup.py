"""Weights, images and float32 reference logits for the other steps."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from child import run
from networks import Plan, calibrate, coloured_images, fresh, load_nets, reference, spec_of


def step(plan: Plan, work: Path, options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    blobs = [coloured_images(32, max(plan.sizes), seed) for seed in (1, 2)]
    nets = {name: calibrate(fresh(plan, name), blobs, plan.device).cpu() for name in ("sam", "resnet50")}
    torch.save({name: net.state_dict() for name, net in nets.items()}, work / "weights.pt")
    nets = load_nets(plan, work, ("sam", "resnet50"))
    for px in plan.sizes:
        images = coloured_images(max(plan.batches), px, 100)
        logits = {name: reference(net, spec_of(plan, px), images, plan.device) for name, net in nets.items()}
        torch.save(images, work / f"images-{px}.pt")
        torch.save(logits, work / f"logits-{px}.pt")


if __name__ == "__main__":
    run(step)
