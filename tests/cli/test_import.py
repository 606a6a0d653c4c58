"""`samdeploy import` on the command line: what it prints, and what it refuses before anything is written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from samdeploy.runs.record import open_run
from tests.cli.typed import Inside
from tests.importing.imported import ARCH, CLASSES, class_file, class_folders, saved, state_of

FITTING = ("import", "w.pth", "--arch", ARCH, "--classes", "classes.txt", "--size", "64")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights, class names and folders of images."""
    folder = tmp_path_factory.mktemp("import")
    state = state_of()
    saved(folder / "w.pth", state)
    saved(folder / "nan.pth", {**state, "fc.bias": torch.full((3,), torch.nan)})
    saved(folder / "eff.pth", state_of("timm:test_efficientnet"))
    saved(folder / "vit.pth", state_of("timm:test_vit"))
    saved(folder / "resnet18.pth", state_of("timm:resnet18"))
    class_file(folder)
    class_folders(folder / "few", dict.fromkeys(CLASSES, 4))
    class_folders(folder / "four", dict.fromkeys((*CLASSES, "fox"), 20))
    (folder / "empty.txt").touch()
    (folder / "none").mkdir()
    (folder / "other").mkdir()
    return folder


OTHER_TASKS = [
    ("torchvision:fasterrcnn_resnet50_fpn", "is a detection model"),
    ("torchvision:deeplabv3_resnet50", "is a segmentation model"),
    ("torchvision:r3d_18", "takes videos"),
    ("torchvision:quantized_resnet18", "is quantized already"),
    ("torchvision:inception_v3", "has several outputs while it is trained"),
]
MISTAKES: list[tuple[str, str]] = [
    *((f"import {arch}", f"{arch}: {task}; samdeploy takes classifiers") for arch, task in OTHER_TASKS),
    ("import timm:rsnet50", "unknown architecture 'timm:rsnet50'; did you mean 'timm:resnet50' or "),
    ("import resnet18", "resnet18: no such file; an architecture is named with its family: timm:resnet18 or torchv"),
    ("import w.pth --arch resnet18", "unknown architecture 'resnet18'; did you mean 'timm:resnet18' or 'torchvis"),
    ("import foo:resnet18", "unknown family of networks 'foo'"),
    ("import sam-resnet50", "sam-resnet50: has no published weights; import a file of them: samdeploy import FILE"),
    ("import w.pth", "w.pth: architecture not given. Name it: --arch timm:NAME"),
    ("import timm:resnet18 --arch timm:resnet18", "--arch timm:resnet18: timm:resnet18 names an architecture already"),
    ("import resnet18.pth --arch timm:resnet50", "resnet18.pth: does not fit resnet50; this looks like resnet18 ("),
    (f"import resnet18.pth --arch {ARCH}", "resnet18.pth: does not fit the architecture; this looks like resnet18 ("),
    (f"import eff.pth --arch {ARCH}", f"eff.pth: no head of {ARCH} (fc.weight, fc.bias), and 4 of its 77 tensors "),
    (
        "import vit.pth --arch timm:test_vit --classes classes.txt --size 100",
        "timm:test_vit does not take images of 100x100 (Input height (100) should be divisible by patch size (16).); "
        "give its own size: --size PIXELS",
    ),
    (f"import nan.pth --arch {ARCH} --classes classes.txt", f"{ARCH}: its answers are not finite"),
    ("import few", "few: is a folder of images; a file of weights, or an architecture such as timm:resnet50 expected"),
    ("import nothing.pth", "nothing.pth: no such file; a file of weights, or an architecture such as"),
    ("import https://x.org/w.pth", "https://x.org/w.pth: is a URL; a file of weights"),
    (f"import w.pth --arch {ARCH}", "the network's class names are not known; give them, one a line: --classes FILE"),
    (f"import w.pth --arch {ARCH} --data few", "few: 12 images found, at least 64 expected (32 are set"),
    (f"import w.pth --arch {ARCH} --data none", "folder: no class folders in none"),
    (f"import w.pth --arch {ARCH} --data nothing", "nothing: no such folder"),
    (
        f"import w.pth --arch {ARCH} --classes empty.txt",
        "--classes empty.txt: is empty; one class name a line expected",
    ),
    (
        f"import w.pth --arch {ARCH} --data four",
        "the network has 3 classes, the images have 4 folders; leave out those",
    ),
    (f"import w.pth --arch {ARCH} --size 0", "--size: '0' found, a number such as 224 or HEIGHTxWIDTH expected"),
    (f"import w.pth --arch {ARCH} --size 64x", "--size: '64x' found, a number such as 224 or HEIGHTxWIDTH expected"),
    *(
        (f"import w.pth --arch {ARCH} --size 64 {option} {values}", f"{option}: {found}")
        for option, values, found in (
            ("--mean", "123,116,103", "123,116,103 found, -1 to 1 expected (for RGB in 0 to 1); divide by 255"),
            ("--mean", "inf,0,0", "inf,0,0 found, -1 to 1 expected (for RGB in 0 to 1)"),
            ("--std", "58.4,57,57", "58.4,57,57 found, 0.0001 to 1 expected (for RGB in 0 to 1); divide by 255"),
            ("--std", "nan,1,1", "nan,1,1 found, 0.0001 to 1 expected (for RGB in 0 to 1)"),
            ("--std", "1,1,0", "1,1,0 found, 0.0001 to 1 expected"),
        )
    ),
    (
        f"import w.pth --arch {ARCH} --fit squeeze --resize 200",
        "--resize 200: not with --fit squeeze, which crops nothing; leave one of them out",
    ),
    (f"import w.pth --license {'x' * 201}", "--license: 201 characters found, a name of at most 200 expected"),
    (f"import w.pth --arch {ARCH} --mean 1,2", "--mean: '1,2' found, three numbers expected"),
    (
        f"import w.pth --arch {ARCH} --size 64 --resize 32",
        "--resize 32: the image is cropped to --size 64x64 afterwards; give --resize 64 or",
    ),
    (f"import w.pth --arch {ARCH} --set gate=no", f"unknown option of {ARCH} 'gate'. Valid: attention"),
    (f"import w.pth --arch {ARCH} --preprocessing timm:dm_nfnet_f0", "timm:dm_nfnet_f0: its images are cropped by mod"),
    ("export w.pth", "run w.pth: is a weight file; import it first: samdeploy import w.pth --arch timm:NAME"),
    ("export timm:resnet18", "run timm:resnet18: no such folder; a network is imported first: samdeploy import timm:"),
]


