"""FP16 ONNX graphs, dynamic batch: samdeploy's own writer for the folded network, PyTorch's exporter for the others."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from child import emit, reason, run
from networks import GRAPH_NETS, Plan, TypedExported, coloured_images, load_nets, spec_of

from samdeploy.export.fp16.convert import fp16_graph
from samdeploy.graphs.edit import serialize
from samdeploy.models.sam_resnet.onnx import graph_from_model


def step(plan: Plan, work: Path, options: argparse.Namespace) -> None:
    nets = load_nets(plan, work, GRAPH_NETS)
    for px in plan.sizes:
        for name, net in nets.items():
            path = work / f"{name}-{px}.onnx"
            try:
                if name == "sam-folded":
                    graph = graph_from_model(net, spec_of(plan, px))
                    path.write_bytes(serialize(fp16_graph(graph) if plan.precision == "fp16" else graph))
                else:
                    _trace(TypedExported(net, plan, px).eval(), coloured_images(2, px, 0), path)
                emit(kind="graph", net=name, px=px, status="ok", bytes=path.stat().st_size)
            except Exception as error:
                path.unlink(missing_ok=True)
                emit(kind="graph", net=name, px=px, status=f"failed: {reason(error)}")


def _trace(net: torch.nn.Module, images: torch.Tensor, path: Path) -> None:
    part = path.with_suffix(".part")
    torch.onnx.export(
        net,
        (images,),
        part,
        dynamo=True,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": {0: torch.export.Dim("N", min=1, max=1024)}},
        external_data=False,
        opset_version=18,
        verbose=False,
    )
    part.rename(path)


if __name__ == "__main__":
    run(step)
