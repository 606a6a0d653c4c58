"""The command line as a user has it: processes, files, exit codes, and errors of one line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from samdeploy.backends.cuda import cuda_devices
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.manifest import MANIFEST
from samdeploy.run import HISTORY_FILE, RUN_FILE, WEIGHTS_FILE, open_run

pytestmark = pytest.mark.slow

Command = Callable[..., "subprocess.CompletedProcess[str]"]
Inside = Callable[..., tuple[int, str, str]]
without_gpu = pytest.mark.skipif(cuda_devices()[0] > 0, reason="this machine has a CUDA device")

# A network that learned from a tenth of the digits, at half their usual size, for one epoch: poor, but as good as any
# to be deployed.
_SETTINGS = ("training.epochs=1", "data.val_fraction=0.9", "training.device=cpu", "image.height=16", "image.width=16")
TINY = tuple(argument for setting in _SETTINGS for argument in ("--set", setting))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder to begin with; the tests of the four commands fill it, in order."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="module")
def trained(workplace: Path, command: Command) -> subprocess.CompletedProcess[str]:
    return command("train", *TINY, cwd=workplace)


@pytest.fixture(scope="module")
def exported(
    workplace: Path, trained: subprocess.CompletedProcess[str], command: Command
) -> subprocess.CompletedProcess[str]:
    return command("export", cwd=workplace)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, digits_bundle: Bundle) -> Path:
    """A folder with `runs/` that holds a finished run and its bundle."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(digits_bundle.root.parent, folder / "runs" / "digits")
    return folder


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`inside(*arguments, cwd=folder)`: exit code, output and errors of `samdeploy`, run in this process.

    The same `main()` that a process of its own would call, without the seconds that importing torch anew takes.
    """

    def run(*arguments: str | Path, cwd: Path) -> tuple[int, str, str]:
        from samdeploy.cli import main

        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["samdeploy", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0 if code is None else 1, captured.out, captured.err

    return run


def test_train(workplace: Path, trained: subprocess.CompletedProcess[str]) -> None:
    assert (trained.returncode, trained.stderr.count("Traceback")) == (0, 0)
    (run,) = (workplace / "runs").iterdir()
    # Only the path goes to standard output: run=$(samdeploy train) works in a shell.
    assert trained.stdout == f"runs/{run.name}\n"
    assert "epoch 1/1" in trained.stderr
    assert open_run(run).status == "complete"
    assert [path.name for path in workplace.iterdir()] == ["runs"]


def test_export_takes_the_newest_run(workplace: Path, exported: subprocess.CompletedProcess[str]) -> None:
    (run,) = (workplace / "runs").iterdir()
    assert exported.returncode == 0, exported.stderr
    assert f"taking the newest run: runs/{run.name}\n" in exported.stderr
    lines = exported.stdout.splitlines()
    assert lines[-1] == f"runs/{run.name}/bundle"
    assert max(map(len, lines)) <= 80
    assert "11,877,962 parameters as trained, 11,875,082 folded" in lines
    for engine in ("onnxruntime", "openvino"):
        (row,) = [line.split() for line in lines if line.startswith(engine)]
        assert row[1:] == ["fp32", "47.5", "verified", "model.fp32.onnx"], exported.stdout
    open_bundle(run / "bundle").verify()


def test_eval_takes_the_newest_bundle(
    workplace: Path, exported: subprocess.CompletedProcess[str], command: Command
) -> None:
    (run,) = (workplace / "runs").iterdir()
    done = command("eval", "--json", "result.json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"taking the newest bundle: runs/{run.name}/bundle\n")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("engine ")
    assert lines[-1].startswith("PASSED") and lines[-1].endswith(f": runs/{run.name}/bundle")
    assert max(map(len, lines[:-1])) <= 80
    content = (workplace / "result.json").read_bytes()
    assert content == (run / "bundle" / "eval.json").read_bytes()
    report = json.loads(content)
    assert (report["passed"], report["n_images"], report["test_set"]) == (True, 359, "as at training")
    rows = {row["backend"]: row for row in report["results"]}
    assert rows["onnxruntime"]["passed"] and rows["openvino"]["passed"]
    assert rows["onnxruntime"]["latency_runs"] >= 30


def test_predict_takes_the_newest_bundle(
    workplace: Path, exported: subprocess.CompletedProcess[str], digit_files: Sequence[Path], command: Command
) -> None:
    (run,) = (workplace / "runs").iterdir()
    done = command("predict", digit_files[0], cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"runs/{run.name}/bundle: ")
    path, answer = done.stdout.rstrip("\n").split(": ")
    assert path == str(digit_files[0])
    assert len(answer.split(", ")) == 5
    shares = [float(part.split()[1]) for part in answer.split(", ")]
    assert shares == sorted(shares, reverse=True) and sum(shares) <= 100.05


@without_gpu
def test_eval_of_an_engine_that_cannot_run_here(finished: Path, inside: Inside) -> None:
    code, output, errors = inside("eval", "--backend", "tensorrt", "--json", "tensorrt.json", cwd=finished)
    assert (code, errors) == (1, "taking the newest bundle: runs/digits/bundle\n")
    (row,) = json.loads((finished / "tensorrt.json").read_text())["results"]
    assert (row["backend"], row["precision"], row["ran"], row["passed"]) == ("tensorrt", "fp16", False, False)
    assert row["reason"]
    assert "tensorrt     fp16 -    not run here" in output
    table = " ".join(output.split())
    assert " ".join(row["reason"].split()) in table
    assert "NOT PASSED (not run here: tensorrt fp16): runs/digits/bundle" in " ".join(table.split())


def test_eval_of_too_few_pictures_and_of_one_engine_after_another(copy_of_bundle: Path, inside: Inside) -> None:
    code, _, errors = inside("eval", copy_of_bundle, "--backend", "onnxruntime", cwd=copy_of_bundle)
    assert code == 0, errors
    code, output, errors = inside(
        "eval",
        copy_of_bundle,
        "--backend",
        "openvino",
        "--precision",
        "bf16",
        "--json",
        "bf16.json",
        cwd=copy_of_bundle,
    )
    alone = json.loads((copy_of_bundle / "bf16.json").read_text())
    if not alone["results"][0]["ran"]:
        pytest.skip(alone["results"][0]["reason"])
    # 359 pictures prove no loss of less than half a point, whatever bf16 does to them.
    assert (code, errors) == (1, "")
    assert output.splitlines()[-1] == f"CANNOT TELL: {copy_of_bundle}"
    assert "openvino bf16: 359 images cannot tell whether top-1 drops by less than 0.5" in output
    both = json.loads((copy_of_bundle / "eval.json").read_text())
    assert [row["backend"] for row in alone["results"]] == ["openvino"]
    assert [(row["backend"], row["verdict"]) for row in both["results"]] == [
        ("onnxruntime", "holds"),
        ("openvino", "cannot tell"),
    ]
    assert (both["passed"], both["verdict"]) == (False, "cannot tell")


def test_export_says_which_tensorrt_it_took(tmp_path: Path, digits_run: Path, inside: Inside) -> None:
    tensorrt = pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")
    (tmp_path / "runs").mkdir()
    shutil.copytree(digits_run, tmp_path / "runs" / "digits", ignore=shutil.ignore_patterns("bundle"))
    code, output, errors = inside("export", "--engine", "trt", cwd=tmp_path)
    assert code == 0, errors
    text = " ".join(output.split())
    assert "built by tensorrt-rtx " + tensorrt.__version__ in text or "built by tensorrt " in text
    (engine,) = [file for file in open_bundle(tmp_path / "runs/digits/bundle").files if file.role == "engine"]
    assert (engine.backend, engine.precision) == ("tensorrt", "fp16")
    assert engine.built_for["runtime"] in ("tensorrt", "tensorrt_rtx")
    assert engine.path in text


def assert_one_line(text: str, beginning: str) -> None:
    """Notes on what was taken may come first; then one line, which says `beginning`."""
    lines = [line for line in text.splitlines() if not line.startswith("taking the newest")]
    assert len(lines) == 1, text
    assert lines[0].startswith(f"samdeploy: {beginning}"), lines[0]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ("train digit", 2, "unknown recipe 'digit'; did you mean 'digits'"),
        ("train no/such.toml", 2, "recipe file no/such.toml: no such file; built-in recipes: aircraft"),
        ("train --set training.epoch=3", 2, "recipe digits: unknown key in [training] 'epoch'; did you mean 'epochs'"),
        ("train --set training.epochs=many", 2, "recipe digits: "),
        ("train --set data.name=cifar", 2, "recipe digits: unknown data.name 'cifar'; did you mean 'cifar10'"),
        ("train --set model.arch=sam-resnet5", 2, "recipe digits: unknown model.arch 'sam-resnet5'; did you mean"),
        ("train --set model.gate=tanh", 2, "recipe digits: unknown model.gate 'tanh'"),
        ("train --set training.precision=fp64", 2, "recipe digits: training.precision: 'fp64' found, one of"),
        ("train --set training.device=gpu", 2, "recipe digits: "),
        ("train folder --data nowhere", 2, "folder: nothing found at nowhere"),
        ("train --runs missing/runs", 2, None),
        ("export no-run", 2, "run: no-run/run.json is missing"),
        ("export --runs empty", 2, "no run with weights below empty/; train one first: samdeploy train"),
        ("export --engine tensor", 2, "unknown engine 'tensor'"),
        ("export --precision fp61", 2, "unknown precision 'fp61'; did you mean 'fp16'"),
        ("export --batch 1,8", 2, "--batch: '1,8' found, three numbers expected, such as 1,8,64"),
        ("export --batch 1,8,x", 2, "--batch: '1,8,x' found"),
        ("eval no-bundle", 2, "bundle no-bundle: no such folder; make one: samdeploy export"),
        ("eval --runs empty", 2, "no bundle below empty/; make one first: samdeploy export"),
        ("eval --backend onnx", 2, "unknown backend 'onnx'; did you mean 'onnxruntime'"),
        ("eval --precision half", 2, "unknown precision 'half'"),
        ("eval --device gpu", 2, "unknown device 'gpu'"),
        ("eval --margin 0", 2, "margin 0 found, percentage points above 0 and below 100 expected"),
        ("eval --margin nan", 2, "margin nan found, percentage points"),
        ("eval --confidence 95", 2, "confidence 95 found, a share from 0.5 and below 1 expected (for 95 %: 0.95)"),
        ("eval --json no/such/folder/x.json", 2, "--json: the folder no/such/folder does not exist; make it first"),
        ("eval --json empty", 2, "--json: empty is a folder; name a file"),
        ("eval --json a.x --junit a.x", 2, "--json and --junit: both name a.x; name two files"),
        ("eval --data empty", 2, "--data empty: the bundle's data set 'digits' is part of a package"),
        ("export --headroom-plot no/a.png", 2, "--headroom-plot: the folder no does not exist; make it first"),
        ("export --batch 8,1,64", 2, "batch: 8,1,64 found, 1 <= smallest <= usual <= largest expected"),
        ("export --engine onnxruntime --precision bf16", 2, "backend 'onnxruntime' runs fp32, fp16, int8; precision"),
        ("predict --runs empty x.png", 2, "no bundle below empty/"),
        ("predict --backend onnx x.png", 2, "unknown backend 'onnx'"),
        ("predict --precision half x.png", 2, "unknown precision 'half'"),
        ("predict --precision int8 --device cuda x.png", 1, "no runtime can open this bundle here."),
        ("predict --backend openvino --device cuda x.png", 2, "backend 'openvino' runs on cpu; device 'cuda' found"),
        ("predict runs/digits/bundle", 2, "no picture named; expected: samdeploy predict [BUNDLE] IMAGE..."),
        ("predict empty", 2, "empty: no pictures in this folder"),
    ],
)
def test_mistakes_are_one_line(finished: Path, inside: Inside, arguments: str, code: int, text: str | None) -> None:
    (finished / "empty").mkdir(exist_ok=True)
    if text is None:
        (finished / "missing").write_text("a file where a folder is needed")
        text = "runs folder missing/runs: cannot be written to"
    before = sorted(path.name for path in (finished / "runs").iterdir())
    found, output, errors = inside(*arguments.split(), cwd=finished)
    assert found == code
    assert_one_line(errors, text)
    assert output == ""
    assert sorted(path.name for path in (finished / "runs").iterdir()) == before


def test_no_traceback_in_a_process_either(tmp_path: Path, command: Command) -> None:
    done = command("train", "digit", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(done.stderr, "unknown recipe 'digit'; did you mean 'digits'")
    assert list(tmp_path.iterdir()) == []


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
        errors, f"{tmp_path / RUN_FILE}: format version 2 found, this samdeploy reads up to 1; update it: pip"
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


@pytest.fixture
def mixed(tmp_path: Path, digit_files: Sequence[Path]) -> Path:
    """A folder with two good pictures, a truncated one, a text that claims to be one, and a text that does not."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(digit_files[0], folder / "a-good.png")
    (folder / "b-cut.png").write_bytes(digit_files[1].read_bytes()[:60])
    (folder / "c-text.png").write_text("no picture")
    (folder / "notes.txt").write_text("not looked at")
    (folder / "sub").mkdir()
    shutil.copy(digit_files[2], folder / "sub" / "d-good.png")
    return folder


