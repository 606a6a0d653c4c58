"""Building the C++ library once for all tests, in `build/cpp`, where the next run finds it again."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "cpp"
# Set to 1: the programs that the tests start are built with AddressSanitizer and UndefinedBehaviorSanitizer.
SANITIZE = os.environ.get("SAMDEPLOY_CPP_SANITIZE") == "1"
# For programs built so: oneTBB must load its libraries in the one way that AddressSanitizer allows.
SANITIZER_SETTINGS = {
    "ASAN_OPTIONS": "detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TBB_ENABLE_SANITIZERS": "1",
}

# Header -> Debian package.
_HEADERS = {
    "nlohmann/json.hpp": "nlohmann-json3-dev",
    "jpeglib.h": "libjpeg62-turbo-dev",
    "png.h": "libpng-dev",
    "openssl/evp.h": "libssl-dev",
}


@dataclass(frozen=True, slots=True)
class Build:
    """Where the built files lie."""

    folder: Path
    probe: Path
    classify: Path
    classify_c: Path


def missing() -> str | None:
    """Why the library cannot be built here, with the cure; None where it can."""
    for program in ("cmake", "c++"):
        if shutil.which(program) is None:
            return f"{program} is not installed: apt-get install cmake g++"
    try:
        import openvino  # noqa: F401
    except ImportError:
        return "openvino is not installed: pip install 'samdeploy[openvino]'"
    lacking = [package for header, package in _HEADERS.items() if not _has(header)]
    return f"headers are missing: apt-get install {' '.join(lacking)}" if lacking else None


def build() -> Build:
    """Configure and compile; only what changed is compiled again.

    Raises:
        AssertionError: CMake or the compiler failed; the text holds its last lines.
    """
    folder = SOURCE.parent / "build" / ("cpp-sanitize" if SANITIZE else "cpp")
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "Python3_EXECUTABLE": sys.executable,
        "CMAKE_BUILD_TYPE": "Release",
        "SAMDEPLOY_BUILD_TESTS": "ON",
        "SAMDEPLOY_BUILD_EXAMPLES": "ON",
        "SAMDEPLOY_SANITIZE": "ON" if SANITIZE else "OFF",
        "CMAKE_COMPILE_WARNING_AS_ERROR": "ON",
    }
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run of the tests waits instead of breaking the first one's files
        call("cmake", *generator, "-S", SOURCE, "-B", folder, *(f"-D{key}={value}" for key, value in options.items()))
        call("cmake", "--build", folder)
    examples = folder / "examples"
    return Build(folder, folder / "samdeploy-probe", examples / "samdeploy-classify", examples / "classify")


def call(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program that must succeed; gives its output."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _has(header: str) -> bool:
    source = f"#include <cstdio>\n#include <{header}>\n"
    command = ["c++", "-x", "c++", "-E", "-o", os.devnull, "-"]
    return subprocess.run(command, input=source, text=True, capture_output=True, check=False).returncode == 0
