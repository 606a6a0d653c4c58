"""The examples, and the library as a user gets it: installed, found by CMake and by pkg-config."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

import samdeploy
from samdeploy.bundle import Bundle
from tests.conftest import Command
from tests.cpp.build import SANITIZE, SANITIZER_SETTINGS, SOURCE, Build, call


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **SANITIZER_SETTINGS}
    return subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_lines_of_predict(
    built: Build, command: Command, digits_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path
) -> None:
    (tmp_path / 'no"picture.png').write_text("text")
    files = [*digit_files, tmp_path / 'no"picture.png']
    found = run(built.classify, digits_bundle.root, *files)
    arguments = ("--backend", "openvino", "--json")
    expected = command("predict", *arguments, digits_bundle.root, *files, cwd=tmp_path)
    assert (found.returncode, expected.returncode) == (1, expected.returncode), found.stderr
    lines = [[json.loads(line) for line in text.splitlines()] for text in (found.stdout, expected.stdout)]
    assert len(lines[0]) == len(lines[1]) == 6
    for mine, theirs in zip(*lines, strict=True):
        assert list(mine) == list(theirs)
        assert (mine["image"], mine.get("label"), mine.get("index")) == (
            theirs["image"], theirs.get("label"), theirs.get("index"),
        )  # fmt: skip
        assert [each["label"] for each in mine.get("top", [])] == [each["label"] for each in theirs.get("top", [])]
        # The logits are equal to the bit; exp() of numpy and of the C library may differ in the last one.
        for one, other in zip(mine.get("top", []), theirs.get("top", []), strict=True):
            assert one["probability"] == pytest.approx(other["probability"], rel=1e-14)
    assert [line.get("label") for line in lines[0]] == ["0", "1", "2", "3", "4", None]
    assert "expected JPEG or PNG" in lines[0][5]["error"]


def test_the_program_in_c(built: Build, digits_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path) -> None:
    done = run(built.classify_c, digits_bundle.root, digit_files[3])
    assert re.fullmatch(r"3 (0\.\d{4}|1\.0000)\n", done.stdout), done.stderr
    done = run(built.classify_c, digits_bundle.root, tmp_path / "none.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"classify: {tmp_path / 'none.png'}: no such file\n"


@pytest.mark.skipif(SANITIZE, reason="a library with AddressSanitizer is not for use by other programs")
def test_an_installed_library_is_found_and_used(
    built: Build, digits_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path
) -> None:
    prefix = tmp_path / "prefix"
    call("cmake", "--install", built.folder, "--prefix", prefix)
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    examples = tmp_path / "examples"
    call("cmake", *generator, "-S", SOURCE.parent / "examples", "-B", examples, f"-DCMAKE_PREFIX_PATH={prefix}")
    call("cmake", "--build", examples)
    done = run(examples / "samdeploy-classify", digits_bundle.root, digit_files[4])
    assert json.loads(done.stdout)["label"] == "4", done.stderr
    [package] = prefix.rglob("samdeploy.pc")
    text = package.read_text()
    assert f"Version: {samdeploy.__version__}\n" in text
    if shutil.which("pkg-config"):
        environment = {**os.environ, "PKG_CONFIG_PATH": str(package.parent)}
        flags = subprocess.run(
            ["pkg-config", "--cflags", "--libs", f"--define-variable=prefix={prefix}", "samdeploy"],
            env=environment, capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        library = package.parents[1]
        program = tmp_path / "c"
        call("cc", SOURCE.parent / "examples" / "classify.c", "-o", program, f"-Wl,-rpath,{library}", *flags)
        assert run(program, digits_bundle.root, digit_files[2]).stdout.startswith("2 ")


@pytest.mark.skipif(SANITIZE, reason="Python itself is not built with AddressSanitizer")
def test_versions_and_exported_names(built: Build) -> None:
    path = built.folder / "libsamdeploy.so"
    library = ctypes.CDLL(str(path))
    library.samdeploy_version.restype = ctypes.c_char_p
    assert library.samdeploy_version().decode() == samdeploy.__version__
    assert library.samdeploy_abi_version() == 1
    assert (built.folder / "libsamdeploy.so.1").exists()
    header = (SOURCE / "include" / "samdeploy.h").read_text()
    declared = set(re.findall(r"^SAMDEPLOY_API .*?(samdeploy_\w+)\(", header, re.MULTILINE))
    symbols = call("nm", "-D", "--defined-only", path).splitlines()
    exported = {line.split()[-1] for line in symbols if line.split()[-2] == "T"}
    assert len(declared) == 12
    assert exported == declared
