"""A bundle where applications have it: on a read-only disk, opened by several processes, with and without a runtime."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from samdeploy import Classifier
from samdeploy.backends import availability
from samdeploy.bundle import Bundle

pytestmark = pytest.mark.skipif(
    bool(availability("onnxruntime") and availability("openvino")), reason="no CPU runtime is installed"
)
BACKENDS = [name for name in ("onnxruntime", "openvino") if not availability(name)]

CHILD = """
import sys
from samdeploy import Classifier
backend, precision, bundle, *images = sys.argv[1:]
with Classifier.open(bundle, backend, precision=precision) as classifier:
    print(*(prediction.label for prediction in classifier.stream(images)))
print(*(name for name in ("torch", "onnx", "typer", "rich") if name in sys.modules))
"""


def child(backend: str, bundle: Path, images: Sequence[Path], environment: dict[str, str], *before: str,
          precision: str = "fp32") -> subprocess.Popen[str]:  # fmt: skip
    line = [*before, sys.executable, "-c", CHILD, backend, precision, str(bundle), *map(str, images)]
    return subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_application_loads_no_training_framework_and_no_command_line(
    backend: str, digits_bundle: Bundle, digit_files: Sequence[Path], environment: dict[str, str]
) -> None:
    out, error = child(backend, digits_bundle.root, digit_files, environment).communicate(timeout=120)
    assert out == "0 1 2 3 4\n\n", error


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_processes_open_one_bundle(
    backend: str, digits_bundle: Bundle, digit_files: Sequence[Path], environment: dict[str, str]
) -> None:
    processes = [child(backend, digits_bundle.root, digit_files, environment) for _ in range(4)]
    for process in processes:
        out, error = process.communicate(timeout=240)
        assert out == "0 1 2 3 4\n\n", error


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_read_only_disk(
    backend: str, digits_bundle: Bundle, digit_files: Sequence[Path], environment: dict[str, str], tmp_path: Path
) -> None:
    """The whole file system, so that nothing beside the bundle is written either."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make a name space: unshare -rm")
    # The folder of the test lies on a mount of its own where /tmp is one.
    mounts = {_mount(digits_bundle.root), _mount(tmp_path), Path("/")}
    remounts = " && ".join(f"mount -o remount,bind,ro '{mount}'" for mount in sorted(mounts))
    script = f"{remounts} && ! touch '{digits_bundle.root}/x' 2>/dev/null && exec \"$@\""
    before = (unshare, "-rm", "sh", "-c", script, "sh")
    process = child(backend, digits_bundle.root, digit_files, environment, *before)
    out, error = process.communicate(timeout=120)
    if "mount:" in error:
        pytest.skip(f"this machine lets nobody remount: {error.strip()}")
    assert out == "0 1 2 3 4\n\n", error
    assert not (digits_bundle.root / "x").exists()


def _mount(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.is_mount())


def test_a_bundle_may_move_while_it_is_open(copy_of_bundle: Path, digit_files: Sequence[Path]) -> None:
    """All bytes were read and verified at opening: nothing is looked up later."""
    with Classifier.open(copy_of_bundle, BACKENDS[0], device="cpu") as classifier:
        shutil.rmtree(copy_of_bundle)
        assert [classifier.predict(path).label for path in digit_files] == list("01234")
