"""`samdeploy explain` on real files: what is written, where the map lies, and what is said about broken images."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

pytest.importorskip("matplotlib", reason="pip install 'samdeploy[plots]'")

from samdeploy.backends import open_session
from samdeploy.bundle import Bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.errors import BackendUnavailable, BundleError, ImageError, InputError
from samdeploy.explain import ExplainOptions, explain_gates, explain_paths
from samdeploy.explain import sources as sources_file
from samdeploy.explain.gates import find_gates, gates_table
from samdeploy.explain.module_gates import ModuleGates, measure_gates
from samdeploy.images.decode import prepare
from tests.cli.typed import Inside

# As file names, in the order of the classes.
LABELS = ("T-shirt_top", "t-shirt_top-2", "class2", "Größe", "e")


def blocks(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 [height, width, 3] in sixteen by sixteen coloured blocks"""
    few = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return np.array(Image.fromarray(few).resize((width, height), Image.Resampling.NEAREST))


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A folder with images of several shapes, two of one name, a turned one, and two that are none."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(blocks(300, 500, 0)).save(folder / "wide.png")
    Image.fromarray(blocks(700, 260, 1)).save(folder / "wide.jpg")
    turned = Image.Exif()
    turned[274] = 6  # orientation: to be shown turned by 90 degrees
    Image.fromarray(blocks(400, 600, 2)).save(folder / "sub" / "turned.jpg", exif=turned)
    Image.fromarray(blocks(8, 10, 3)).save(folder / "tiny.png")
    Image.fromarray(blocks(2600, 1300, 4)).save(folder / "large.png")
    (folder / "cut.png").write_bytes((folder / "wide.png").read_bytes()[:500])
    (folder / "text.jpg").write_text("no image")
    return folder


def options(tmp_path: Path, **changes: object) -> ExplainOptions:
    usual = ExplainOptions(runs_root=tmp_path / "runs", out=tmp_path / "out", backend="onnxruntime", device="cpu")
    return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]


def written(out: Path) -> dict[str, tuple[int, int]]:
    """File name -> (width, height) of every image in a folder; nothing else lies there."""
    return {path.name: Image.open(path).size for path in sorted(out.iterdir())}


