"""PyTorch eager in FP16, channels last: as it is ("eager") and captured in a CUDA graph ("eager-graph")."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from child import emit, reason, run
from networks import NETS, Plan, buffers_of, load_nets, logits_of, on_device
from timing import Call, agreement, measure


def step(plan: Plan, work: Path, options: argparse.Namespace) -> None:
    px = options.px
    nets = {name: on_device(net, plan, px) for name, net in load_nets(plan, work, NETS).items()}
    expected = logits_of(work, px)
    with torch.no_grad():
        for batch in plan.batches:
            buffers = buffers_of(plan, work, px, batch)
            for runtime, make in (("eager", _eager), ("eager-graph", _graphs)):
                if runtime == "eager-graph" and plan.device != "cuda":
                    continue
                _batch(runtime, make, nets, buffers, expected, plan, px)


def _batch(runtime, make, nets, buffers, expected, plan, px) -> None:  # type: ignore[no-untyped-def]
    calls, rows = {}, {}
    for name, net in nets.items():
        row = {"kind": "inference", "runtime": runtime, "net": name, "px": px, "batch": len(buffers[0])}
        try:
            calls[name] = make(net, buffers)
            rows[name] = {**row, **agreement(calls[name][0](), expected[name.removesuffix("-folded")])}
        except Exception as error:
            calls.pop(name, None)
            emit(**row, status=f"failed: {reason(error)}")
    for name, ms in measure(calls, plan.seconds, plan.device).items():
        emit(**rows[name], status="ok", ms=ms)


def _eager(net: torch.nn.Module, buffers: list[torch.Tensor]) -> list[Call]:
    return [lambda images=images: net(images) for images in buffers]


def _graphs(net: torch.nn.Module, buffers: list[torch.Tensor]) -> list[Call]:
    """A graph per input buffer: no copy of the input, as where an application captures its own buffers."""
    stream = torch.cuda.Stream()
    calls: list[Call] = []
    for images in buffers:
        with torch.cuda.stream(stream):
            for _ in range(3):
                net(images)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            logits = net(images)

        def call(graph: torch.cuda.CUDAGraph = graph, logits: torch.Tensor = logits) -> torch.Tensor:
            graph.replay()
            return logits

        calls.append(call)
    return calls


if __name__ == "__main__":
    run(step)
