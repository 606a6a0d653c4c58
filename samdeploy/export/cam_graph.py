"""The graph of class activation maps: written beside the graph that classifies, after it was compared with PyTorch."""

from __future__ import annotations

import numpy as np
import torch

from samdeploy.arrays import Float32Array, Float64Array, UInt8Array
from samdeploy.backends.difference import difference_shares, picture_ranges
from samdeploy.backends.golden import GOLDEN_TOLERANCE
from samdeploy.backends.onnxruntime.session import emulate_all
from samdeploy.bundle.manifest import BundleFile
from samdeploy.bundle.spec import ModelSpec
from samdeploy.errors import ExportError
from samdeploy.export.check import BATCH_SIZES
from samdeploy.export.pack import BundleWriter
from samdeploy.models import FoldedResNet, SamResNet
from samdeploy.models.maps import ClassActivationMaps
from samdeploy.models.sam_resnet.onnx import cam_graph_from_model, serialize

CAM_GRAPH_FILE = "model.cam.fp32.onnx"


def add_cam_graph(
    writer: BundleWriter, net: FoldedResNet, model: SamResNet, spec: ModelSpec, golden: UInt8Array
) -> BundleFile:
    """Write the graph of class activation maps.

    Args:
        writer: gets the file; it holds the FP32 graph already.
        net: the folded network.
        model: the network as trained, in eval mode.
        spec: of the bundle.
        golden: uint8 [n, H, W, 3], the pictures to compare on.

    Raises:
        ExportError: the graph's answers are not the trained network's.
    """
    graph = serialize(cam_graph_from_model(net, spec))
    with torch.inference_mode():
        logits, maps = (tensor.numpy() for tensor in ClassActivationMaps(model, spec).eval()(torch.from_numpy(golden)))
    bundle = writer.bundle()
    fp32 = bundle.find("graph", precision="fp32")
    assert fp32 is not None  # add_graphs wrote it, or raised
    (main,) = emulate_all(bundle.read(fp32), golden)
    check_cam_graph(graph, golden, main, logits, maps, net.head.bias.numpy())
    return writer.add("cam_graph", CAM_GRAPH_FILE, graph, precision="fp32")


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
        images: uint8 [n, H, W, 3], real pictures.
        main_logits: float32 [n, K], of the graph that classifies.
        logits: float32 [n, K], of the network as trained.
        maps: float32 [n, K, h, w], of the network as trained.
        bias: float32 [K], of the folded head.

    Raises:
        ExportError: further off than FP32's tolerance, as a share of the range.
    """
    of_logits, of_maps = picture_ranges(logits), picture_ranges(maps)
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