@pytest.mark.parametrize(("line", "text"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_mistakes_are_one_line_and_write_nothing(line: str, text: str, here: Path, inside: Inside) -> None:
    code, out, err = inside(*line.split(), cwd=here)
    assert (code, out) == (2, "")
    *before, last = err.splitlines()
    assert all(note.startswith(("loaded ", "32 of 80 images")) for note in before) and last.startswith(
        f"samdeploy: {text}"
    ), err
    assert not list((here / "runs").glob("*"))


def test_mistakes_in_arguments_need_no_torch(here: Path) -> None:
    lines = [
        *("nothing.pth", "few", "small.onnx", "w.pth --classes nothing.txt", "w.pth --runs w.pth", "w.pth --data few"),
        *(f"w.pth --classes {names}.txt --data many" for names in ("two", "swapped")),
    ]
    class_folders(here / "many", dict.fromkeys(CLASSES, 22))
    (here / "two.txt").write_text("cat\ndog\n")
    (here / "swapped.txt").write_text("dog\ncat\neel\n")
    (here / "small.onnx").touch()
    code = (
        "import sys; from samdeploy.cli import main; sys.modules['torch'] = None\n"
        f"for line in {lines!r}:\n"
        "    sys.argv = ['samdeploy', 'import', *line.split()]\n"
        "    try: main()\n"
        "    except SystemExit as end: print(end.code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2"] * len(lines), done.stderr
    assert "torch" not in done.stderr


def test_published_weights_without_a_network(
    here: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torchvision = pytest.importorskip("torchvision")
    weights = torchvision.models.get_model_weights("resnet18").DEFAULT
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    code, _, err = inside("import", "torchvision:resnet18", cwd=here)
    assert code == 2
    assert err == (
        "fetching the weights of torchvision:resnet18, unless the cache has them\n"
        "samdeploy: the published weights resnet18-f37072fd.pth could not be fetched (no route). Download "
        f"{weights.url} on another machine, and import the file: samdeploy import FILE --arch torchvision:resnet18\n"
    )


def offline(*arguments: object, **options: object) -> None:
    raise OSError("no route")


@pytest.mark.parametrize(
    ("arguments", "license", "warned"),
    [
        (("--license", "CC-BY-NC-4.0"), "CC-BY-NC-4.0", True),
        (("--license", "Research only"), "Research only", True),
        (("--license", "func-license 2.0"), "func-license 2.0", False),
        ((), None, False),
        (("--arch", "timm:test_resnet.r160_in1k"), "apache-2.0", False),
        (("--arch", "timm:test_resnet.r160_in1k", "--license", "apple-amlr"), "apple-amlr", True),
    ],
)
def test_license(
    arguments: tuple[str, ...], license: str | None, warned: bool, here: Path, inside: Inside, tmp_path: Path
) -> None:
    code, out, err = inside(*FITTING, *arguments, "--runs", tmp_path, cwd=here)
    assert code == 0
    assert open_run(Path(out.strip())).license == license
    assert (f"warning: these weights are not for commercial use: {license}\n" in err) is warned


def test_what_is_done_with_an_imported_run(here: Path, inside: Inside) -> None:
    runs = here / "other" / "runs"
    code, out, err = inside(*FITTING, "--runs", runs, cwd=here)
    assert code == 0
    assert err == (
        "loaded 92 tensors\n"
        "images: shorter side to 67, bilinear, middle 64x64; mean 0.5,0.5,0.5, std 0.5,0.5,0.5 "
        f"(from the record of {ARCH}, but for --size)\n"
        f"next: samdeploy export {out}"
    )
    run = Path(out.strip())
    assert run.parent == runs and sorted(path.name for path in run.iterdir()) == ["run.json", "weights.safetensors"]
    for line, text in (
        (("import", run), f"{run}: is a run without a bundle; to export it: samdeploy export {run}"),
        (("train", "--resume", run), f"run {run}: was imported, and no training goes on there; to start one from its "),
        (("train", run), f"{run}: is an imported network; to train from its weights: samdeploy train FOLDER "),
        (("reproduce", run), f"{run}: is an imported network; to train from its weights: samdeploy train FOLD"),
        (("eval", run), f"bundle {run}: is a run that has no bundle yet; make it: samdeploy export {run}"),
    ):
        code, _, err = inside(*line, cwd=here)
        assert code == 2 and err.startswith(f"samdeploy: {text}"), err


def test_list_of_models(here: Path, inside: Inside) -> None:
    code, out, _ = inside("models", cwd=here)
    assert code == 0 and "torchvision" in out and "samdeploy models 'timm:*resnet*'" in out
    code, out, _ = inside("models", "timm:test_resnet", cwd=here)
    assert code == 0
    row = next(line for line in out.splitlines() if line.startswith("timm:test_resnet"))
    assert row.split() == ["timm:test_resnet", "160", "bilinear", "95", "469,688", "apache-2.0"]
