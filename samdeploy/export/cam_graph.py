"""The graph of class activation maps: written beside the graph that classifies, after it was compared with PyTorch."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import torch

from samdeploy.arrays import Float32Array, Float64Array, UInt8Array
from samdeploy.backends.difference import difference_shares, image_ranges
from samdeploy.backends.golden import GOLDEN_TOLERANCE
from samdeploy.backends.onnxruntime.session import emulate_all
from samdeploy.bundle.spec import CAM
from samdeploy.errors import ExportError
from samdeploy.export.check import BATCH_SIZES
from samdeploy.export.network import Network
from samdeploy.export.pack import BundleWriter
from samdeploy.graphs.cam_head import NoMaps, find_head
from samdeploy.graphs.edit import checked, constants, copy_of, make_node, serialize, set_constant
from samdeploy.graphs.shapes import infer_tensors
from samdeploy.models.maps import ClassActivationMaps

CAM_GRAPH_FILE = "model.cam.fp32.onnx"


def cam_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """An FP32 graph with its class activation maps: outputs `logits` [N, K] and `cam` [N, K, h, w].

    ``CAM_k(h, w) = w_k . features(h, w)`` (Zhou et al. 2016, "Learning deep features for discriminative
    localization"), which is the head as a 1x1 convolution.  The mean and the linear head commute, so
    ``logits_k = mean(CAM_k) + b_k``, and that is how the graph forms its logits: an engine whose logits are right has
    maps that add up to them.

    Raises:
        NoMaps: the graph has no such head.
        ExportError: ONNX's own checker refuses the graph.
    """
    head = find_head(model)
    logits = model.graph.output[0]
    changed = copy_of(model)
    del changed.graph.node[:], changed.graph.value_info[:]
    changed.graph.node.extend(node for node in model.graph.node if node.name not in head.nodes)
    weight = constants(changed)[head.weight]
    matrix = onnx.numpy_helper.to_array(weight)
    kernel = np.ascontiguousarray((matrix.T if head.transposed else matrix)[:, :, None, None])
    set_constant(weight, kernel)
    flat = "cam.flat" if head.bias else logits.name
    features = head.features
    if head.channels_last:
        features = "cam.features"
        changed.graph.node.append(make_node("Transpose", features, [head.features], perm=[0, 3, 1, 2]))
    changed.graph.node.extend(
        [
            make_node("Conv", CAM, [features, head.weight], kernel_shape=[1, 1]),
            make_node("GlobalAveragePool", "cam.mean", [CAM]),
            make_node("Flatten", "cam.flat", ["cam.mean"], flat, axis=1),
        ]
    )
    if head.bias:
        changed.graph.node.append(make_node("Add", head.name, [flat, head.bias], logits.name))
    read = {name for node in changed.graph.node for name in node.input}
    for unread in [tensor for tensor in changed.graph.initializer if tensor.name not in read]:
        changed.graph.initializer.remove(unread)
    of_features = infer_tensors(model)[head.features].shape
    cells = of_features[1:3] if head.channels_last else of_features[2:]
    batch = logits.type.tensor_type.shape.dim[0].dim_param
    shape = [batch, kernel.shape[0], *cells]
    changed.graph.output.append(onnx.helper.make_tensor_value_info(CAM, onnx.TensorProto.FLOAT, shape))
    return checked(changed)


def add_cam_graph(writer: BundleWriter, network: Network, golden: UInt8Array) -> None:
    """Write the graph of class activation maps; a network that has none costs a printed line.

    Args:
        writer: gets the file; it holds the FP32 graph already.
        network: of the run.
        golden: uint8 [n, H, W, 3], the images to compare on.

    Raises:
        ExportError: the graph's answers are not the trained network's.
    """
    try:
        model = cam_graph(network.graph)
    except NoMaps as error:
        print(f"no maps: {error}", file=sys.stderr)
        return
    if network.family.features_and_head(network.trained, network.spec.preprocessing) is None:
        print(f"no maps: no module of {network.spec.arch} has the features whose mean the head reads", file=sys.stderr)
        return
    maps_of = ClassActivationMaps(network.trained, network.spec).eval()
    with torch.inference_mode():
        logits, maps = (tensor.numpy() for tensor in maps_of(torch.from_numpy(golden)))
    (main,) = emulate_all(serialize(network.graph), golden)
    bias = find_head(network.graph).bias
    added = onnx.numpy_helper.to_array(constants(network.graph)[bias]) if bias else np.zeros(1, np.float32)
    graph = serialize(model)
    check_cam_graph(graph, golden, main, logits, maps, added)
    writer.add("cam_graph", CAM_GRAPH_FILE, graph, precision="fp32")


def check_cam_graph(
    graph: bytes,
    images: UInt8Array,
    main_logits: Float32Array,
    logits: Float32Array,
    maps: Float32Array,
    bias: Float32Array,
) -> None:
    """Run `graph` in batches of `BATCH_SIZES`: its logits, its maps, and that the maps add up to the logits.

    Args:
        graph: an ONNX file with outputs `logits` and `cam`.
        images: uint8 [n, H, W, 3], real images.
        main_logits: float32 [n, K], of the graph that classifies.
        logits: float32 [n, K], of the network as trained.
        maps: float32 [n, K, h, w], of the network as trained.
        bias: float32 [K], of the head.

    Raises:
        ExportError: further off than FP32's tolerance, as a share of the range.
    """
    of_logits, of_maps = image_ranges(logits), image_ranges(maps)
    for batch in BATCH_SIZES:
        rows = np.arange(batch) % len(images)
        found_logits, found_maps = emulate_all(graph, images[rows])
        where = f"graph of class activation maps, batch {batch}"
        _check(f"{where}: logits", found_logits, main_logits[rows], of_logits[rows], "the FP32 graph's")
        _check(f"{where}: logits", found_logits, logits[rows], of_logits[rows], "PyTorch's")
        _check(f"{where}: maps", found_maps, maps[rows], of_maps[rows], "PyTorch's")
        total = found_maps.mean(axis=(2, 3), dtype=np.float64) + bias
        _check(f"{where}: mean of the maps plus bias", total, found_logits, of_logits[rows], "the logits")


def _check(what: str, found: Float32Array, expected: Float32Array, ranges: Float64Array, whose: str) -> None:
    if found.shape != expected.shape:
        raise ExportError(f"{what}: {list(found.shape)} found, {list(expected.shape)} expected")
    error = float(difference_shares(found, expected, ranges).max())
    if not error <= GOLDEN_TOLERANCE["fp32"]:  # so that NaN fails
        raise ExportError(
            f"{what}: differ from {whose} by {error:.2e} of their range, at most {GOLDEN_TOLERANCE['fp32']:.0e} is "
            "allowed; export with --no-cam to do without maps"
        )
