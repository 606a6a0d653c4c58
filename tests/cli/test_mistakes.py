"""What is typed or found wrong: one line, an exit code, no traceback, and files as before."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from samdeploy.backends.names import PREFERENCE
from samdeploy.bundle.names import MANIFEST, RUN_FILE
from samdeploy.cli.arguments import missing_package
from tests.cli.typed import Inside, assert_one_line
from tests.conftest import Command


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ("train digit", 2, "unknown recipe, file or folder 'digit'; did you mean the recipe 'digits'"),
        ("train no/such.toml", 2, "no/such.toml: no such file or folder; a recipe's name, a .toml"),
        ("train --set training.epoch=3", 2, "recipe digits: unknown key in [training] 'epoch'; did you mean 'epochs'"),
        ("train --set training.epochs=many", 2, "recipe digits: "),
        ("train --set data.name=cifar", 2, "recipe digits: unknown data.name 'cifar'; did you mean 'cifar10'"),
        ("train --set model.arch=sam-resnet5", 2, "recipe digits: unknown model.arch 'sam-resnet5'; did you mean"),
        ("train --set model.gate=tanh", 2, "recipe digits: unknown model.gate 'tanh'"),
        ("train --set training.precision=fp64", 2, "recipe digits: training.precision: 'fp64' found, one of"),
        ("train --set training.device=gpu", 2, "recipe digits: "),
        ("train folder --data nowhere", 2, "nowhere: no such folder; a folder with"),
        ("train --runs missing/runs --set training.precision=fp32", 2, None),
        ("export no-run", 2, "run no-run: no such folder"),
        (
            "export --runs empty",
            2,
            "no run with weights below empty/; samdeploy train or samdeploy import makes one",
        ),
        ("export --engine tensor", 2, "unknown engine 'tensor'"),
        ("export --precision fp61", 2, "unknown precision 'fp61'; did you mean 'fp16'"),
        ("export --target SM1", 2, "target: 'SM1' found; a compute capability such as SM86, or 'current', expected"),
        ("export --batch 1,8", 2, "--batch: '1,8' found, three numbers expected, such as 1,8,64"),
        ("export --batch 1,8,x", 2, "--batch: '1,8,x' found"),
        ("eval no-bundle", 2, "bundle no-bundle: no such folder; make one: samdeploy export"),
        ("doctor no-bundle", 2, "bundle no-bundle: no such folder"),
        ("eval --runs empty", 2, "no bundle below empty/; name a bundle, give --runs DIR, or make one: samdeploy"),
        ("eval --backend onnx", 2, "unknown backend 'onnx'; did you mean 'onnxruntime'"),
        ("eval --precision half", 2, "unknown precision 'half'"),
        ("eval --device gpu", 2, "unknown device 'gpu'; did you mean 'cuda'?"),
        ("eval --margin 0", 2, "--margin: 0 found, points above 0 and below 100 expected"),
        ("eval --margin nan", 2, "--margin: nan found, points above"),
        ("eval --confidence 95", 2, "confidence 95 found, at least 0.5 and below 1 expected (for 95 %: 0.95)"),
        ("eval --json no/such/folder/x.json", 2, "--json: the folder no/such/folder does not exist; make it first"),
        ("eval --json empty", 2, "--json: empty is a folder; name a file"),
        ("eval --json a.x --junit a.x", 2, "--json and --junit: both name a.x; name two files"),
        ("train digits --data empty", 2, "empty: the recipe's data set"),
        ("data --data empty", 2, "empty: the recipe's data set"),
        ("reproduce --data empty", 2, "empty: the recipe's data set"),
        ("export --data empty", 2, "empty: the run's data set 'digits' is built in"),
        ("eval --data empty", 2, "empty: the bundle's data set 'digits' is built in"),
        ("data --size 32 --out t.csv", 2, "--out: only with --from-labels DIR"),
        ("export --headroom-plot a.txt", 2, "--headroom-plot a.txt: a .png, .svg or .pdf expected"),
        (
            "export runs/digits/bundle",
            2,
            "run runs/digits/bundle: is a bundle; name the run that it was exported from: sam",
        ),
        ("serve --host nosuch.invalid", 2, "--host nosuch.invalid: no such host; give an address of this machine, or"),
        ("export --headroom-plot no/a.png", 2, "--headroom-plot: the folder no does not exist; make it first"),
        ("export --batch 8,1,64", 2, "batch: 8,1,64 found, 1 <= MIN <= OPT <= MAX expected"),
        ("export --engine onnxruntime --precision bf16", 2, "backend 'onnxruntime' runs fp32, fp16, int8, not 'bf16'"),
        ("export --engine openvino --batch 1,2,4", 2, "--batch: is for TensorRT engines, and --engine openvino builds"),
        ("export --engine openvino --optimization-level 0", 2, "--optimization-level: is for TensorRT engines"),
        ("export --engine openvino --engine onnxruntime", 2, "--engine: openvino, onnxruntime found, one name or all"),
        (
            "eval --backend openvino --backend pytorch",
            2,
            "--backend: openvino, pytorch found, one name or all expected",
        ),
        ("predict broken x.png", 2, "bundle broken: is a folder without manifest.json; name a bundle, the folder"),
        ("explain broken x.png", 2, "bundle broken: is a folder without manifest.json; name a bundle, the folder"),
        ("predict empty x.png", 2, "bundle empty: is an empty folder; make a bundle: samdeploy export"),
        ("predict v1.2 x.png", 2, "v1.2: no such bundle, image or folder"),
        ("predict nowhere x.png", 2, "nowhere: no such bundle, image or folder"),
        ("predict x.png runs/digits", 2, "runs/digits: is a bundle or run; name it first, before the images"),
        ("predict nowhere", 2, "nowhere: no such bundle, image or folder"),
        (
            "predict runs/digits/run.json",
            2,
            "runs/digits/run.json: a file found, an image or the folder of a bundle expected",
        ),
        ("predict --runs empty x.png", 2, "no bundle below empty/"),
        ("predict --backend onnx x.png", 2, "unknown backend 'onnx'"),
        ("predict --precision half x.png", 2, "unknown precision 'half'"),
        ("predict --backend openvino --device cuda x.png", 2, "backend 'openvino' runs on cpu, not on 'cuda'"),
        ("predict runs/digits/bundle", 2, "no image named; expected: samdeploy predict [BUNDLE] IMAGE..."),
        ("predict empty", 2, "empty: no images in this folder"),
        ("explain empty", 2, "empty: no images in this folder"),
        ("bench --images empty", 2, "--images: no images in empty; name another folder"),
    ],
)
def test_mistakes_are_one_line(finished: Path, inside: Inside, arguments: str, code: int, text: str | None) -> None:
    for folder in ("empty", "broken/golden"):
        (finished / folder).mkdir(exist_ok=True, parents=True)
    if text is None:
        (finished / "missing").write_text("a file where a folder is needed")
        text = "runs folder missing/runs: cannot be written to"
    before = sorted(path.name for path in (finished / "runs").iterdir())
    found, output, errors = inside(*arguments.split(), cwd=finished)
    assert found == code
    assert_one_line(errors, text)
    assert output == ""
    assert sorted(path.name for path in (finished / "runs").iterdir()) == before


def test_a_folder_that_was_named_is_not_asked_for(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "empty").mkdir()
    code, _, errors = inside("train", "empty", cwd=tmp_path)
    assert code == 2 and errors.splitlines()[-1].startswith("samdeploy: folder: no class folders in empty (0 images ")
    assert "--data" not in errors  # which would be refused


def test_no_traceback_in_a_process_either(tmp_path: Path, command: Command) -> None:
    done = command("train", "digit", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(done.stderr, "unknown recipe, file or folder 'digit'; did you mean the recipe 'digits'")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_argument_is_not_the_current_folder(tmp_path: Path, command: Command) -> None:
    for arguments in (("predict", "", "x.png"), ("predict", "bundle", ""), ("train", "digits", "--runs", "")):
        done = command(*arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "samdeploy: an argument is empty; a variable of the shell that is not set?\n"
    assert list(tmp_path.iterdir()) == []


def test_a_pattern_that_the_shell_expanded(finished: Path, inside: Inside) -> None:
    code, _, errors = inside("label", "runs", *(f"{number}.jpg" for number in range(200)), "--out", "o", cwd=finished)
    assert code == 2 and errors.endswith("...; put a pattern in quotes\n") and len(errors) < 300


def test_each_runtime_that_cannot_has_a_line(finished: Path, inside: Inside) -> None:
    code, _, errors = inside("predict", "--precision", "int8", "--device", "cuda", "x.png", cwd=finished)
    first, *reasons = errors.splitlines()
    assert (code, first) == (1, "samdeploy: no runtime can open this bundle here in int8:")
    assert [reason.split(":")[0] for reason in reasons] == [f"  - {name}" for name in PREFERENCE]


def test_an_error_of_several_lines_becomes_one(finished: Path, inside: Inside) -> None:
    code, _, errors = inside("eval", "no\nsuch  bundle", cwd=finished)
    assert code == 2
    assert_one_line(errors, "bundle no such bundle: no such folder; make one: samdeploy export")


def test_a_recipe_that_is_no_toml(finished: Path, inside: Inside, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[training\nepochs = 1\n")
    code, _, errors = inside("train", tmp_path / "bad.toml", cwd=finished)
    assert code == 2
    assert_one_line(errors, f"recipe {tmp_path / 'bad.toml'}: ")


def set_version(path: Path, version: int) -> None:
    values = json.loads(path.read_text())
    values["version"] = version
    path.write_text(json.dumps(values))


def test_a_run_of_a_newer_samdeploy(tmp_path: Path, digits_run: Path, inside: Inside) -> None:
    shutil.copy(digits_run / RUN_FILE, tmp_path / RUN_FILE)
    set_version(tmp_path / RUN_FILE, 2)
    code, _, errors = inside("export", tmp_path, cwd=tmp_path)
    assert code == 2
    assert_one_line(
        errors, f"{tmp_path / RUN_FILE}: format version 2 found, this samdeploy reads up to 1; update samdeploy"
    )


@pytest.mark.parametrize("name", ["eval", "predict"])
def test_a_bundle_of_a_newer_samdeploy(copy_of_bundle: Path, inside: Inside, name: str) -> None:
    set_version(copy_of_bundle / MANIFEST, 2)
    code, _, errors = inside(name, copy_of_bundle, *(["x.png"] if name == "predict" else []), cwd=copy_of_bundle)
    assert code == 2
    assert_one_line(
        errors, f"{copy_of_bundle / MANIFEST}: format version 2 found, this samdeploy reads up to 1; update"
    )


@pytest.mark.parametrize("name", ["eval", "predict"])
def test_a_bundle_that_was_changed(
    copy_of_bundle: Path, inside: Inside, digit_files: Sequence[Path], name: str
) -> None:
    path = copy_of_bundle / "model.fp32.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    arguments = [digit_files[0], "--backend", "onnxruntime"] if name == "predict" else []
    code, output, errors = inside(name, copy_of_bundle, *arguments, cwd=copy_of_bundle)
    assert (code, output) == (2, "")
    assert_one_line(errors, f"bundle {copy_of_bundle}: 'model.fp32.onnx' has SHA-256 ")


def test_a_missing_package_is_named_with_its_cure(
    finished: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name == "samdeploy.train" or name.startswith("samdeploy.train.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)  # Python's own way to say "not installed"
    code, _, errors = inside("train", cwd=finished)
    assert code == 1
    assert_one_line(errors, "the package 'torch' is not installed; pip install 'samdeploy[train]'")
    for command, name, extra in (
        ("label", "pyarrow", "label"),
        ("card", "scipy", "report"),
        ("eval", "scipy", "train"),
    ):
        assert missing_package(ModuleNotFoundError(name=name), command).endswith(f"'samdeploy[{extra}]'")


def test_help_is_quick_and_complete(tmp_path: Path, command: Command) -> None:
    done = command("--help", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("train", "export", "eval", "predict"):
        assert f"\n  {name} " in done.stdout


def test_the_defaults_that_help_names_are_those_of_the_library(tmp_path: Path, command: Command) -> None:
    """--batch and --optimization-level default to None, so that engines without them can refuse them."""
    from samdeploy.export import ExportOptions

    said = " ".join(command("export", "--help", cwd=tmp_path).stdout.split())
    assert f"; {','.join(map(str, ExportOptions().batch))} if left out" in said
    assert f"; {ExportOptions().optimization_level} if left out" in said
    assert f"[default: {ExportOptions().max_drop}; x>=0]" in said


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("train --learning-rate 3", "--learning-rate; use --lr or --set training.learning_rate=VALUE"),
        ("train --imgsz 64", "--imgsz; use --size or --set image.size=VALUE"),
        ("reproduce --patience 3", "--patience; use --set training.patience=VALUE"),
        ("data --lr 3", "--lr; use --set training.learning_rate=VALUE"),
        ("train --momentum 0.9", "--momentum; values of the recipe are changed with --set KEY=VALUE"),
    ],
)
def test_unknown_option_names_the_key(tmp_path: Path, inside: Inside, arguments: str, hint: str) -> None:
    code, _, errors = inside(*arguments.split(), cwd=tmp_path)
    assert (code, errors.splitlines()[-1]) == (2, f"Error: No such option: {hint}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("digits --epochs 3 --set epochs=3", "--epochs and --set: both give training.epochs; leave one out"),
        ("digits --size 64 --set image.width=64", "--size and --set: both give image.width; leave one out"),
        ("pets --data cats", "pets and --data cats: both name the images; leave one out"),
        ("pets --set root=cats", "pets and --set data.root: both name the images; leave one out"),
        ("digits --lr 0", "recipe digits: training.learning_rate: 0.0 found, above 0 expected"),
    ],
)
def test_options_that_cannot_be_meant(tmp_path: Path, inside: Inside, arguments: str, message: str) -> None:
    (tmp_path / "pets").mkdir()
    code, _, errors = inside("train", *arguments.split(), cwd=tmp_path)
    assert code == 2
    assert_one_line(errors, message)


def test_recipe_wins_over_a_folder_of_its_name(tmp_path: Path, inside: Inside) -> None:
    (tmp_path / "cifar10").mkdir()
    for name, said in (
        ("cifar10", "cifar10: taken for the recipe; the folder of this name is ./cifar10"),
        ("./cifar10", "training on the images in ./cifar10 (recipe 'folder')"),
    ):
        code, _, errors = inside("train", name, "--lr", "0", cwd=tmp_path)
        assert (code, errors.splitlines()[0]) == (2, said)
    _, _, errors = inside("data", "./cifar10", cwd=tmp_path)
    assert errors.startswith("reading the images in ./cifar10 (recipe 'folder')")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("notes.txt", "is a file; name a bundle, the folder that samdeploy export makes"),
        ("net.onnx", "is an ONNX graph; name a bundle"),
        ("net.plan", "is an engine; name a bundle"),
        ("bundle.zip", "is an archive; unpack it, then name the bundle's folder"),
        ("-", "is standard input; name a bundle"),
        ("cat.jpg", "is an image; to classify it: samdeploy predict BUNDLE cat.jpg"),
        ("nothing-in-it/", "is an empty folder; make a bundle: samdeploy export"),
        (
            "pets/",
            "is a folder of images, not a bundle (the folder that samdeploy export makes); to use them: "
            "samdeploy predict BUNDLE pets, or, if it has a folder for each class, samdeploy eval BUNDLE --data pets",
        ),
        ("all/", "is a folder of runs; name one of them, or take the newest: --runs all"),
        ("all/one/", "is a run that has no bundle yet; make it: samdeploy export all/one"),
        ("made/model.onnx", "is an ONNX graph inside a bundle; name its folder, made"),
    ],
)
def test_bundle_commands_say_what_a_path_is(tmp_path: Path, inside: Inside, name: str, what: str) -> None:
    for file in ("pets/cat/a.jpg", "all/one/run.json", "made/manifest.json", "made/model.onnx", name.rstrip("/")):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        if not (tmp_path / file).exists():
            (tmp_path / file).mkdir() if file == "nothing-in-it" else (tmp_path / file).touch()
    for command in ("eval", "doctor"):
        code, output, errors = inside(command, name, cwd=tmp_path)
        assert (code, output) == (2, "")
        assert_one_line(errors, f"bundle {name.rstrip('/')}: {what}")


def test_url_is_no_bundle_and_no_run(tmp_path: Path, inside: Inside) -> None:
    code, _, errors = inside("eval", "https://example.org/bundle.zip", cwd=tmp_path)
    assert code == 2 and "is a URL; download it, then name the bundle's folder" in errors
    (tmp_path / "net.onnx").touch()
    code, _, errors = inside("export", "net.onnx", cwd=tmp_path)
    assert code == 2
    assert_one_line(errors, "run net.onnx: is an ONNX graph; import it first: samdeploy import net.onnx")
