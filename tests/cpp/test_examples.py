"""The examples, and the library as a user gets it: installed, found by CMake and by pkg-config."""

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

import numpy as np
import pytest
from PIL import Image

import samdeploy
from samdeploy import Classifier
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.bundle.names import MANIFEST
from tests.conftest import Command
from tests.cpp import corpus
from tests.cpp.build import SANITIZE, SANITIZER_SETTINGS, SOURCE, Build, call

pytestmark = pytest.mark.slow


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **SANITIZER_SETTINGS}
    return subprocess.run(
        [*map(str, command)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_lines_of_predict(
    built: Build, command: Command, digits_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path
) -> None:
    """The same bytes, but for what each decoder says in its own words, which stands in brackets."""
    (tmp_path / 'no"image.png').write_text("text")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "cut.jpg").write_bytes(corpus.jpeg(Image.fromarray(corpus.pixels(40, 50)))[:-200])
    (tmp_path / "cut.png").write_bytes(corpus.png(40, 30, 8, 2, seed=1)[:-60])
    odd = [tmp_path / "Löwe\t\x7f.jpg", tmp_path / os.fsdecode(b"L\xf6we\b.jpg")]
    for path in odd:
        path.write_bytes(corpus.jpeg(Image.fromarray(corpus.pixels(70, 50)), quality=80))
    many = [tmp_path / f"{index}.png" for index in range(40)]  # more than one group
    for index, path in enumerate(many):
        path.write_bytes(corpus.png(9 + index, 30, 8, 2, seed=index))
    many.append(too_far_off(tmp_path))
    damaged = [tmp_path / name for name in ('no"image.png', "cut.jpg", "cut.png", "empty.jpg", "none.png")]
    arguments = ("--backend", "openvino", "--json")
    for code, files in ((1, [*digit_files, *damaged, *odd, *many]), (2, damaged)):
        found = run(built.classify, digits_bundle.root, *files)
        expected = command("predict", *arguments, digits_bundle.root, *files, cwd=tmp_path)
        assert (found.returncode, expected.returncode) == (code, code), found.stderr
        assert without_details(found.stdout) == without_details(expected.stdout)
        assert len(found.stdout.splitlines()) == len(files)
        assert ("of 10 logits are not finite numbers" in found.stderr) == (files is not damaged)
        # Behind the line that says which bundle, runtime and precision.
        said = "".join(expected.stderr.splitlines(keepends=True)[1:])
        assert without_details(found.stderr).replace("samdeploy-classify: ", "samdeploy: ") == without_details(said)
    sound = run(built.classify, digits_bundle.root, *digit_files)
    assert sound.returncode == 0
    assert [json.loads(line)["label"] for line in sound.stdout.splitlines()] == ["0", "1", "2", "3", "4"]


def test_a_network_of_another_family(
    built: Build, command: Command, torchvision_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path
) -> None:
    found = run(built.classify, torchvision_bundle.root, *digit_files)
    arguments = ("--backend", "openvino", "--json", torchvision_bundle.root, *digit_files)
    expected = command("predict", *arguments, cwd=tmp_path)
    assert (found.returncode, found.stdout) == (0, expected.stdout), found.stderr


def too_far_off(folder: Path) -> Path:
    """An image to which the network of the digits has no finite answer; see tests/classifier/test_no_answer.py."""
    Image.new("RGB", (40, 25), "red").save(folder / "red.png")
    return folder / "red.png"


def without_details(text: str) -> str:
    """What Python and C++ say alike of an image that cannot be read."""
    text = re.sub(r"damaged or truncated \(.+\); expected", "damaged or truncated (...); expected", text)
    return re.sub(r"expected JPEG(, PNG, .+| or PNG); convert it first", "...", text)


def test_golden_images_have_the_same_probabilities_and_are_rejected_alike(
    built: Build, copy_of_bundle: Path, tmp_path: Path
) -> None:
    values = json.loads((copy_of_bundle / MANIFEST).read_text())
    sound = {"wanted_error": 2, "bound": 1.5, "coverage": 80, "images": 300}
    values["calibration"]["temperature"] = 1.7
    paths = [tmp_path / f"{index}.png" for index in range(8)]
    for path, image in zip(paths, open_bundle(copy_of_bundle).golden()[0], strict=False):
        Image.fromarray(image).save(path)
    rejected = []
    for threshold in (0.0, 0.8, 1.0):
        values["rejection"] = {"threshold": threshold, **sound}
        (copy_of_bundle / MANIFEST).write_text(json.dumps(values))
        with Classifier.open(copy_of_bundle, "openvino") as classifier:
            answers = classifier.stream(paths, batch=len(paths))
            expected = [{"image": str(path), **one.to_json()} for path, one in zip(paths, answers, strict=True)]
        lines = run(built.classify, copy_of_bundle, *paths).stdout.splitlines()
        assert list(map(json.loads, lines)) == expected
        rejected.append(sum(answer["rejected"] for answer in expected))
    assert rejected[0] == 0 < rejected[1] < rejected[2] == 8


def test_the_error_of_a_name_that_is_no_text_is_json(built: Build, digits_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"L\xf6we.png")).write_text("text")
    script = 'exec "$0" "$@" 2>/dev/null'
    done = run("sh", "-c", script, built.classify, digits_bundle.root, *tmp_path.iterdir())
    assert json.loads(done.stdout)["error"].startswith(f"{tmp_path}/L\ufffdwe.png: not an image")