def test_predict_goes_on_after_a_broken_picture(finished: Path, mixed: Path, inside: Inside) -> None:
    code, output, errors = inside("predict", mixed, mixed / "missing.png", "--top", "1", cwd=finished)
    assert code == 1
    answers = [line.split(": ") for line in output.splitlines()]
    assert [path for path, _ in answers] == [str(mixed / "a-good.png"), str(mixed / "sub" / "d-good.png")]
    assert [answer.split()[0] for _, answer in answers] == ["0", "2"]  # the digits that they are
    lines = errors.splitlines()
    assert lines[1].startswith(f"samdeploy: {mixed / 'b-cut.png'}: damaged or truncated")
    assert lines[2].startswith(f"samdeploy: {mixed / 'c-text.png'}: not a picture")
    assert lines[3] == f"samdeploy: {mixed / 'missing.png'}: no such file"
    assert lines[4] == "samdeploy: 3 of 5 pictures could not be read"
    assert len(lines) == 5


def test_predict_as_json(finished: Path, mixed: Path, inside: Inside) -> None:
    code, output, _ = inside("predict", "runs/digits/bundle", mixed, "--json", "--top", "3", cwd=finished)
    assert code == 1
    first, cut, text, last = map(json.loads, output.splitlines())
    assert first["image"] == str(mixed / "a-good.png")
    assert (first["label"], first["index"], len(first["top"])) == ("0", 0, 3)
    assert first["top"][0] == {"label": "0", "probability": first["probability"]}
    assert 0.5 < first["probability"] <= 1
    assert list(cut) == list(text) == ["image", "error"]
    assert "damaged or truncated" in cut["error"]
    assert last["label"] == "2"


