"""The engine answers alike in C++ and in Python, bit for bit, and whatever number of threads asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from samdeploy.backends import open_session
from samdeploy.bundle import Bundle
from samdeploy.bundle.names import WEIGHTS_FILE
from samdeploy.errors import BackendUnavailable
from samdeploy.export.fp16.convert import fp16_graph
from samdeploy.graphs.edit import serialize
from samdeploy.images.decode import prepare
from samdeploy.models import build_model, load_weights
from samdeploy.models.sam_resnet.fold import fold
from samdeploy.models.sam_resnet.onnx import graph_from_model
from samdeploy.ranking import softmax
from tests.cpp import corpus
from tests.cpp.build import SANITIZE, Build, call
from tests.cpp.conftest import Probe

UNAVAILABLE = 10


def images(bundle: Bundle) -> NDArray[np.uint8]:
    """The golden images and as many of noise."""
    golden, _ = bundle.golden()
    noise = np.random.default_rng(1).integers(0, 256, golden.shape, dtype=np.uint8)
    return np.concatenate([golden, noise])


@pytest.mark.parametrize("batch", [1, 7, 1000])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_logits_are_equal_bit_for_bit(
    precision: str, batch: int, probe: Probe, digits_bundle: Bundle, tmp_path: Path
) -> None:
    pixels = images(digits_bundle)
    try:
        session = open_session(digits_bundle, "openvino", precision=precision)
    except BackendUnavailable as error:
        status, _, text = probe("open", digits_bundle.root, precision).stdout.split("\n", 2)
        assert int(status) == UNAVAILABLE
        assert "and would compute in" in text
        pytest.skip(str(error))
    with session:
        expected = np.concatenate([session.run(pixels[at : at + batch]) for at in range(0, len(pixels), batch)])
    (tmp_path / "pixels.bin").write_bytes(pixels.tobytes())
    probe("run", digits_bundle.root, precision, 0, tmp_path / "pixels.bin", min(batch, len(pixels)), tmp_path / "out")
    found = np.frombuffer((tmp_path / "out").read_bytes(), np.float32).reshape(expected.shape)
    assert found.tobytes() == expected.tobytes()
    assert len(np.unique(found.argmax(axis=1))) > 2


def test_layers_that_fp16_cannot_hold_are_not_computed_in_it(
    probe: Probe, digits_run: Path, copy_of_bundle: Path, seal: Callable[[Path], Bundle]
) -> None:
    """OpenVINO's hint takes them all, and does not say so."""
    spec = seal(copy_of_bundle).spec
    model = build_model(spec.arch, len(spec.classes), spec.options)
    load_weights(model, digits_run / WEIGHTS_FILE)
    mixed = fp16_graph(graph_from_model(fold(model.eval()), spec), ["layer2.0"])
    (copy_of_bundle / "model.fp16.onnx").write_bytes(serialize(mixed))
    bundle = seal(copy_of_bundle)
    with pytest.raises(BackendUnavailable) as refused:
        open_session(bundle, "openvino", precision="fp16")
    status, _, text = probe("open", bundle.root, "fp16").stdout.split("\n", 2)
    assert int(status) == UNAVAILABLE
    if "would compute in" in str(refused.value):
        pytest.skip(str(refused.value))
    for said in (str(refused.value), text):
        assert "computes all layers in FP16, also those that FP16 cannot hold" in said
        assert "keeps in FP32 (layer2.0." in said


@pytest.mark.parametrize("requests", [1, 3])
def test_many_threads_share_one_classifier(requests: int, probe: Probe, digits_bundle: Bundle, tmp_path: Path) -> None:
    """Each thread's answers, and its own errors between them, are those of one thread alone."""
    (tmp_path / "pixels.bin").write_bytes(images(digits_bundle).tobytes())
    answers, different = probe("threads", digits_bundle.root, tmp_path / "pixels.bin", 6, requests, 25).stdout.split()
    assert (int(answers), int(different)) == (150, 0)


def test_wrong_arguments_are_refused_with_a_sentence(probe: Probe, digits_bundle: Bundle) -> None:
    assert probe("arguments", digits_bundle.root).stdout.splitlines() == [
        "1 open: bundle and classifier must not be NULL",
        "1 open: bundle and classifier must not be NULL",
        "1 options: a field is set that this library is too old for; install a newer one",
        "1 options: threads must be from 0 to 4096",
        "1 unknown precision 'fp12'. Valid: fp32, fp16, bf16, int8",
        "1 unknown backend 'abacus'. Valid: openvino, onnxruntime, tensorrt",
        "0 0",  # a struct from before `threads`, and one that is longer but says nothing new
        "1",
        "0 10 0",  # a description from before `temperature`: nothing is written behind it
    ]


@pytest.mark.skipif(bool(SANITIZE), reason="sanitizers replace malloc, and so does this test")
def test_jpeg_to_class_asks_for_no_memory_but_libjpeg_s_and_openvino_s_own(
    built: Build, digits_bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(corpus.jpeg(Image.fromarray(corpus.pixels(75, 101))))
    graph = digits_bundle.root / "model.fp32.onnx"
    lines = call(built.folder / "samdeploy-allocations", digits_bundle.root, graph, tmp_path / "a.jpg").splitlines()
    fewest = {name: int(count) for name, count, _ in (line.split() for line in lines)}
    assert fewest["three"] == 3
    assert fewest["rank"] == fewest["prepare_rgb"] == 0
    assert fewest["prepare_memory"] == fewest["prepare_file"] == fewest["libjpeg"] > 0
    assert fewest["samdeploy"] == fewest["openvino"] > 0


def test_three_ways_to_hand_over_an_image(probe: Probe, digits_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(corpus.jpeg(Image.fromarray(corpus.pixels(75, 101))))
    probe("prepare", digits_bundle.root, tmp_path / "a.jpg", tmp_path / "out")
    expected = prepare(tmp_path / "a.jpg", digits_bundle.spec.preprocessing).tobytes()
    assert (tmp_path / "out").read_bytes() == 3 * expected


def test_rank(probe: Probe, digits_bundle: Bundle) -> None:
    lines = probe("rank", digits_bundle.root).stdout.splitlines()
    rows, counts, not_finite = lines[:10], lines[10], lines[11:]
    logits = np.array([1, 3, -2, 3, 0.5, 1, 3, -90, 1, 2], np.float32)
    order = np.argsort(-logits, kind="stable")
    assert digits_bundle.temperature != 1
    assert [int(row.split()[0]) for row in rows] == order.tolist()
    assert [float(row.split()[1]) for row in rows] == softmax(logits, digits_bundle.temperature)[order].tolist()
    assert counts == "1 1"
    text = "1 of 10 logits are not finite numbers: the image drives the network out of the range of fp32"
    assert not_finite == [f"17 {text}; the network has no answer to it"] * 9
