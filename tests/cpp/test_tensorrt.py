"""The C++ TensorRT backend on stand-ins for TensorRT and CUDA that behave as the real ones in what it relies on.

It shows the backend's own logic, and nothing of TensorRT's.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import samdeploy
from samdeploy.bundle import Bundle
from tests.cpp.build import SANITIZE, SOURCE, Build, call

STAND_IN = Path(__file__).parent / "tensorrt_stand_in"
UNAVAILABLE = 10

pytestmark = pytest.mark.skipif(bool(SANITIZE), reason="the stand-ins are not built with sanitizers")

# Opens BUNDLE with the library in FOLDER, runs what is asked, and prints one JSON object.
DRIVER = """
import ctypes, json, sys
import numpy as np

folder, bundle, images_file, script = sys.argv[1:]
library = ctypes.CDLL(f"{folder}/libsamdeploy.so")
library.samdeploy_last_error.restype = ctypes.c_char_p

class Options(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("backend", ctypes.c_char_p), ("precision", ctypes.c_char_p),
                ("threads", ctypes.c_int32), ("requests", ctypes.c_int32), ("max_pixels", ctypes.c_uint64)]

options = Options(ctypes.sizeof(Options), b"tensorrt", b"fp16", 0, 0, 0)
images = np.load(images_file)

def result(status, **found):
    return {"status": status, "error": library.samdeploy_last_error().decode() if status else "", **found}

def opened():
    handle = ctypes.c_void_p()
    return library.samdeploy_open(bundle.encode(), ctypes.byref(options), ctypes.byref(handle)), handle

def run(handle, images):
    logits = np.empty((len(images), 10), np.float32)
    status = library.samdeploy_run(handle, images.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(len(images)),
                                   logits.ctypes.data_as(ctypes.c_void_p))
    return result(status, logits=logits.tolist())

def run_device(handle, images, offset):
    source = np.empty(images.nbytes + 512, np.uint8)
    target = np.empty(40 * len(images) + 512, np.uint8)
    at, to = (-a.ctypes.data % 256 + offset for a in (source, target))
    source[at : at + images.nbytes] = images.reshape(-1)
    status = library.samdeploy_run_device(
        handle, ctypes.c_void_p(source.ctypes.data + at), ctypes.c_size_t(len(images)),
        ctypes.c_void_p(target.ctypes.data + to), None)
    return result(status, logits=target[to : to + 40 * len(images)].view(np.float32).reshape(-1, 10).tolist())

exec(script)
"""


@pytest.fixture(scope="module")
def library(built: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libsamdeploy.so and its TensorRT backend, compiled with CUDA's headers against the stand-ins."""
    places = [*Path("/usr/local").glob("cuda*/include")]
    places += Path(sysconfig.get_path("purelib")).glob("nvidia/cu1*/include")
    cuda = next((place for place in places if (place / "crt" / "host_defines.h").exists()), None)
    if cuda is None:
        pytest.skip("CUDA's headers were not found; pip install nvidia-cuda-runtime nvidia-cuda-crt")
    folder = tmp_path_factory.mktemp("library")
    for file in built.folder.glob("libsamdeploy.so*"):
        shutil.copy(file, folder, follow_symlinks=False)
    includes = ["-I", SOURCE / "src", "-I", SOURCE / "include", "-I", STAND_IN, "-isystem", cuda]
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    flags += ["-fvisibility=hidden", f'-DSAMDEPLOY_VERSION="{samdeploy.__version__}"']
    sources = [SOURCE / "src" / "tensorrt.cpp", STAND_IN / "nvinfer.cpp", STAND_IN / "cudart.cpp"]
    call("c++", *flags, *includes, *sources, "-o", folder / "libsamdeploy-tensorrt.so")
    return folder


def answers(images: np.ndarray) -> np.ndarray:
    """Logits of the stand-in engine: float32 [N, 10] of uint8 [N, H, W, 3]."""
    pixels = np.arange(images[0].size)
    weights = np.stack([pixels * (k + 1) % 11 for k in range(10)])
    return (images.reshape(len(images), -1).astype(np.int64) @ weights.T * 1e-3).astype(np.float32)