@pytest.mark.parametrize("backend", ["pytorch", "onnxruntime", "openvino"])
def test_predict_with_each_backend(finished: Path, digit_files: Sequence[Path], inside: Inside, backend: str) -> None:
    code, output, errors = inside(
        "predict", "runs/digits/bundle", *digit_files, "--backend", backend, "--device", "cpu", "--top", "1",
        cwd=finished,
    )  # fmt: skip
    assert code == 0
    assert errors == f"runs/digits/bundle: {backend}, fp32, cpu\n"
    named = [line.split(": ")[1].split()[0] for line in output.splitlines()]
    assert named == [path.name[0] for path in digit_files]


def test_a_picture_called_like_a_file_that_is_no_bundle_is_a_picture(
    finished: Path, digit_files: Sequence[Path], inside: Inside
) -> None:
    code, output, _ = inside("predict", digit_files[3], digit_files[4], "--top", "1", cwd=finished)
    assert (code, len(output.splitlines())) == (0, 2)


def test_a_missing_package_is_named_with_its_cure(
    finished: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name == "samdeploy.train" or name.startswith("samdeploy.train.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)  # Python's own way to say "not installed"
    code, _, errors = inside("train", cwd=finished)
    assert code == 1
    assert_one_line(errors, "the package 'torch' is not installed; pip install 'samdeploy[train]'")


class Started:
    """A samdeploy that runs beside the test."""

    def __init__(
        self, arguments: Sequence[str | Path], cwd: Path, environment: dict[str, str], options: Sequence[str]
    ) -> None:
        self.errors = cwd / "stderr.txt"
        line = [sys.executable, *options, "-m", "samdeploy.cli", *map(str, arguments)]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(line, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=errors)

    def wait_until(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + 300
        while not happened():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < end, self.errors.read_text()
            time.sleep(0.05)

    def interrupt(self, how: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(how)
        return self.process.wait(timeout=120)


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def begin(*arguments: str | Path, cwd: Path, options: Sequence[str] = ()) -> Started:
        started.append(Started(arguments, cwd, environment, options))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.wait()


# A shell shows 130 for both.  Python ends itself with the signal where Ctrl-C met a text that was being executed, as
# when dataclasses are made during an import, whatever the program does with the exception afterwards (pythonrun.c).
INTERRUPTED = (130, -signal.SIGINT)


def has_reader(pipe: Path) -> bool:
    """Whether some process waits in open() to read from this pipe, or has read access to it."""
    try:
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def test_ctrl_c_in_training_keeps_the_best_weights(
    tmp_path: Path, start: Callable[..., Started], inside: Inside
) -> None:
    started = start("train", *TINY, "--set", "training.epochs=1000", cwd=tmp_path)
    started.wait_until(lambda: "epoch    1/1000" in started.errors.read_text())
    assert started.interrupt() in INTERRUPTED
    errors = started.errors.read_text()
    assert "Traceback" not in errors
    assert "stopped by SIGINT at epoch " in errors
    (run,) = (tmp_path / "runs").iterdir()
    record = open_run(run)
    assert record.status == "interrupted"
    assert record.best_epoch >= 1
    assert record.test_top1 is None
    assert f"The best weights (epoch {record.best_epoch}, " in errors
    assert (run / WEIGHTS_FILE).is_file() and (run / HISTORY_FILE).is_file()
    # What was kept can be exported.
    code, output, _ = inside("export", "--engine", "onnxruntime", cwd=tmp_path)
    assert code == 0
    assert open_bundle(output.splitlines()[-1]).provenance["run_status"] == "interrupted"


def test_ctrl_c_in_export(tmp_path: Path, start: Callable[..., Started]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    os.mkfifo(run / RUN_FILE)  # reading it takes for ever
    started = start("export", run, cwd=tmp_path)
    started.wait_until(lambda: has_reader(run / RUN_FILE))
    assert started.interrupt() in INTERRUPTED
    assert started.errors.read_text() == "samdeploy: interrupted\n"
    assert [path.name for path in run.iterdir()] == [RUN_FILE]


def test_ctrl_c_in_predict(finished: Path, tmp_path: Path, start: Callable[..., Started]) -> None:
    os.mkfifo(tmp_path / "slow.png")
    bundle = finished / "runs/digits/bundle"
    started = start("predict", bundle, tmp_path / "slow.png", cwd=tmp_path)
    started.wait_until(lambda: has_reader(tmp_path / "slow.png"))
    assert started.interrupt() in INTERRUPTED
    errors = started.errors.read_text()
    assert errors.splitlines()[-1] == "samdeploy: interrupted"
    assert "Traceback" not in errors


def test_ctrl_c_in_eval(copy_of_bundle: Path, tmp_path: Path, start: Callable[..., Started]) -> None:
    # Python says on standard error what it has imported.  The runtime comes once PyTorch's answers are there, and what
    # follows, a whole test set and hundreds of timed runs, takes longer than a signal.
    arguments = ("eval", copy_of_bundle, "--backend", "onnxruntime")
    started = start(*arguments, cwd=tmp_path, options=["-X", "importtime"])
    started.wait_until(lambda: "| onnxruntime\n" in started.errors.read_text())
    assert started.interrupt() in INTERRUPTED
    errors = started.errors.read_text()
    assert errors.splitlines()[-1] == "samdeploy: interrupted"
    assert "Traceback" not in errors
    assert not (copy_of_bundle / "eval.json").exists()


def test_a_batch_system_that_ends_training_keeps_the_best_weights(
    tmp_path: Path, start: Callable[..., Started]
) -> None:
    started = start("train", *TINY, "--set", "training.epochs=1000", cwd=tmp_path)
    started.wait_until(lambda: "epoch    1/1000" in started.errors.read_text())
    assert started.interrupt(signal.SIGTERM) == 143
    assert "Traceback" not in started.errors.read_text()
    (run,) = (tmp_path / "runs").iterdir()
    record = open_run(run)
    assert record.status == "interrupted"
    assert record.best_epoch >= 1
    assert (run / WEIGHTS_FILE).is_file()
    assert not [path for path in run.iterdir() if path.name.startswith(".")], "a temporary file was left"


def test_help_is_quick_and_complete(tmp_path: Path, command: Command) -> None:
    done = command("--help", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("train", "export", "eval", "predict"):
        assert f"\n  {name} " in done.stdout