@pytest.mark.skipif(bool(SANITIZE), reason="the program would need the sanitizer's library, too")
def test_the_snippet_of_the_readme_names_what_it_reads(built: Build, digits_bundle: Bundle, tmp_path: Path) -> None:
    snippets = {
        re.findall(r"^```cpp\n(.*?)^```", (SOURCE.parent / page).read_text(), re.M | re.S)[0]
        for page in ("README.md", "docs/embedding.md")
    }
    (snippet,) = snippets
    include, body = snippet.split("\n", 1)
    (tmp_path / "main.cpp").write_text(f"#include <iostream>\n{include}\nint main() {{\n{body}}}\n")
    (tmp_path / "bundle").symlink_to(digits_bundle.root)
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.jpg", "WEBP")
    call("c++", "-std=c++17", "main.cpp", "-I", SOURCE / "include", "-L", built.folder, "-lsamdeploy", cwd=tmp_path)
    settings = {**os.environ, "LD_LIBRARY_PATH": str(built.folder)}
    done = subprocess.run([tmp_path / "a.out"], cwd=tmp_path, env=settings, capture_output=True, text=True, check=True)
    assert done.stderr == "photo.jpg: is WebP; expected JPEG or PNG; convert it first\n"


def test_an_option_is_no_image(built: Build, digits_bundle: Bundle) -> None:
    for arguments in (("--backend", digits_bundle.root, "a.png"), (digits_bundle.root, "--json", "a.png")):
        done = run(built.classify, *arguments)
        (option,) = [str(word) for word in arguments if str(word).startswith("--")]
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"samdeploy-classify: unknown option {option}; a file of that name: ./{option}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
def test_a_full_disk_and_a_closed_stdout_are_told(
    built: Build, digits_bundle: Bundle, digit_files: Sequence[Path]
) -> None:
    """The line of Python's command line; what was printed is lost, so the exit code says so."""
    image, folder = digit_files[0], digit_files[0].parent
    cases = [
        ("samdeploy-classify", 2, [built.classify, digits_bundle.root, image]),
        ("samdeploy-classify", 2, [built.classify, "--help"]),
        ("samdeploy-worker", 2, [built.worker, digits_bundle.root, folder]),
        ("samdeploy-worker", 2, [built.worker, digits_bundle.root, folder, "--json"]),
        ("classify", 1, [built.classify_c, digits_bundle.root, image]),
    ]
    for name, code, command in cases:
        full = run("sh", "-c", 'exec "$0" "$@" >/dev/full', *command)
        closed = run("sh", "-c", 'exec "$0" "$@" >&-', *command)
        assert (full.returncode, closed.returncode) == (code, code), (full.stderr, closed.stderr)
        assert full.stderr.startswith(f"{name}: output: No space left on device")
        assert closed.stderr.startswith(f"{name}: output: Bad file descriptor")
        assert full.stderr.count("\n") == closed.stderr.count("\n") == 1
        if name != "classify":
            assert full.stderr.endswith(" device; free some space, or name another place\n")


def test_help_is_no_error(built: Build) -> None:
    for program in (built.classify, built.worker):
        for word in ("--help", "-h"):
            done = run(program, word)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.startswith(f"usage: {program.name} BUNDLE ")
            assert "Exit code: 0; 1 if an image could not be read" in done.stdout


