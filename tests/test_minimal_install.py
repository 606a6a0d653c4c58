"""What an application installs: the wheel, numpy, Pillow and one runtime; no PyTorch, and the same answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import samdeploy
from samdeploy.bundle import Bundle
from tests import packages
from tests.cpp.build import missing

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).parents[1]
# The same runtime on the same machine; only the versions of numpy and of the runtime may differ.
PROBABILITY = 1e-6
Command = Callable[..., "subprocess.CompletedProcess[str]"]

# Without the variables that would lead back to the sources or to another environment.
ENVIRONMENT = {
    key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
}


def _run(*line: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, line)), cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False
    )


def _install(*line: str | Path, cwd: Path) -> None:
    """Run pip; a machine that reaches no package index cannot do this test."""
    done = _run(*line, "--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "60", cwd=cwd)
    if done.returncode:
        signs = ("Failed to establish a new connection", "Max retries exceeded", "Temporary failure in name resolution",
                 "ProxyError", "ReadTimeoutError", "ConnectTimeoutError")  # fmt: skip
        unreachable = [text for text in done.stderr.splitlines() if any(sign in text for sign in signs)]
        if unreachable:
            pytest.skip(f"the package index cannot be reached: {unreachable[0].strip()}")
        pytest.fail(f"{' '.join(map(str, line))}:\n{done.stderr}")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources, so that nothing is left among them."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(SOURCE / name, source / name)
    for name in ("samdeploy", "cpp"):
        shutil.copytree(SOURCE / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    _install(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder / "dist", source, cwd=folder)
    (path,) = (folder / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with samdeploy[onnxruntime]."""
    folder = tmp_path_factory.mktemp("minimal")
    made = _run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    if made.returncode:
        pytest.skip(f"this Python cannot make virtual environments: {made.stderr.strip() or made.stdout.strip()}")
    binaries = folder / "venv" / "bin"
    # Compiled are only the modules that the tests import, when they do.
    _install(binaries / "python", "-m", "pip", "install", "--no-compile", f"{wheel}[onnxruntime]", cwd=folder)
    return binaries


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"samdeploy-{samdeploy.__version__}-py3-none-any.whl"
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"samdeploy", f"samdeploy-{samdeploy.__version__}.dist-info"}
    recipes = {path.name for path in (SOURCE / "samdeploy" / "recipes").glob("*.toml")}
    assert "digits.toml" in recipes
    assert {Path(name).name for name in names if name.startswith("samdeploy/recipes/")} == recipes
    assert "samdeploy/py.typed" in names
    native = {name.removeprefix("samdeploy/cpp/") for name in names if name.startswith("samdeploy/cpp/")}
    assert {
        "CMakeLists.txt",
        "include/samdeploy.h",
        "include/samdeploy.hpp",
        "cmake/source/samdeployConfig.cmake",
    } <= native
    assert {name.partition("/")[0] for name in native} == {"CMakeLists.txt", "cmake", "include", "src"}
    for part in ("cmake", "include", "src"):
        for path in (SOURCE / "cpp" / part).rglob("*.*"):
            assert archive.read(f"samdeploy/cpp/{path.relative_to(SOURCE / 'cpp').as_posix()}") == path.read_bytes()


def test_nothing_large_came_with_it(installed: Path) -> None:
    listed = _run(installed / "python", "-m", "pip", "list", "--format", "json", cwd=installed)
    packages = {entry["name"].lower() for entry in json.loads(listed.stdout)}
    assert {"samdeploy", "numpy", "pillow", "typer", "onnxruntime"} <= packages
    unwanted = {"torch", "torchvision", "safetensors", "scikit-learn", "scipy", "tomlkit", "onnx", "openvino"}
    assert packages & unwanted == set()


