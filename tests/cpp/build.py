"""Building the C++ library once for all tests, in `build/cpp`, where the next run finds it again."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import packages

SOURCE = Path(__file__).parents[2] / "cpp"
# "address" (AddressSanitizer and UndefinedBehaviorSanitizer) or "thread" (ThreadSanitizer): how the programs that all
# tests of this folder start are built.  test_sanitizers.py asks for both by itself, for a short form of the tests.
SANITIZE = os.environ.get("SAMDEPLOY_CPP_SANITIZE", "")
_SUPPRESSIONS = Path(__file__).parent / "suppressions"
# For programs built so: oneTBB must load its libraries in the one way that AddressSanitizer allows.
SANITIZER_SETTINGS = {
    "ASAN_OPTIONS": "detect_leaks=1",
    "LSAN_OPTIONS": f"suppressions={_SUPPRESSIONS / 'leak.txt'}:print_suppressions=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": f"suppressions={_SUPPRESSIONS / 'thread.txt'}:halt_on_error=1:second_deadlock_stack=1",
    "TBB_ENABLE_SANITIZERS": "1",
}

# Folder of onnxruntime_c_api.h, where it is not among the system's headers (Debian 13: libonnxruntime-dev).
ONNXRUNTIME_HEADERS = os.environ.get("SAMDEPLOY_ONNXRUNTIME_INCLUDE", "")


@dataclass(frozen=True, slots=True)
class Build:
    """Where the built files lie."""

    folder: Path
    probe: Path
    misuse: Path
    classify: Path
    classify_c: Path
    worker: Path
    cuda_feeder: Path
    backends: tuple[str, ...]


def missing() -> str | None:
    """Why the library cannot be built here; None where it can."""
    if importlib.util.find_spec("openvino") is None:
        return packages.reason("cpp", ["'samdeploy[openvino]'"], "pip")
    return packages.lacking("cpp")


def build(sanitize: str = SANITIZE, targets: Sequence[str] = ("all",)) -> Build:
    """Configure and compile; only what changed is compiled again.

    Args:
        sanitize: "", "address" or "thread".
        targets: What is compiled, with all that it needs.

    Raises:
        AssertionError: CMake or the compiler failed; the text holds its last lines.
    """
    folder = SOURCE.parent / "build" / f"cpp{'-' if sanitize else ''}{sanitize}"
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "Python3_EXECUTABLE": sys.executable,
        "CMAKE_BUILD_TYPE": "Release",
        "SAMDEPLOY_BUILD_TESTS": "ON",
        "SAMDEPLOY_BUILD_EXAMPLES": "ON",
        "SAMDEPLOY_SANITIZE": sanitize,
        "SAMDEPLOY_BUILD_FUZZERS": "ON" if sanitize == "address" else "OFF",
        "CMAKE_COMPILE_WARNING_AS_ERROR": "ON",
        # Several sources in one, a third faster; the build without sanitizers is the one that users make.
        "CMAKE_UNITY_BUILD": "ON" if sanitize else "OFF",
    }
    if ONNXRUNTIME_HEADERS and not sanitize:
        options["SAMDEPLOY_ONNXRUNTIME_INCLUDE"] = ONNXRUNTIME_HEADERS
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run of the tests waits instead of breaking the first one's files
        call("cmake", *generator, "-S", SOURCE, "-B", folder, *(f"-D{key}={value}" for key, value in options.items()))
        call("cmake", "--build", folder, "--parallel", str(os.cpu_count() or 1), "--target", *targets)
    examples = folder / "examples"
    backends = sorted(path.stem.removeprefix("libsamdeploy-") for path in folder.glob("libsamdeploy-*.so"))
    return Build(
        folder,
        probe=folder / "samdeploy-probe",
        misuse=folder / "samdeploy-misuse",
        classify=examples / "samdeploy-classify",
        classify_c=examples / "classify",
        worker=examples / "samdeploy-worker",
        cuda_feeder=examples / "cuda-feeder",
        backends=tuple(backends),
    )


def call(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program that must succeed; gives its output."""
    # On a machine with other work a build under sanitizers takes many minutes.
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def run(program: str | Path, *arguments: str | Path | int, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a program that was built; how it ends is for the caller to judge."""
    command, environment = [str(program), *map(str, arguments)], {**os.environ, **SANITIZER_SETTINGS, **settings}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