def test_a_folder(cam_bundle: Bundle, examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not explain_paths([cam_bundle.root, examples], options(tmp_path))  # two are broken
    output, errors = capsys.readouterr()
    files = written(tmp_path / "out")
    sheet = files.pop("contact-sheet.png")
    assert min(sheet) > 400
    sizes = {
        "wide": (260, 700),
        "wide-2": (500, 300),
        "sub_turned": (400, 600),
        "tiny": (260, 208),
        "large": (640, 1280),
    }
    assert len(files) == 3 * 5
    for name, size in files.items():
        stem, label, ending = name.split(".")
        assert size == sizes[stem]
        assert label in LABELS
        assert ending == "png"
    lines = output.splitlines()
    assert len(lines) == 5 + 2 + 1
    assert lines[0].startswith(f"{examples}/large.png: ")
    assert lines[0].endswith(f" % -> {tmp_path / 'out' / 'large'}.*.png")
    assert lines[5] == f"15 maps in {tmp_path / 'out'}, all at a glance: {tmp_path / 'out' / 'contact-sheet.png'}"
    assert lines[6] == "red raises the class's logit, blue lowers it; maps of one image share a scale"
    assert lines[7] == "at 96x64 pixels a map has 3x2 cells"
    said = errors.splitlines()
    assert said[0] == f"{cam_bundle.root}: onnxruntime, fp32, cpu"
    assert said[1].startswith(f"samdeploy: {examples}/cut.png: damaged or truncated")
    assert said[2].startswith(f"samdeploy: {examples}/text.jpg: not an image")
    assert said[3:] == ["samdeploy: 2 of 7 images could not be read"]


def redness(path: Path) -> np.ndarray:
    """From -1, the strongest blue, to 1, the strongest red; grey has no part in it."""
    pixels = np.asarray(Image.open(path)).astype(float)
    red = pixels[:, :, 0] - pixels[:, :, 2]
    return red / np.where(red < 0, 134, 141) / 0.8  # the ends of the colours, which cover 80 % of the image


def test_red_lies_where_the_map_is_high(cam_bundle: Bundle, examples: Path, tmp_path: Path) -> None:
    """On a turned photograph: cells of the network's input, turned back to where a viewer sees them."""
    image = examples / "sub" / "turned.jpg"
    assert explain_paths([cam_bundle.root, image], options(tmp_path, top=1))
    with open_session(cam_bundle, "onnxruntime", device="cpu", maps=True) as session:
        logits, maps = session.run_with_maps(prepare(image, cam_bundle.spec.preprocessing)[None])
    cam = maps[0, logits[0].argmax()]
    (path,) = (tmp_path / "out").glob("turned.*.png")
    red = redness(path)
    assert red.shape == (600, 400)
    # Centres of cells lie at 15.5 + 32 i of 96x64, and an image of 600x400 is 6.25 times as large.
    at = red[np.ix_([100, 300, 500], [100, 300])]
    assert np.ptp(cam) > 0.3 * np.abs(cam).max()
    assert np.corrcoef(at.ravel(), cam.ravel())[0, 1] > 0.9
    assert at.ravel().argsort().tolist() == cam.ravel().argsort().tolist()


def test_maps_of_one_image_share_a_scale(cam_bundle: Bundle, tmp_path: Path) -> None:
    """The largest value of all its maps, whichever class has it, gets the strongest colour."""
    assert explain_paths([cam_bundle.root], options(tmp_path, top=5))
    with open_session(cam_bundle, "onnxruntime", device="cpu", maps=True) as session:
        logits, maps = session.run_with_maps(cam_bundle.golden()[0])
    largest = np.abs(maps).max(axis=(2, 3))
    # Else this could not tell the scale of the most probable class from the image's.
    assert (largest.argmax(axis=1) != logits.argmax(axis=1)).any()
    for index, row in enumerate(largest):
        files = [tmp_path / "out" / f"golden-{index}.{name}.png" for name in LABELS]
        found = [np.abs(redness(file)).max() for file in files]
        assert np.corrcoef(found, row)[0, 1] > 0.8
        assert found[int(row.argmax())] == max(found) == pytest.approx(1, abs=0.03)
        text = Image.open(files[0]).text["Description"]  # type: ignore[attr-defined]
        assert f"full colour is +-{row.max():.4g}, for every map of this image" in text
        assert "Red raises the class's logit" in text


def test_a_crop_is_mapped_back(
    cam_bundle: Bundle, examples: Path, tmp_path: Path, seal: Callable[[Path], Bundle]
) -> None:
    root = tmp_path / "cropped"
    shutil.copytree(cam_bundle.root, root)
    manifest = json.loads((root / MANIFEST).read_text())
    manifest["preprocessing"].update(fit="center_crop", resize_short=96)
    (root / MANIFEST).write_text(json.dumps(manifest))
    seal(root)
    assert explain_paths([root, examples / "wide.png"], options(tmp_path, top=1))
    (path,) = (tmp_path / "out").glob("wide.*.png")
    pixels = np.asarray(Image.open(path)).astype(int)
    assert pixels.shape == (300, 500, 3)
    # 300x500 is brought to 96x160, of which columns 48 to 112 are cut: 150 to 350 of the image, at full height.
    grey = (np.ptp(pixels, axis=2) == 0).all(axis=0)
    assert grey[:149].all() and grey[351:].all()
    assert pixels[:, :149].min() > 175  # washed out
    assert not grey[155:345].all()


def test_the_newest_bundle_and_its_golden_images(
    cam_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(cam_bundle.root, tmp_path / "runs" / "one" / "bundle")
    monkeypatch.chdir(tmp_path)
    assert explain_paths([], options(tmp_path, out=None, top=99, backend="auto"))
    output, errors = capsys.readouterr()
    assert errors.splitlines()[-1] == f"{tmp_path / 'runs' / 'one' / 'bundle'}: onnxruntime, fp32, cpu"
    assert output.startswith("golden image 0: ")
    files = written(tmp_path / "explain" / "one")
    assert len(files) == 8 * 5 + 1  # every class, no more
    assert files["golden-7.e.png"] == (192, 288)


def test_what_was_written_is_not_explained_again(cam_bundle: Bundle, examples: Path, tmp_path: Path) -> None:
    inside = options(tmp_path, out=examples / "explained", top=1)
    explain_paths([cam_bundle.root, examples], inside)
    first = written(examples / "explained")
    explain_paths([cam_bundle.root, examples], inside)
    assert written(examples / "explained") == first
    with pytest.raises(InputError, match=r"is the folder of the images themselves; name another"):
        explain_paths([cam_bundle.root, examples], options(tmp_path, out=examples))


def test_many_images_make_several_sheets(
    cam_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(33):
        Image.fromarray(blocks(16, 16, index)).save(folder / f"{index:02}.png")
    assert explain_paths([cam_bundle.root, folder], options(tmp_path, top=1))
    files = written(tmp_path / "out")
    assert len(files) == 33 + 2
    assert files["contact-sheet.png"][1] > 5 * files["contact-sheet-2.png"][1]
    assert "contact-sheet.png (and 1 more)" in capsys.readouterr().out


def test_a_bundle_without_maps(
    cam_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], seal: Callable[[Path], Bundle]
) -> None:
    root = tmp_path / "without"
    shutil.copytree(cam_bundle.root, root)
    manifest = json.loads((root / MANIFEST).read_text())
    manifest["files"] = [file for file in manifest["files"] if file["role"] != "cam_graph"]
    (root / MANIFEST).write_text(json.dumps(manifest))
    (root / "model.cam.fp32.onnx").unlink()
    seal(root).verify()
    with pytest.raises(BackendUnavailable, match="make the bundle again without --no-cam: samdeploy export RUN"):
        explain_paths([root], options(tmp_path))
    assert not (tmp_path / "out").exists()
    assert explain_paths([root], options(tmp_path, backend="auto", top=1))  # PyTorch needs no graph
    assert capsys.readouterr().err.splitlines()[-1] == f"{root}: pytorch, fp32, cpu"


def test_unusable_places(cam_bundle: Bundle, examples: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--out: .* is a file; name a folder"):
        explain_paths([cam_bundle.root, examples], options(tmp_path, out=examples / "wide.png"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no images in this folder"):
        explain_paths([cam_bundle.root, tmp_path / "empty"], options(tmp_path))
    with pytest.raises(InputError, match="no bundle below"):
        explain_paths([examples], options(tmp_path))


def test_only_broken_images(cam_bundle: Bundle, examples: Path, tmp_path: Path) -> None:
    """No image could be drawn: not even the folder is made."""
    with pytest.raises(ImageError, match=r"^2 of 2 images could not be read$"):
        explain_paths([cam_bundle.root, examples / "text.jpg", tmp_path / "none.png"], options(tmp_path))
    with pytest.raises(ImageError, match=r"^1 of 1 images could not be read$"):
        explain_gates([cam_bundle.root, examples / "text.jpg"], options(tmp_path))
    assert not (tmp_path / "out").exists()


def test_a_image_too_thin_to_be_resized_is_broken_too(
    cam_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("samdeploy.images.resize.MOST_PIXELS_BETWEEN_PASSES", 96 * 3000)
    Image.new("RGB", (4000, 1)).save(tmp_path / "thin.png")
    Image.new("RGB", (2900, 1), "red").save(tmp_path / "fits.png")
    assert not explain_paths([cam_bundle.root, tmp_path / "thin.png", tmp_path / "fits.png"], options(tmp_path, top=1))
    assert f"samdeploy: {tmp_path / 'thin.png'}: 4000x1 pixels" in capsys.readouterr().err
    (path,) = (tmp_path / "out").glob("fits.*.png")
    assert Image.open(path).size == (sources_file.MAX_SIDE, 1)


def test_a_image_without_a_finite_answer_has_no_map(
    digits_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """See tests/classifier/test_no_answer.py."""
    Image.new("RGB", (40, 25), "red").save(tmp_path / "red.png")
    Image.new("RGB", (40, 25)).save(tmp_path / "black.png")
    examples = [tmp_path / "red.png", tmp_path / "black.png"]
    assert not explain_paths([digits_bundle.root, *examples], options(tmp_path, top=1))
    assert f"samdeploy: {tmp_path / 'red.png'}: 10 of 10 logits are not finite" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("red.*"))
    assert len(list((tmp_path / "out").glob("black.*.png"))) == 1


def test_gates_are_the_trained_networks(cam_bundle: Bundle) -> None:
    import torch

    from samdeploy.models import Exported, build_model
    from samdeploy.models.sam_resnet.attention import StreamlinedAttention
    from samdeploy.models.weights import load_state, state_dict_from_bytes

    spec = cam_bundle.spec
    images = cam_bundle.golden()[0]
    weights, graph = cam_bundle.find("weights"), cam_bundle.find("graph", precision="fp32")
    assert weights is not None and graph is not None
    net = build_model(spec.arch, len(spec.classes), spec.options)
    load_state(net, state_dict_from_bytes(cam_bundle.read(weights)), "weights")
    seen: dict[str, np.ndarray] = {}
    for name, module in net.named_modules():
        if isinstance(module, StreamlinedAttention):

            def keep(module, arguments, output, name=name) -> None:
                (x,) = arguments
                seen[name.removesuffix(".sl")] = (1 + module.fc(x.mean(dim=(2, 3)))).numpy()

            module.register_forward_hook(keep)
    with torch.inference_mode():
        Exported(net.eval(), spec)(torch.from_numpy(images))
    model = onnx.load_from_string(cam_bundle.read(graph))
    network = find_gates(cam_bundle, model)
    assert (network.kind, network.formula, network.neutral) == ("identity", "1 + W·GAP(x)", 1.0)
    gates = measure_gates(model, network.tensors, images)
    assert [module.name for module in gates] == list(seen)
    assert len(gates) == 8
    for module in gates:
        expected = seen[module.name]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(module.mean, expected.mean(axis=0), rtol=0, atol=1e-4 * scale)
        np.testing.assert_allclose(module.spread, expected.std(axis=0), rtol=0, atol=1e-4 * scale)
        assert module.opened(1) == pytest.approx(100 * (expected.mean(axis=0) > 1).mean(), abs=1)
        assert module.turned == pytest.approx(100 * (expected.mean(axis=0) < 0).mean(), abs=1)
    assert max(module.spread.max() for module in gates) > 0.01
    assert max(len(line) for neutral in (1.0, 0.0) for line in gates_table(gates, neutral).splitlines()) <= 80


@pytest.mark.parametrize(
    ("arch", "options", "name"),
    [
        ("sam-resnet18", {"gate": "none"}, r"sam-resnet18 \(gate none\)"),
        ("torchvision:resnet18", {}, "torchvision:resnet18"),
    ],
)
def test_a_network_without_gates(cam_bundle: Bundle, arch: str, options: dict[str, str], name: str) -> None:
    bundle = dataclasses.replace(cam_bundle, spec=dataclasses.replace(cam_bundle.spec, arch=arch, options=options))
    with pytest.raises(BundleError, match=f"^explain --gates: {name} has no channel gates to show$"):
        find_gates(bundle, onnx.ModelProto())


def test_which_channels_are_opened_shut_and_turned() -> None:
    mean = np.array([2, -2, 0.14, -0.01, 0.5, 1.5, 3, 0.3], np.float32)  # its root mean square is 1.56
    module = ModuleGates("layer1.0", mean, np.zeros(8, np.float32))
    assert (module.opened(1), module.opened(0)) == (37.5, 75)
    assert module.shut == 25
    assert module.turned == 25
    assert ModuleGates("layer1.0", 1000 * mean, mean).shut == 25  # whatever the layers around it scale by


def test_gates_of_images(
    cam_bundle: Bundle, examples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not explain_gates([cam_bundle.root, examples], options(tmp_path))
    output, errors = capsys.readouterr()
    assert "samdeploy: 2 of 7 images could not be read" in errors
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gates.json", "gates.png"]
    assert Image.open(tmp_path / "out" / "gates.png").size[0] > 1000
    found = json.loads((tmp_path / "out" / "gates.json").read_text())
    assert (found["gate"], found["images"], found["neutral"]) == ("identity", 5, 1.0)
    assert [module["module"] for module in found["modules"]] == [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
    assert [len(module["mean"]) for module in found["modules"]] == [64, 64, 128, 128, 256, 256, 512, 512]
    titles = "module channels min median max spread opened % shut % turned %"
    assert output.splitlines()[0].split() == titles.split()
    assert output.splitlines()[-1].startswith("gates of 5 images: ")


def test_the_command(cam_bundle: Bundle, examples: Path, tmp_path: Path, command: Callable, inside: Inside) -> None:
    done = command("explain", cam_bundle.root, examples / "tiny.png", "--top", "1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, f"{cam_bundle.root}: onnxruntime, fp32, cpu\n")
    assert len(list((tmp_path / "explain").glob("*/tiny.*.png"))) == 1
    code, _, errors = inside("explain", cam_bundle.root, examples / "text.jpg", "--gates", "--out", "g", cwd=tmp_path)
    assert code == 2
    assert "Traceback" not in errors
    code, _, errors = inside("explain", cam_bundle.root, "--backend", "tensorrt", cwd=tmp_path)
    assert (code, errors.count("\n")) == (1, 1)
    assert "'tensorrt' computes no class activation maps" in errors