@pytest.fixture
def drive(library: Path, copy_of_bundle: Path, seal: Callable[[Path], Bundle]) -> Callable[..., dict[str, object]]:
    """`drive(script, version=...)`: run the script on a bundle whose engine was built by that version of TensorRT."""

    def run(script: str, version: str = "10.13.3.9", plan: str = "") -> dict[str, object]:
        root = copy_of_bundle
        images = np.load(root / "golden" / "images.npy")
        np.save(root / "golden" / "logits.npy", answers(images))
        (root / "engine.plan").write_text(plan or f"STANDIN {images.shape[1]} {images.shape[2]} 10")
        manifest = json.loads((root / "manifest.json").read_text())
        graph = next(file["sha256"] for file in manifest["files"] if file["role"] == "graph")
        built_for = {"runtime": "tensorrt", "version": version, "target": "SM86", "graph": graph}
        entry = {"role": "engine", "path": "engine.plan", "backend": "tensorrt", "precision": "fp16"}
        manifest["files"].append({**entry, "sha256": "", "bytes": 0, "built_for": built_for})
        (root / "manifest.json").write_text(json.dumps(manifest))
        seal(root)
        line = [sys.executable, "-c", DRIVER, library, root, root / "golden" / "images.npy", script]
        done = subprocess.run([*map(str, line)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found

    return run


Drive = Callable[..., dict[str, object]]


@pytest.mark.parametrize("version", ["10.13.3.9", "10.13.3.9.post1"])
def test_an_engine_of_the_same_four_numbers_runs(drive: Drive, copy_of_bundle: Path, version: str) -> None:
    script = "status, handle = opened(); assert not status, result(status); print(json.dumps(run(handle, images)))"
    found = drive(script, version)
    images = np.load(copy_of_bundle / "golden" / "images.npy")
    np.testing.assert_array_equal(np.array(found["logits"], np.float32), answers(images))


def test_an_engine_of_another_version_is_refused(drive: Drive) -> None:
    found = drive("print(json.dumps(result(opened()[0])))", "10.13.2.6")
    assert found["status"] == UNAVAILABLE
    assert "built with TensorRT 10.13.2.6, installed is 10.13.3.9" in str(found["error"])


def test_addresses_inside_a_larger_array_are_staged(drive: Drive, copy_of_bundle: Path) -> None:
    """The stand-in refuses addresses that are not aligned to 256 bytes; TensorRT's answer is undefined."""
    script = "handle = opened()[1]; print(json.dumps([run_device(handle, images[:5], offset) for offset in (0, 12)]))"
    images = np.load(copy_of_bundle / "golden" / "images.npy")
    for found in drive(script):
        assert found["error"] == ""  # type: ignore[index]
        np.testing.assert_array_equal(np.array(found["logits"], np.float32), answers(images[:5]))  # type: ignore[index]


def test_an_error_names_the_lines_of_its_own_call(drive: Drive) -> None:
    script = """
handle = opened()[1]
images = images[:1].copy()
images.reshape(-1)[0] = 251
print(json.dumps([run(handle, images)["error"] for _ in range(2)]))
"""
    assert [str(text).split(": ")[-1] for text in drive(script)] == ["failure 1", "failure 2"]


def test_the_logger_outlives_the_session_that_brought_it(drive: Drive) -> None:
    """TensorRT logs through the first logger it was given; closing that session must leave the others usable."""
    script = """
first, second = opened()[1], opened()[1]
library.samdeploy_close(first)
waste = [np.full(200, 65, np.uint8) for _ in range(10000)]
images.reshape(-1)[0] = 251
print(json.dumps(run(second, images)))
"""
    assert str(drive(script)["error"]).endswith("failure 1")


def test_a_plan_that_tensorrt_refuses(drive: Drive) -> None:
    found = drive("print(json.dumps(result(opened()[0])))", plan="something else")
    assert found["status"] == UNAVAILABLE
    assert "TensorRT 10.13.3.9 refuses engine.plan: Serialization assertion" in str(found["error"])
    assert str(found["error"]).endswith("build it again here: samdeploy export --engine trt")