def test_a_name_does_not_break_the_worker_s_lines(
    built: Build, digits_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path
) -> None:
    names = {"a\nb\t.png": "a\\nb\\t.png", "c\\n\r.png": "c\\\\n\\r.png", "d\x1b[2J\x7f.png": "d\\x1b[2J\\x7f.png"}
    for name in names:
        shutil.copy(digit_files[0], tmp_path / name)
    done = run(built.worker, digits_bundle.root, tmp_path)
    assert done.returncode == 0, done.stderr
    fields = [line.split("\t") for line in done.stdout.split("\n")[:-1]]
    assert sorted(line[0] for line in fields) == sorted(f"{tmp_path}/{name}" for name in names.values())
    assert all(len(line) == 3 and line[1] == "0" for line in fields)
    assert "\\\\ \\t \\n \\r" in run(built.worker, "--help").stdout


def test_the_worker(built: Build, digits_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path) -> None:
    done = run(
        built.worker, digits_bundle.root, digit_files[0].parent, "--decoders", "3", "--batch", "4", "--loops", "3"
    )
    assert done.returncode == 0, done.stderr
    answers = {tuple(line.split("\t")[:2]) for line in done.stdout.splitlines()}
    assert answers == {(str(path), str(digit)) for digit, path in enumerate(digit_files)}
    figures = json.loads(done.stderr)
    assert (figures["images"], figures["failed"]) == (15, 0)
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert figures["images_per_s"] == pytest.approx(15 / figures["seconds"], rel=0.05)

    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    red = too_far_off(tmp_path)
    done = run(built.worker, digits_bundle.root, tmp_path, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"] == 2
    assert f"samdeploy-worker: {red}: 10 of 10 logits are not finite numbers: the image" in done.stderr
    assert f"{tmp_path}/broken.jpg: damaged or truncated (JPEG: " in done.stderr


def test_the_worker_reads_a_camera_s_frames(built: Build, digits_bundle: Bundle, digit_files: Sequence[Path]) -> None:
    frames = b"".join(np.asarray(Image.open(path).convert("RGB")).tobytes() for path in digit_files)
    command = [str(built.worker), str(digits_bundle.root), "--frames", "8x8"]
    environment = {**os.environ, **SANITIZER_SETTINGS}
    done = subprocess.run(command, input=frames, env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    # Two threads decode, so that a frame may be overtaken by the next one.
    lines = sorted(line.split(b"\t")[:2] for line in done.stdout.splitlines())
    assert lines == [[b"frame %d" % digit, b"%d" % digit] for digit in range(5)]
    done = subprocess.run(command, input=frames[:-1], env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == 2
    assert b"frame 4 ends early" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "a bundle and a folder (or --frames) expected"),
        (("--batch", "0"), "'0' found, 1 to 100000 expected"),
        (("--frames", "8"), "--frames '8' found, 640x480 expected"),
        (("--fast",), "unknown option --fast"),
        (("--backend",), "--backend needs a value"),
    ],
)
def test_the_worker_s_wrong_arguments(arguments: tuple[str, ...], text: str, built: Build) -> None:
    done = run(built.worker, "bundle", *arguments)
    assert done.returncode == 2
    assert f"samdeploy-worker: {text}\nusage: samdeploy-worker" in done.stderr


def test_the_feeder_of_device_memory_compiles_and_says_what_is_missing(
    built: Build, digits_bundle: Bundle, digit_files: Sequence[Path]
) -> None:
    if not built.cuda_feeder.exists():
        pytest.skip(
            "CUDA's headers or its runtime library were not found; pip install nvidia-cuda-runtime nvidia-cuda-crt"
        )
    done = run(built.cuda_feeder, digits_bundle.root, digit_files[0])
    if done.returncode == 0:  # a machine with a GPU, TensorRT, and an engine for it
        assert done.stdout.startswith("0 ")
    else:
        assert re.match(r"cuda-feeder: .*(TensorRT|CUDA)", done.stderr)


def test_the_program_in_c(built: Build, digits_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path) -> None:
    done = run(built.classify_c, digits_bundle.root, digit_files[3])
    assert re.fullmatch(r"3 (0\.\d{4}|1\.0000)\n", done.stdout), done.stderr
    done = run(built.classify_c, digits_bundle.root, tmp_path / "none.png")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"classify: {tmp_path / 'none.png'}: no such file\n"


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
    call("cmake", *generator, "-S", application, "-B", folder, *package)
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
