"""`sign`, and the commands and the Classifier that ask for a signature."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("OpenSSL", reason="pip install 'samdeploy[sign]'")
pytest.importorskip("model_signing", reason="pip install 'samdeploy[sign]'")
pytest.importorskip("onnxruntime", reason="pip install 'samdeploy[onnxruntime]'")

from samdeploy.bundle import Bundle
from samdeploy.classifier import Classifier
from samdeploy.errors import BundleError
from tests.bundle.test_signature import write_key
from tests.cli.typed import Inside
from tests.conftest import Command
from tests.serve.server import NEEDED, serving


@pytest.fixture
def signed(cam_bundle: Bundle, tmp_path: Path, inside: Inside) -> Path:
    """The folder of a bundle that the command has signed; mine.pub beside it is the key, other.pub another one."""
    private, _ = write_key(tmp_path, "mine")
    write_key(tmp_path, "other")
    root = tmp_path / "signed"
    shutil.copytree(cam_bundle.root, root)
    code, out, _ = inside("sign", root, "--key", private, cwd=tmp_path)
    assert (code, out) == (0, f"{root / 'model.sig'}\n")
    return root


def test_classifier_asks_for_the_signature(signed: Path, tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    with (
        Classifier.open(signed, "onnxruntime", device="cpu", trust=str(tmp_path / "mine.pub")) as trusted,
        Classifier.open(signed, "onnxruntime", device="cpu") as plain,
    ):
        assert trusted.predict(image) == plain.predict(image)
    with pytest.raises(BundleError, match="signed by another key"):
        Classifier.open(signed, "onnxruntime", trust=tmp_path / "other.pub")


def test_a_damaged_bundle_is_not_signed(cam_bundle: Bundle, tmp_path: Path, inside: Inside) -> None:
    private, _ = write_key(tmp_path, "mine")
    root = tmp_path / "damaged"
    shutil.copytree(cam_bundle.root, root)
    with (root / "weights.safetensors").open("r+b") as file:
        file.write(b"x")
    code, _, errors = inside("sign", root, "--key", private, cwd=tmp_path)
    assert code == 2 and "weights.safetensors" in errors
    assert not (root / "model.sig").exists()


def test_label_asks_for_the_signature(signed: Path, tmp_path: Path, inside: Inside) -> None:
    pytest.importorskip("pyarrow", reason="pip install 'samdeploy[label]'")
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    line = ("label", signed, tmp_path / "images", "--backend", "onnxruntime", "--device", "cpu")
    code, _, errors = inside(*line, "--out", tmp_path / "a", "--trust", tmp_path / "mine.pub", cwd=tmp_path)
    assert code == 0 and "1 labelled" in errors
    code, _, errors = inside(*line, "--out", tmp_path / "b", "--trust", tmp_path / "other.pub", cwd=tmp_path)
    assert code == 2 and "signed by another key" in errors
    assert not (tmp_path / "b").exists()


def test_serve_asks_for_the_signature(
    signed: Path, tmp_path: Path, environment: dict[str, str], command: Command
) -> None:
    for package in NEEDED:
        pytest.importorskip(package, reason="pip install 'samdeploy[serve]'")
    with serving(environment, "--trust", tmp_path / "mine.pub", f"maps={signed}") as served:
        assert served.ask("GET", "/v2/health/ready")[0] == 200
    (signed / "new.txt").write_text("")
    done = command("serve", "--port", "0", "--trust", tmp_path / "mine.pub", f"maps={signed}", cwd=tmp_path)
    assert done.returncode == 2 and "'new.txt' was added after the bundle was signed" in done.stderr
