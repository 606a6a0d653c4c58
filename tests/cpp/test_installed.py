"""The library as a user gets it: installed, found by CMake and by pkg-config, or built from a wheel's sources."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

import samdeploy
from samdeploy.bundle import Bundle
from tests.cpp.build import SANITIZE, SOURCE, Build, call, run

pytestmark = pytest.mark.slow


@pytest.mark.skipif(bool(SANITIZE), reason="the program would need the sanitizer's library, too")
def test_the_snippet_of_the_readme_names_what_it_reads(built: Build, digits_bundle: Bundle, tmp_path: Path) -> None:
    snippets = {
        re.findall(r"^```cpp\n(.*?)^```", (SOURCE.parent / page).read_text(), re.M | re.S)[0]
        for page in ("README.md", "docs/embedding.md")
    }
    (snippet,) = snippets
    include, body = snippet.split("\n", 1)
    program = f"#include <iostream>\n{include}\nint main() {{\n{body}}}\n"
    assert f"```cpp\n{program}```" in (SOURCE.parent / "docs" / "tutorials" / "cpp.md").read_text()
    (tmp_path / "main.cpp").write_text(program)
    (tmp_path / "bundle").symlink_to(digits_bundle.root)
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg", "WEBP")
    call("c++", "-std=c++17", "main.cpp", "-I", SOURCE / "include", "-L", built.folder, "-lsamdeploy", cwd=tmp_path)
    settings = {**os.environ, "LD_LIBRARY_PATH": str(built.folder)}
    done = subprocess.run([tmp_path / "a.out"], cwd=tmp_path, env=settings, capture_output=True, text=True, check=True)
    assert done.stderr == "photo.jpg: is WebP; expected JPEG or PNG; convert it first\n"


@pytest.mark.skipif(bool(SANITIZE), reason="a library with AddressSanitizer is not for use by other programs")
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
            ["pkg-config", "--cflags", "--libs", "samdeploy"],
            env=environment, capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        library = package.parents[1]
        program = tmp_path / "c"
        call("cc", SOURCE.parent / "examples" / "classify.c", "-o", program, f"-Wl,-rpath,{library}", *flags)
        assert run(program, digits_bundle.root, digit_files[2]).stdout.startswith("2 ")


@pytest.mark.skipif(bool(SANITIZE), reason="a library with AddressSanitizer is not for use by other programs")
def test_sources_are_found_by_cmake_from_a_read_only_folder(
    built: Build, digits_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path
) -> None:
    """What a wheel carries: `find_package(samdeploy)` builds the library inside the application's own tree."""
    installed = tmp_path / "environment"
    sources = installed / "lib" / "python3.99" / "site-packages" / "samdeploy" / "cpp"
    for part in ("CMakeLists.txt", "cmake", "include", "src"):
        copy = shutil.copytree if (SOURCE / part).is_dir() else shutil.copy
        sources.mkdir(parents=True, exist_ok=True)
        copy(SOURCE / part, sources / part)
    application = tmp_path / "application"
    application.mkdir()
    (application / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(application CXX C)\n"
        "find_package(samdeploy 0.1 REQUIRED)\nadd_executable(application main.cpp)\n"
        "target_link_libraries(application PRIVATE samdeploy::samdeploy)\ninclude(GNUInstallDirs)\n"
        'set_target_properties(application PROPERTIES INSTALL_RPATH "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")\n'
        "install(TARGETS application)\n"
    )
    (application / "main.cpp").write_text(
        "#include <samdeploy.hpp>\n#include <iostream>\nint main(int, char** argument) {\n"
        "  std::cout << samdeploy::Classifier::open(argument[1]).predict(argument[2]).label << std::endl;\n}\n"
    )
    for path in (sources, *sources.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(sources.rglob("*"))
    folder = tmp_path / "build"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    package = [f"-Dsamdeploy_DIR={sources / 'cmake' / 'source'}"]
    # The environment's own Python is asked for OpenVINO, unless another one is named.
    own, other = installed / "bin" / "python3", tmp_path / "python"
    for python in (own, other):
        python.parent.mkdir(exist_ok=True)
        python.write_text(f'#!/bin/sh\ntouch "$0.asked"\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o755)
    asked = [python.with_name(f"{python.name}.asked") for python in (own, other)]
    named = [*package, f"-DPython3_EXECUTABLE={other}"]
    call("cmake", *generator, "-S", application, "-B", tmp_path / "named", *named)
    assert [mark.exists() for mark in asked] == [False, True]
    # How fast it classifies is no matter here; how fast it compiles is.
    quick = ("-DCMAKE_CXX_FLAGS_RELEASE=-O0", "-DCMAKE_UNITY_BUILD=ON")
    call("cmake", *generator, "-S", application, "-B", folder, *package, *quick)
    assert asked[0].exists()
    call("cmake", "--build", folder)
    assert run(folder / "application", digits_bundle.root, digit_files[3]).stdout == "3\n"
    prefix = tmp_path / "prefix"
    call("cmake", "--install", folder, "--prefix", prefix)
    shutil.rmtree(folder)  # what is installed needs nothing of it
    assert run(prefix / "bin" / "application", digits_bundle.root, digit_files[3]).stdout == "3\n"
    assert not [path for path in prefix.rglob("*") if path.suffix in {".h", ".hpp", ".cmake", ".pc"}]
    assert sorted(sources.rglob("*")) == before
    for path in (sources, *sources.rglob("*")):
        path.chmod(0o755)
    text = (application / "CMakeLists.txt").read_text()
    (application / "CMakeLists.txt").write_text(text.replace("samdeploy 0.1 REQUIRED", "samdeploy 0.2 REQUIRED"))
    done = run(Path(shutil.which("cmake") or "cmake"), "-S", application, "-B", tmp_path / "newer", *package)
    assert done.returncode != 0
    assert "0.2" in done.stderr


@pytest.mark.skipif(bool(SANITIZE), reason="Python itself is not built with AddressSanitizer")
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
    assert len(declared) == 13
    assert exported == declared
