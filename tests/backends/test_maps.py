"""Class activation maps in every runtime: equal to PyTorch's, and refused where they are not the bundle's."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from samdeploy.backends import availability, open_session
from samdeploy.backends.device.cuda import cuda_devices
from samdeploy.backends.names import MAP_BACKENDS
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, BundleError, InputError
from samdeploy.files import write_atomic

# Of the maps' range; see GOLDEN_TOLERANCE for the same figure.
FP32 = 1e-4


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """uint8 [5, 96, 64, 3], in blocks of a colour"""
    blocks = np.random.default_rng(11).integers(0, 256, (5, 12, 8, 3), dtype=np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module")
def reference(cam_bundle: Bundle, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with open_session(cam_bundle, "pytorch", device="cpu", maps=True) as session:
        return session.run_with_maps(images)


@pytest.fixture(scope="module", params=["onnxruntime", "openvino", "pytorch"])
def session(request: pytest.FixtureRequest, cam_bundle: Bundle) -> Iterator[CheckedSession]:
    reason = availability(request.param)
    if reason:
        pytest.skip(reason)
    with open_session(cam_bundle, request.param, device="cpu", maps=True) as opened:
        yield opened


def test_maps_are_pytorchs(
    session: CheckedSession, images: np.ndarray, reference: tuple[np.ndarray, np.ndarray]
) -> None:
    assert (session.device, session.precision) == ("cpu", "fp32")
    for count in (1, 2, 5):
        logits, maps = session.run_with_maps(images[:count])
        assert logits.dtype == maps.dtype == np.float32
        assert (logits.shape, maps.shape) == ((count, 5), (count, 5, 3, 2))
        for found, expected in zip((logits, maps), reference, strict=True):
            np.testing.assert_allclose(found, expected[:count], rtol=0, atol=FP32 * np.ptp(expected))


@pytest.mark.gpu
@pytest.mark.skipif(not cuda_devices()[0], reason=f"no CUDA device: {cuda_devices()[1]}")
@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch"])
def test_maps_on_cuda_are_those_of_the_cpu(
    cam_bundle: Bundle, images: np.ndarray, reference: tuple[np.ndarray, np.ndarray], backend: str
) -> None:
    try:
        session = open_session(cam_bundle, backend, device="cuda", maps=True)
    except BackendUnavailable as error:
        pytest.skip(str(error))
    with session:
        assert session.device == "cuda"
        for found, expected in zip(session.run_with_maps(images), reference, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=FP32 * np.ptp(expected))


def test_the_mean_of_a_map_and_the_bias_are_the_logit(session: CheckedSession, images: np.ndarray) -> None:
    logits, maps = session.run_with_maps(images)
    bias = logits - maps.mean(axis=(2, 3))
    assert np.ptp(bias, axis=0).max() < FP32 * np.ptp(logits)
    assert np.ptp(maps, axis=(2, 3)).min() > 100 * FP32 * np.ptp(logits)  # and the maps are not flat


def test_answers_belong_to_the_caller_and_threads_may_share(session: CheckedSession, images: np.ndarray) -> None:
    alone = [session.run_with_maps(images[i : i + 1]) for i in range(5)]
    kept = [[array.copy() for array in answer] for answer in alone]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: session.run_with_maps(images[i % 5][None]), range(40)))
    for before, after in zip(alone, kept, strict=True):
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)
    for index, answer in enumerate(found):
        for a, b in zip(answer, kept[index % 5], strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=FP32 * np.ptp(b))


def test_wrong_batches(session: CheckedSession, images: np.ndarray) -> None:
    wrong = (images.astype(np.float32), images[0], images[:, :-1], images[:0])
    for batch in wrong:
        with pytest.raises(InputError, match=r"uint8 \[N, 96, 64, 3\] with N >= 1 is expected"):
            session.run_with_maps(batch)


def test_closed(cam_bundle: Bundle, images: np.ndarray) -> None:
    session = open_session(cam_bundle, "onnxruntime", device="cpu", maps=True)
    session.close()
    session.close()
    with pytest.raises(InputError, match="this onnxruntime session is closed"):
        session.run_with_maps(images)


@pytest.mark.parametrize(
    ("backend", "options", "error", "text"),
    [
        ("onnx", {}, InputError, "unknown backend 'onnx'; did you mean 'onnxruntime'"),
        ("onnxruntime", {"device": "gpu"}, InputError, "unknown device 'gpu'"),
        ("onnxruntime", {"precision": "half"}, InputError, "unknown precision 'half'"),
        ("onnxruntime", {"precision": "int8"}, InputError, "maps in fp32, not in 'int8'"),
        ("openvino", {"device": "cuda"}, InputError, "backend 'openvino' runs on cpu, not on 'cuda'"),
        ("tensorrt", {}, BackendUnavailable, "'tensorrt' computes no class activation maps"),
    ],
)
def test_what_cannot_be_had(
    cam_bundle: Bundle, backend: str, options: dict[str, str], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        open_session(cam_bundle, backend, maps=True, **options)


def test_run_gives_the_same_logits(session: CheckedSession, images: np.ndarray) -> None:
    np.testing.assert_array_equal(session.run(images), session.run_with_maps(images)[0])


def test_a_session_without_maps_says_how_to_get_them(cam_bundle: Bundle, images: np.ndarray) -> None:
    with (
        open_session(cam_bundle, "onnxruntime", device="cpu") as session,
        pytest.raises(InputError, match="has no class activation maps; open_session"),
    ):
        session.run_with_maps(images)


def test_openvino_in_bf16_where_the_processor_has_it(
    cam_bundle: Bundle, images: np.ndarray, reference: tuple[np.ndarray, np.ndarray]
) -> None:
    pytest.importorskip("openvino", reason="pip install 'samdeploy[openvino]'")
    try:
        session = open_session(cam_bundle, "openvino", device="cpu", precision="bf16", maps=True)
    except BackendUnavailable as error:
        assert "has no bf16 arithmetic that it uses" in str(error)
        pytest.skip(str(error))
    with session:
        _, maps = session.run_with_maps(images)
    error = np.abs(maps - reference[1]).max() / np.ptp(reference[1])
    assert 1e-4 < error < 1e-1  # rounded, and not by much


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_bundle_without_maps_says_how_to_get_them(cam_bundle: Bundle, backend: str) -> None:
    if availability(backend):
        pytest.skip(str(availability(backend)))
    files = tuple(file for file in cam_bundle.files if file.role != "cam_graph")
    without = dataclasses.replace(cam_bundle, files=files)
    text = "holds no graph of class activation maps .* without --no-cam: samdeploy export RUN; or use backend pytorch"
    with pytest.raises(BackendUnavailable, match=text):
        open_session(without, backend, device="cpu", maps=True)
    open_session(without, "pytorch", device="cpu", maps=True).close()


def _scale_maps(model: onnx.ModelProto) -> None:
    """Maps 2 % too large, with logits that are as they should be."""
    (conv,) = (node for node in model.graph.node if node.name == "cam")
    (mean,) = (node for node in model.graph.node if node.name == "cam.mean")
    conv.output[0] = mean.input[0] = "cam.hidden"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1.02), "factor"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["cam.hidden", "factor"], ["cam"]))


def _swap_classes(model: onnx.ModelProto) -> None:
    for weight in model.graph.initializer:
        if weight.name in ("head.weight", "head.bias"):
            array = onnx.numpy_helper.to_array(weight).copy()
            array[[0, 1]] = array[[1, 0]]
            weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))


def _no_maps(model: onnx.ModelProto) -> None:
    del model.graph.output[1]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_scale_maps, "class activation maps of the golden images do not add up to the logits: off by"),
        (_swap_classes, "the golden images give logits that differ by"),
        (_no_maps, r"logits float32 \[N, 5\] found, .* cam float32 \[N, 5, h, w\] expected by the manifest"),
    ],
)
def test_foreign_maps_are_refused(
    cam_bundle: Bundle,
    tmp_path: Path,
    seal: Callable[[Path], Bundle],
    backend: str,
    change: Callable[[onnx.ModelProto], None],
    text: str,
) -> None:
    if availability(backend):
        pytest.skip(str(availability(backend)))
    root = tmp_path / "bundle"
    shutil.copytree(cam_bundle.root, root)
    path = root / "model.cam.fp32.onnx"
    model = onnx.load(path)
    change(model)
    write_atomic(path, model.SerializeToString())
    with pytest.raises(BundleError, match=r"has .* bytes|SHA-256"):
        open_session(dataclasses.replace(cam_bundle, root=root), backend, device="cpu", maps=True)
    with pytest.raises(BundleError, match=text):
        open_session(seal(root), backend, device="cpu", maps=True)


def test_every_backend_named_exists() -> None:
    assert set(MAP_BACKENDS) == {"onnxruntime", "openvino", "pytorch"}