def test_help(installed: Path, tmp_path: Path) -> None:
    done = _run(installed / "samdeploy", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout


def test_predict_gives_the_same_answers(
    installed: Path, digits_bundle: Bundle, digit_files: Sequence[Path], command: Command, tmp_path: Path
) -> None:
    arguments = ["predict", digits_bundle.root, *digit_files, "--backend", "onnxruntime", "--device", "cpu", "--json"]
    there = _run(installed / "samdeploy", *arguments, cwd=tmp_path)
    assert there.returncode == 0, there.stderr
    assert f"{digits_bundle.root}: onnxruntime, fp32, cpu\n" in there.stderr
    here = command(*arguments, cwd=tmp_path)
    assert here.returncode == 0
    found, expected = ([json.loads(line) for line in done.stdout.splitlines()] for done in (there, here))
    assert [answer["label"] for answer in found] == [answer["label"] for answer in expected] == list("01234")
    for one, other in zip(found, expected, strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=PROBABILITY)
        assert [entry["label"] for entry in one["top"][:1]] == [one["label"]]
        shares = {entry["label"]: entry["probability"] for entry in other["top"]}
        assert {entry["label"]: entry["probability"] for entry in one["top"]} == pytest.approx(shares, abs=PROBABILITY)


def test_auto_takes_the_runtime_that_is_there(installed: Path, digits_bundle: Bundle, digit_files: Sequence[Path],
                                              tmp_path: Path) -> None:  # fmt: skip
    code = (
        "import sys; from samdeploy import Classifier; c = Classifier.open(sys.argv[1]); p = c.predict(sys.argv[2]); "
    )
    code += (
        "print(c.session.backend, p.label, *[name for name in ('torch', 'openvino', 'rich') if name in sys.modules])"
    )
    done = _run(installed / "python", "-c", code, digits_bundle.root, digit_files[3], cwd=tmp_path)
    assert done.stdout == "onnxruntime 3\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (["train"], "pip install 'samdeploy[train]'"),
        (["export"], "pip install 'samdeploy[export]'"),
        (["eval"], "pip install 'samdeploy[train]'"),
        (["predict", "--backend", "pytorch", "x.png"], "pip install 'samdeploy[train]'"),
        (["predict", "--backend", "openvino", "x.png"], "pip install 'samdeploy[openvino]'"),
        (["predict", "--backend", "tensorrt", "x.png"], "samdeploy[tensorrt]"),
    ],
)
def test_what_is_missing_is_named_with_its_cure(
    installed: Path, digits_run: Path, digits_bundle: Bundle, tmp_path: Path, arguments: list[str], cure: str
) -> None:
    (tmp_path / "runs").symlink_to(digits_run.parent)
    done = _run(installed / "samdeploy", *arguments, cwd=tmp_path)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("taking the newest")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("samdeploy: ") and cure in lines[0]
    assert "Traceback" not in done.stderr


PROJECT = """
cmake_minimum_required(VERSION 3.18)
project(application LANGUAGES C CXX)
find_package(samdeploy 0.1 REQUIRED)
"""


def test_a_c_program_finds_the_header(installed: Path, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip(packages.reason("cpp", ["gcc"]))
    code = "import samdeploy, sys; print(samdeploy.include(), *[m for m in ('numpy', 'PIL') if m in sys.modules])"
    done = _run(installed / "python", "-c", code, cwd=tmp_path)
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(installed.parent), done
    (tmp_path / "main.c").write_text("#include <samdeploy.h>\nint main(void) { return SAMDEPLOY_OK; }\n")
    done = _run(compiler, "-Wall", "-Werror", "-I", folder, tmp_path / "main.c", "-o", tmp_path / "main", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert _run(tmp_path / "main", cwd=tmp_path).returncode == 0


def test_a_cmake_project_finds_the_library_through_pip(installed: Path, tmp_path: Path) -> None:
    """Sources and configuration come from the installed wheel; OpenVINO from the environment of the tests.

    That such sources build: tests/cpp/test_installed.py.
    """
    reason = missing()
    if reason:
        pytest.skip(reason)
    (tmp_path / "CMakeLists.txt").write_text(PROJECT)
    ask = _run(installed / "python", "-c", "import samdeploy; print(samdeploy.cmake_dir())", cwd=tmp_path)
    before = _files(Path(ask.stdout.strip()).parents[1])
    done = _run(
        "cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-Dsamdeploy_DIR={ask.stdout.strip()}",
        f"-DPython3_EXECUTABLE={sys.executable}", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "samdeploy: runtimes" in done.stdout and "openvino" in done.stdout
    assert _files(Path(ask.stdout.strip()).parents[1]) == before  # nothing was written among the sources


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
