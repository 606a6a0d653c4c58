"""`demo-bundle`: a bundle that answers, and images to ask it about; small, and with all that `eval` needs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="pip install 'samdeploy[train,export]'")
pytest.importorskip("onnxruntime", reason="pip install 'samdeploy[train,export]'")

from samdeploy.bundle import open_bundle
from samdeploy.cli import demo
from samdeploy.cli.demo import check_new_folder
from samdeploy.errors import InputError
from samdeploy.export.engines import ExportOptions, wants_fp16
from tests.cli.typed import Inside
from tests.narrow import SETTINGS
from tests.train.stopping import stopping


@pytest.mark.slow
@pytest.mark.usefixtures("short_latency", "narrow")
def test_the_demo_predicts_and_is_evaluated(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SETTINGS", (*demo.SETTINGS, *SETTINGS))
    code, out, errors = inside("demo-bundle", tmp_path / "demo", cwd=tmp_path)
    assert code == 0, errors
    bundle = open_bundle(Path(out.strip()))
    assert bundle.root == tmp_path / "demo" / "digits" / "bundle"
    # Each costs tens of megabytes: the network as trained, for `eval`, and the graphs of engine and maps.
    large = {file.path for file in bundle.files if file.bytes > 1 << 20}
    assert large == {"weights.safetensors", "model.fp32.onnx", "model.cam.fp32.onnx"}

    images = tmp_path / "demo" / "images"
    assert Counter(path.name[0] for path in images.iterdir()) == dict.fromkeys("0123456789", 2)
    code, out, _ = inside("predict", bundle.root, images, "--json", "--backend", "onnxruntime", cwd=tmp_path)
    answers = [json.loads(line) for line in out.splitlines()]
    right = [Path(answer["image"]).name[0] == answer["label"] for answer in answers]
    assert code == 0 and len(right) == 20 and sum(right) >= 18
    line = ("eval", bundle.root, "--backend", "onnxruntime", "--device", "cpu", "--consistency", "0")
    code, out, errors = inside(*line, cwd=tmp_path)
    assert code == 0, out + errors
    before = sorted((tmp_path / "demo").rglob("*"))
    code, _, errors = inside("demo-bundle", tmp_path / "demo", cwd=tmp_path)
    assert code == 2 and "is not empty; name a new folder" in errors
    assert sorted((tmp_path / "demo").rglob("*")) == before


def test_only_a_new_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name, said in (("file", "is a file"), (".", "is not empty"), ("none/demo", "does not exist; make it first")):
        with pytest.raises(InputError, match=said):
            check_new_folder(tmp_path / name)
    (tmp_path / "empty").mkdir()
    check_new_folder(tmp_path / "empty")
    check_new_folder(tmp_path / "new")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"link: cannot be made \(File exists\); name another folder"):
        demo.make_demo(tmp_path / "link")


@pytest.mark.parametrize("place", ["new", "empty", "link"])
def test_what_an_unfinished_demo_made_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    folder = tmp_path / place

    def stopped(_: Path) -> None:
        for name in ("digits-20261130", "images", *made):
            (folder / name).mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_filled", stopped)
    for made in ((), ("others",)):
        with pytest.raises(KeyboardInterrupt):
            demo.make_demo(folder)
        assert "what was made there is removed" in capsys.readouterr().err
        left = [path.name for path in folder.iterdir()] if folder.exists() else None
        assert left == (list(made) or (None if place == "new" else []))


@pytest.mark.parametrize("package", ["onnx", "tomlkit"])  # one that is imported at once, and one after the training
def test_a_missing_package_is_found_before_anything_is_made(
    tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(demo, "_filled", lambda folder: import_module(package))
    monkeypatch.setitem(sys.modules, package, None)  # Python's own way to say "not installed"
    code, _, errors = inside("demo-bundle", tmp_path / "demo", cwd=tmp_path)
    cure = f"the package {package!r} is not installed; pip install 'samdeploy[train,export]'"
    assert (code, errors) == (1, f"samdeploy: {cure}\n")
    assert not (tmp_path / "demo").exists()


def test_a_stopped_demo_promises_nothing(tmp_path: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SETTINGS", (*demo.SETTINGS, "image.height=16", "image.width=16"))
    with stopping(epoch=1, step=2):
        code, _, errors = inside("demo-bundle", tmp_path / "demo", cwd=tmp_path)
    assert (code, errors.splitlines()[-2]) == (143, "stopped by SIGTERM at epoch 1, step 2.")
    assert "resume" not in errors and not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("engine", "precision", "small", "wanted"),
    [
        ("all", None, False, True),
        ("onnxruntime", None, False, True),
        ("all", None, True, False),
        ("onnxruntime", None, True, False),
        ("trt", "int8", True, False),
        ("trt", None, True, True),
        ("trt-rtx", None, True, True),
        ("onnxruntime", "fp16", True, True),
    ],
)
def test_a_small_bundle_has_fp16_where_it_is_asked_for(
    engine: str, precision: str | None, small: bool, wanted: bool
) -> None:
    assert wants_fp16(ExportOptions(engine, precision, small=small)) is wanted
