"""What is measured: a bundle with random weights, and JPEG files; neither speed nor memory depends on the weights.

python benchmarks/embedding/material.py BUNDLE [--arch sam-resnet50] [--px 192]      with FP32 and INT8 graphs
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 100


def make_bundle(root: Path, arch: str, px: int, *, int8: bool = False) -> Path:
    """A bundle with the FP32 graph of `arch` at px x px pixels, an INT8 one where wanted, and eight golden images."""
    import torch

    from samdeploy.bundle.manifest import DataRecord
    from samdeploy.bundle.spec import Preprocessing, model_spec
    from samdeploy.export.pack import BundleWriter
    from samdeploy.graphs.edit import serialize
    from samdeploy.models import Exported, build_model
    from samdeploy.models.sam_resnet.fold import fold
    from samdeploy.models.sam_resnet.onnx import graph_from_model

    torch.manual_seed(0)
    spec = model_spec(arch, {"gate": "identity"}, tuple(f"class {i}" for i in range(CLASSES)), Preprocessing(px, px))
    model = build_model(arch, CLASSES, spec.options)
    images = np.random.default_rng(0).integers(0, 256, (16, px, px, 3), dtype=np.uint8)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # the statistics of the one batch below
    with torch.no_grad():
        Exported(model.train(), spec)(torch.from_numpy(images))
        logits = Exported(model.eval(), spec)(torch.from_numpy(images[:8])).numpy()
    root.mkdir(parents=True)
    writer = BundleWriter(root, spec, DataRecord("random", {}, 0.1, 0, {}, {}), {"made_by": "benchmarks/embedding"})
    writer.add_array("golden_images", "golden/images.npy", images[:8])
    writer.add_array("golden_logits", "golden/logits.npy", logits)
    graph = serialize(graph_from_model(fold(model), spec))
    writer.add("graph", "model.fp32.onnx", graph, precision="fp32")
    if int8:
        from samdeploy.export.int8.qdq import calibrate, quantize

        writer.add("graph", "model.int8.onnx", quantize(calibrate(graph, images), "cpu"), precision="int8")
    writer.write_manifest()
    return root


def make_tiny_bundle(root: Path, px: int = 32, classes: int = 10) -> Path:
    """A bundle whose network is one convolution, a mean and a linear layer: for tools that slow a program down."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    from samdeploy.bundle.manifest import DataRecord
    from samdeploy.bundle.spec import Preprocessing, model_spec
    from samdeploy.export.pack import BundleWriter

    generator = np.random.default_rng(0)
    weights = {"w": generator.normal(0, 0.1, (16, 3, 3, 3)), "m": generator.normal(0, 1, (16, classes))}
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "w"], ["conv"], strides=[2, 2]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "m"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", px, px, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    images = generator.integers(0, 256, (4, px, px, 3), dtype=np.uint8)
    logits = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]
    spec = model_spec("sam-resnet18", {"gate": "none"}, tuple(map(str, range(classes))), Preprocessing(px, px))
    root.mkdir(parents=True)
    writer = BundleWriter(root, spec, DataRecord("random", {}, 0.1, 0, {}, {}), {"made_by": "benchmarks/embedding"})
    writer.add_array("golden_images", "golden/images.npy", images)
    writer.add_array("golden_logits", "golden/logits.npy", logits)
    writer.add("graph", "model.fp32.onnx", model, precision="fp32")
    writer.write_manifest()
    return root


def make_images(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """JPEG files of quality 90, 4:2:0: smooth shapes under fine grain, which compress about as photographs do."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(1)
    paths = []
    for number in range(count):
        shapes = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        image = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
        grain = generator.normal(0, 6, (height, width, 1)).astype(np.float32)
        paths.append(folder / f"{number:04d}.jpg")
        Image.fromarray(np.clip(image + grain, 0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--arch", default="sam-resnet50")
    parser.add_argument("--px", type=int, default=192)
    options = parser.parse_args()
    make_bundle(options.bundle, options.arch, options.px, int8=True)
