"""Images that are prepared in another way, on a network that knows colours: found by the fingerprint of the test set.

Blue for red is found by the golden images; another fit, size or kind of resize shows in the bytes alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samdeploy.backends import open_session
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.errors import BundleError
from samdeploy.evaluate import EvalOptions, evaluate_bundle
from tests.evaluate import faults
from tests.evaluate.planted import Seal

COLOURS = {"blue": (40, 90, 200), "green": (60, 180, 80), "red": (200, 90, 40)}


@pytest.fixture(scope="module")
def coloured_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wide images of 64x40 with a stripe, in three colours that differ in little but the order of their channels."""
    root = tmp_path_factory.mktemp("coloured")
    random = np.random.default_rng(3)
    for split, count in (("train", 32), ("val", 8), ("test", 12)):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.array(colour) + random.normal(0, 25, (40, 64, 3))
                left = int(random.integers(0, 56))
                pixels[:, left : left + 8] += random.normal(0, 60)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def coloured_root(coloured_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a network that knows the three colours.  Do not write into it."""
    from samdeploy.export import ExportOptions, export_run
    from samdeploy.train.loop.train import train
    from samdeploy.train.recipe.load import load_recipe

    settings = [
        *(f"data.root={coloured_images}", "model.arch=sam-resnet18", "model.pretrained=false", "model.gate=identity"),
        *("image.height=32", "image.width=32", "training.epochs=3", "training.batch_size=16", "training.device=cpu"),
        *("training.learning_rate=5e-4", "training.patience=0"),
    ]
    run = train(load_recipe("folder", settings), runs_root=tmp_path_factory.mktemp("runs"))
    export_run(run, ExportOptions(engine="onnxruntime"))
    return run


@pytest.fixture
def coloured(coloured_root: Path, tmp_path: Path) -> Path:
    """The folder of a copy of the coloured bundle, beside a copy of its run record."""
    shutil.copytree(coloured_root, tmp_path / "run")
    return tmp_path / "run" / "bundle"


def evaluate_coloured(bundle: Bundle):  # type: ignore[no-untyped-def]
    return evaluate_bundle(bundle, EvalOptions(backend="onnxruntime", device="cpu"))


@pytest.mark.usefixtures("short_latency")
def test_blue_for_red(coloured: Path, seal: Seal) -> None:
    honest = evaluate_coloured(open_bundle(coloured))
    assert honest.passed and honest.test_set == "as at training"
    assert honest.results[0].comparison is not None and honest.results[0].comparison.top1 > 90

    faults.edit_graph(coloured, faults.blue_first)
    with pytest.raises(BundleError, match="reads channels as BGR, not RGB"):
        open_session(seal(coloured), "onnxruntime", device="cpu")
    report = evaluate_coloured(seal(coloured))
    assert not report.passed
    assert report.results[0].comparison is not None
    assert report.results[0].comparison.top1 < 60  # blue and red are taken for each other, green stays


@pytest.mark.usefixtures("short_latency")
def test_images_cut_where_training_squeezed_them(coloured: Path, seal: Seal) -> None:
    """The manifest names another fit.  The engine is right and agrees with PyTorch: the images are other ones."""
    faults.set_preprocessing(coloured, fit="center_crop", resize_short=32)
    bundle = seal(coloured)
    open_session(bundle, "onnxruntime", device="cpu").close()  # the golden images are stored prepared
    report = evaluate_coloured(bundle)
    assert report.test_set == "differs from the one at training"


def nearest(image: Image.Image, height: int, width: int, _: str) -> Image.Image:
    return image.resize((width, height), Image.Resampling.NEAREST)


def without_antialiasing(image: Image.Image, height: int, width: int, _: str) -> Image.Image:
    """Bilinear between the four nearest pixels, as PyTorch and OpenCV do it unless told otherwise."""
    pixels = np.array(image)
    rows = (np.arange(height) + 0.5) * pixels.shape[0] / height - 0.5
    columns = (np.arange(width) + 0.5) * pixels.shape[1] / width - 0.5
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        row, column = row.clip(0, pixels.shape[0] - 1), column.clip(0, pixels.shape[1] - 1)
        return pixels[row][:, column].astype(np.float64)

    upper = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    return Image.fromarray((upper * (1 - down) + lower * down + 0.5).astype(np.uint8))


def horizontal_first(image: Image.Image, height: int, width: int, _: str) -> Image.Image:
    """Pillow's own order before version 13: single levels differ."""
    narrow = image.resize((width, image.height), Image.Resampling.BILINEAR)
    return narrow.resize((width, height), Image.Resampling.BILINEAR)


@pytest.mark.usefixtures("short_latency")
@pytest.mark.parametrize("wrong", [nearest, without_antialiasing, horizontal_first])
def test_images_resized_in_another_way(
    coloured_root: Path, wrong: Callable[..., Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samdeploy.images.resize.resize_exact", wrong)
    report = evaluate_coloured(open_bundle(coloured_root / "bundle"))
    assert report.test_set == "differs from the one at training"


def test_a_manifest_with_another_resize_or_size_is_refused(coloured: Path, seal: Seal) -> None:
    faults.set_preprocessing(coloured, resize="nearest")
    with pytest.raises(BundleError, match="resize 'nearest' found, one of bilinear-antialias"):
        seal(coloured)
    faults.set_preprocessing(coloured, resize="bilinear-antialias-vertical-first-q22", height=64)
    with pytest.raises(BundleError, match="the preprocessing and the 3 classes ask for"):
        seal(coloured)


def test_a_manifest_with_another_mean(coloured: Path, seal: Seal) -> None:
    """The mean is inside the graph; the manifest's is what PyTorch is rebuilt with, and its golden logits show it."""
    faults.set_preprocessing(coloured, mean=[0.485, 0.456, 0.485])
    bundle = seal(coloured)
    with pytest.raises(BundleError, match=r"pytorch engine .*not the model of this bundle"):
        open_session(bundle, "pytorch", device="cpu")
    report = evaluate_coloured(bundle)
    assert not report.passed
    assert any("preprocessing are not those that were trained" in fault for fault in report.faults)
