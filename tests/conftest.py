"""Fixtures shared by all tests: one real training, one real bundle, and the command line as a user starts it."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os

# Before torch is imported.  Two threads give every machine the same order of sums; threads that sleep instead of
# spinning keep several test runs on one machine from slowing each other down tenfold.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import samdeploy
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.names import MANIFEST
from tests.cam_bundle import write_cam_bundle
from tests.certain_digits import write_certain_digits
from tests.cli.typed import Inside
from tests.narrow import SETTINGS, make_narrow
from tests.packages import pytest_sessionfinish, pytest_terminal_summary  # noqa: F401 - hooks

Command = Callable[..., "subprocess.CompletedProcess[str]"]

# A shell that starts the tests in the background lets them, and every process they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that no process of a parallel run is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or fills the user's cache; programs that tests start inherit this."""
    os.environ["SAMDEPLOY_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], Path]], Path]:
    """`once(name, make)`: what `make(folder)` gives; of several parallel test processes the first to ask makes it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each process has a folder of its own in this one

    def made(name: str, make: Callable[[Path], Path]) -> Path:
        folder = root / f"once-{name}"
        folder.mkdir(exist_ok=True)
        with (folder / "lock").open("a+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.seek(0)
            found = lock.read()
            if not found:
                found = str(make(folder))
                lock.write(found)
        return Path(found)

    return made


@pytest.fixture(scope="session")
def digits_run(once: Callable[[str, Callable[[Path], Path]], Path]) -> Path:
    """The directory of a complete run: SAM-ResNet-18 with more than 90 % on the test digits.  Do not write into it.

    Half of the training images and two epochs are enough for that, in a few seconds of two cores.
    """
    from samdeploy.train.loop.train import train
    from samdeploy.train.recipe.load import load_recipe

    settings = ("training.epochs=2", "training.batch_size=32", "training.device=cpu", "training.precision=fp32")
    settings += ("data.val_fraction=0.5",)
    return once("digits", lambda folder: train(load_recipe("digits", list(settings)), runs_root=folder / "runs"))


@pytest.fixture(scope="session")
def digits_bundle(digits_run: Path, once: Callable[[str, Callable[[Path], Path]], Path]) -> Bundle:
    """The bundle of `digits_run` with every engine that can be built here.  Do not write into it."""
    from samdeploy.export import ExportOptions, export_run

    return open_bundle(once("bundle", lambda _: export_run(digits_run, ExportOptions()).bundle))


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """What `make_narrow` says while the tests of a file run: whoever opens `narrow_bundle` with PyTorch needs it."""
    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch)
        yield


@pytest.fixture(scope="session")
def narrow_run(once: Callable[[str, Callable[[Path], Path]], Path]) -> Path:
    """As `digits_run`, of a network of a sixteenth of its weights.  Do not write into it."""
    from samdeploy.train.loop.train import train
    from samdeploy.train.recipe.load import load_recipe

    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch)
        recipe = load_recipe("digits", list(SETTINGS))
        return once("narrow", lambda folder: train(recipe, runs_root=folder / "runs"))


@pytest.fixture(scope="session")
def narrow_bundle(narrow_run: Path, once: Callable[[str, Callable[[Path], Path]], Path]) -> Bundle:
    """The bundle of `narrow_run` with every engine that can be built here.  Do not write into it."""
    from samdeploy.export import ExportOptions, export_run

    with pytest.MonkeyPatch.context() as patch:
        make_narrow(patch)
        return open_bundle(once("narrow bundle", lambda _: export_run(narrow_run, ExportOptions()).bundle))


@pytest.fixture(scope="session")
def timm_run(once: Callable[[str, Callable[[Path], Path]], Path]) -> Path:
    """The directory of a complete run of timm's smallest ResNet on the digits.  Do not write into it."""
    pytest.importorskip("timm", reason="pip install 'samdeploy[timm]'")
    from samdeploy.train.loop.train import train
    from samdeploy.train.recipe.load import load_recipe

    settings = (*SETTINGS, "model.arch=timm:test_resnet", "training.learning_rate=6e-3", "size=40")  # maps of 2x2 cells
    return once("timm", lambda folder: train(load_recipe("digits", list(settings)), runs_root=folder / "runs"))


@pytest.fixture(scope="session")
def timm_bundle(timm_run: Path, once: Callable[[str, Callable[[Path], Path]], Path]) -> Bundle:
    """The bundle of `timm_run` with graphs in FP32, FP16 and INT8.  Do not write into it."""
    from samdeploy.export import ExportOptions, export_run

    options = ExportOptions(precision="int8", max_drop=100)
    return open_bundle(once("timm bundle", lambda _: export_run(timm_run, options).bundle))


@pytest.fixture(scope="session")
def cam_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """What `write_cam_bundle` makes.  Do not write into it."""
    return write_cam_bundle(tmp_path_factory.mktemp("maps"))


@pytest.fixture
def copy_of_bundle(digits_bundle: Bundle, tmp_path: Path) -> Path:
    """The folder of a copy of the bundle, free to be damaged."""
    root = tmp_path / "copy" / "bundle"
    shutil.copytree(digits_bundle.root, root)
    return root


@pytest.fixture(scope="session")
def seal() -> Callable[[Path], Bundle]:
    """`seal(root)`: make the manifest state the hashes of the files as they are now, and open the bundle.

    What a careless or hostile author of a bundle can do: nothing but the engine's answers shows the change.
    """

    def rewrite(root: Path) -> Bundle:
        manifest = json.loads((root / MANIFEST).read_text())
        for file in manifest["files"]:
            content = (root / file["path"]).read_bytes()
            file["sha256"], file["bytes"] = hashlib.sha256(content).hexdigest(), len(content)
        (root / MANIFEST).write_text(json.dumps(manifest))
        return open_bundle(root)

    return rewrite


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Environment variables for a samdeploy started in any folder."""
    source = str(Path(samdeploy.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


@pytest.fixture(scope="session")
def command(environment: dict[str, str]) -> Command:
    """`command(*arguments, cwd=folder)`: run `samdeploy` in a process of its own."""

    def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "samdeploy.cli", *map(str, arguments)]
        return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)

    return run


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
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


@pytest.fixture
def short_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty timed runs instead of three hundred, after one window of warm-up; checks up to batch size 3, 5 repeats.

    For evaluations in this process whose figures are not the question.
    """
    monkeypatch.setattr("samdeploy.evaluate.latency.measure.RUNS", 30)
    monkeypatch.setattr("samdeploy.evaluate.latency.measure.LEAST_S", 0.0)
    monkeypatch.setattr("samdeploy.evaluate.latency.measure.WARM_UP_LIMIT_S", 0.0)
    monkeypatch.setattr("samdeploy.evaluate.evaluate_engine.largest_batch", lambda *_: 3)
    from samdeploy.evaluate.consistency.run import check_consistency

    few = functools.partial(check_consistency, repeats_wanted=5)
    monkeypatch.setattr("samdeploy.evaluate.evaluate_engine.check_consistency", few)


@pytest.fixture(scope="session")
def digit_files(digits_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    """Five 8x8 digits as PNG files, "0.png" to "4.png", that the bundle's network knows for certain."""
    return write_certain_digits(digits_bundle, tmp_path_factory.mktemp("images"))
