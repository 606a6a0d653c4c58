"""Small architectures of several designs the whole way: exported, in every runtime, quantised, and evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from samdeploy.backends import open_session
from samdeploy.backends.difference import difference_shares, image_ranges
from samdeploy.backends.onnxruntime.session import emulate
from samdeploy.bundle import open_bundle
from samdeploy.bundle.names import WEIGHTS_FILE
from samdeploy.bundle.spec import Preprocessing
from samdeploy.evaluate.evaluate import evaluate_bundle
from samdeploy.evaluate.options import EvalOptions
from samdeploy.export import ExportOptions, ExportResult, export_run
from samdeploy.export.int8.search import quantize_graph
from samdeploy.models import build_model, save_weights
from samdeploy.models.graph import Normalize
from samdeploy.runs.record import RunRecord, write_run

pytestmark = pytest.mark.slow

CLASSES = ("ant", "bee", "cat")
# Architecture -> pixels, and why it has no maps.
ARCHITECTURES = {
    "timm:test_efficientnet": (96, ""),
    "timm:test_convnext": (96, "LayerNormalization (head.norm.layernormalization) is between the mean of the features"),
    "timm:test_vit": (160, "the head reads the class token, or another part of the features, by Gather"),
    "timm:test_maxvit": (160, ""),
    "torchvision:shufflenet_v2_x0_5": (96, ""),
}
# Of the logits' range: float32 in another order of sums; and 8 bits without any training.
FP32_RELATIVE, INT8_RELATIVE = 1e-5, 0.2

Made = tuple[str, ExportResult, str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of noise on colours."""
    root = tmp_path_factory.mktemp("data")
    draw = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for index in range(4):
                pixels = draw.integers(0, 256, (5, 5, 3), dtype=np.uint8)
                image = Image.fromarray(pixels).resize((170, 170), Image.Resampling.BICUBIC)
                image.save(root / split / name / f"{index}.png")
    return root


@pytest.fixture(scope="module", params=ARCHITECTURES)
def made(request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An architecture with random weights, its export, and what that printed."""
    arch = request.param
    if arch.startswith("timm:") and not timm.is_model(arch.removeprefix("timm:")):
        pytest.skip(f"timm {timm.__version__} has no {arch}")
    px, _ = ARCHITECTURES[arch]
    run = tmp_path_factory.mktemp("run")
    write_random_run(run, arch, Preprocessing(px, px), folder)
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: said.append(" ".join(map(str, words))))
        result = export_run(run, ExportOptions(engine="all"))
    return arch, result, "\n".join(said)


def write_random_run(run: Path, arch: str, preprocessing: Preprocessing, folder: Path) -> None:
    torch.manual_seed(0)
    model = build_model(arch, len(CLASSES))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        torch.nn.init.uniform_(norm.bias, -0.2, 0.2)
        norm.train().momentum = 1.0  # the statistics of the one batch below
    side = (preprocessing.width, preprocessing.height)
    images = np.stack([np.asarray(Image.open(path).resize(side)) for path in sorted(folder.rglob("0.png"))])
    with torch.no_grad():
        model(Normalize(preprocessing)(torch.from_numpy(images)))
    for norm in norms:
        assert norm.running_var is not None
        norm.running_var.clamp_(min=0.25)  # channels that hardly vary would magnify rounding errors
    save_weights(model.eval(), run / WEIGHTS_FILE)
    write_run(run, RunRecord(
        arch=arch, options={}, classes=CLASSES, preprocessing=preprocessing, dataset="folder", data_options={},
        data_root=str(folder), val_fraction=0.1, split_seed=0, counts={}, fingerprints={}, status="complete",
        best_epoch=1, best_val_top1=0.0, best_val_loss=0.0, test_top1=None, test_correct=None, test_images=None,
        provenance={},
    ))  # fmt: skip


def test_the_runtimes_answer_as_pytorch_does(made: Made) -> None:
    _, result, _ = made
    bundle = open_bundle(result.bundle)
    golden, logits = bundle.golden()
    assert result.headroom.fp16_share > 95 and bundle.find("graph", precision="fp16") is not None
    for backend in ("onnxruntime", "openvino"):
        with open_session(bundle, backend, precision="fp32") as session:
            for batch in (1, 2, 7):
                found = session.run(golden[:batch])
                shares = difference_shares(found, logits[:batch], image_ranges(logits)[:batch])
                assert shares.max() < FP32_RELATIVE, (backend, batch)


def test_tensorrt_builds_it_in_fp16(made: Made) -> None:
    pytest.importorskip("tensorrt_rtx")
    row = next(row for row in made[1].rows if row.engine == "trt")
    assert row.state == "built" and row.precision == "fp16" and row.bytes > 0, row.note


def test_int8_is_near(made: Made, folder: Path) -> None:
    bundle = open_bundle(made[1].bundle)
    golden, logits = bundle.golden()
    graph = bundle.find("graph", precision="fp32")
    assert graph is not None
    found = quantize_graph(bundle.read(graph), golden, golden, np.zeros(len(golden), np.int64), max_drop=100)
    shares = difference_shares(emulate(found.graph, golden), logits, image_ranges(logits))
    assert found.int8_share_of_multiply_adds > 90
    assert 1e-3 < shares.max() < INT8_RELATIVE


def test_maps_or_the_reason_for_none(made: Made) -> None:
    arch, result, said = made
    _, reason = ARCHITECTURES[arch]
    bundle = open_bundle(result.bundle)
    assert (bundle.find("cam_graph") is None) == bool(reason)
    assert f"no maps: {reason}" in said if reason else "no maps" not in said
    if not reason:
        golden, logits = bundle.golden()
        with open_session(bundle, "openvino", maps=True) as session:
            found, maps = session.run_with_maps(golden)
        assert maps.shape[1] == len(CLASSES) and maps.shape[2] > 1
        assert difference_shares(found, logits, image_ranges(logits)).max() < FP32_RELATIVE


@pytest.mark.parametrize("made", ["timm:test_vit"], indirect=True)
def test_a_network_without_maps_is_evaluated(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RUNS": 30, "LEAST_S": 0.0, "WARM_UP_LIMIT_S": 0.0}.items():
        monkeypatch.setattr(f"samdeploy.evaluate.latency.measure.{name}", value)
    report = evaluate_bundle(open_bundle(made[1].bundle), EvalOptions("openvino", "fp32", consistency_s=0.5))
    assert not report.faults and report.results[0].passed
