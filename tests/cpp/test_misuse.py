"""What applications do wrong, and what machines lack: each is a status and a sentence, never a crash or a wait."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from samdeploy.bundle import Bundle
from tests.cpp.build import SANITIZE, SANITIZER_SETTINGS, Build, run
from tests.cpp.conftest import Probe

OK, ARGUMENT, NO_BUNDLE, UNAVAILABLE, IMAGE, IMAGE_TOO_LARGE = "0", "1", "2", "10", "11", "12"
NO_MEMORY, CLOSED, FORKED = "13", "15", "16"
MEMORY_IS_FULL = "the memory is full; end other programs, or take smaller batches or images"


def test_handles_and_pointers_that_are_none(built: Build, digits_bundle: Bundle, digit_files: Sequence[Path]) -> None:
    done = run(built.misuse, "misuse", digits_bundle.root, digit_files[0])
    assert done.returncode == 0, done.stderr
    null, closed, wild, arguments = (line.split() for line in done.stdout.splitlines())
    # The second is samdeploy_class_name: 0, it gave NULL.
    assert null == [ARGUMENT, "0"] + 6 * [ARGUMENT]
    assert closed == wild == [CLOSED, "0"] + 6 * [CLOSED]
    # The fourth: an image of more pixels than the four that were allowed.
    refused = [ARGUMENT, ARGUMENT, ARGUMENT, IMAGE_TOO_LARGE, IMAGE, ARGUMENT, ARGUMENT, UNAVAILABLE]
    assert arguments == refused


def test_an_empty_path_is_no_path(built: Build, digits_bundle: Bundle) -> None:
    """In the words of Python."""
    assert run(built.misuse, "no-paths", digits_bundle.root).stdout.splitlines() == [
        f"{NO_BUNDLE} bundle '': is no path; name the bundle's folder",
        f"{IMAGE} '': is no path, an image was expected",
    ]


def test_a_path_with_a_zero_byte_and_too_many_bytes(
    built: Build, digits_bundle: Bundle, digit_files: Sequence[Path]
) -> None:
    image = digit_files[0]
    behind = "is followed by a zero byte, which no path or name holds"
    limit = "bytes are too many, at most 4 are read; max_bytes sets the limit"
    assert run(built.misuse, "limits", digits_bundle.root, image).stdout.splitlines() == [
        f"{NO_BUNDLE} '{digits_bundle.root}' {behind}",
        f"{IMAGE} '{image}' {behind}",
        f"{IMAGE_TOO_LARGE} {image}: {image.stat().st_size} {limit}",
        f"{IMAGE_TOO_LARGE} image: 5 {limit}",
    ]


@pytest.mark.skipif(bool(SANITIZE), reason="sanitizers map more memory than the limit")
def test_a_file_of_3_gb_is_refused_before_it_is_read(built: Build, digits_bundle: Bundle, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(3 << 30)
    script = 'ulimit -v 2500000; exec "$0" "$@"'
    done = run(Path("/bin/sh"), "-c", script, built.classify, digits_bundle.root, tmp_path / "huge")
    assert done.returncode == 2
    assert "3221225472 bytes are too many, at most 67108864 are read" in done.stderr


def test_a_limit_on_file_sizes_does_not_end_the_process(built: Build, digits_bundle: Bundle) -> None:
    """The graph is put into a file in memory, to which `ulimit -f` applies."""
    done = run(Path("/bin/sh"), "-c", 'ulimit -f 8; exec "$0" "$@"', built.probe, "open", digits_bundle.root, "fp32")
    assert done.returncode == 0
    status, _, text = done.stdout.splitlines()
    assert status == UNAVAILABLE
    assert text.endswith("(File too large); raise the limit on file sizes, which counts here too: ulimit -f")


@pytest.mark.skipif(bool(SANITIZE), reason="sanitizers end the program where so much memory is asked for")
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_batch_that_no_memory_holds(backend: str, built: Build, digits_bundle: Bundle) -> None:
    """A status of its own, with a cure; and the classifier answers the next batch."""
    if backend not in built.backends:
        pytest.skip(f"built without {backend}")
    done = run(built.misuse, "huge-batch", digits_bundle.root, f"{backend}:fp32")
    assert done.returncode == 0, done.stderr
    refused, next_status = done.stdout.splitlines()
    assert refused.startswith(f"{NO_MEMORY} ")
    assert refused.endswith(MEMORY_IS_FULL)
    assert next_status == OK


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("Exception from src/plugin.cpp:47:\nstd::bad_alloc\n", NO_MEMORY),
        ("Failed to allocate 9437184 bytes of memory", NO_MEMORY),
        ("[CPU] Convolution node with name 'layer3' can't alloc", NO_MEMORY),
        ("Failed to allocate memory for requested buffer of size 9437184", NO_MEMORY),
        ("Cannot load library: wrong ELF class", UNAVAILABLE),
    ],
)
def test_a_runtime_s_words_for_a_full_memory(said: str, status: str, probe: Probe) -> None:
    """Seen under `ulimit -v`: OpenVINO and ONNX Runtime give them as text, in an error of their own."""
    found, text = probe("refuse", said).stdout.rstrip("\n").split(" ", 1)
    assert found == status
    assert (text == f"OpenVINO failed: {MEMORY_IS_FULL}") == (status == NO_MEMORY)


def test_a_classifier_is_closed_while_others_use_it(
    built: Build, digits_bundle: Bundle, digit_files: Sequence[Path]
) -> None:
    assert run(built.misuse, "close-early", digits_bundle.root, digit_files[0], 4).stdout.split() == 4 * [CLOSED]


def test_a_forked_process_is_told(built: Build, digits_bundle: Bundle) -> None:
    """The child uses its parent's classifier, then opens one; its exit code is 0: it neither hung nor crashed."""
    # LeakSanitizer knows the parent's threads and looks for their stacks in the child, where they are not: it tries for
    # a long time to stop them, and then calls everything lost that the runtime's threads held.
    done = run(built.misuse, "fork", digits_bundle.root, ASAN_OPTIONS="detect_leaks=0")
    assert done.stdout.split() == [FORKED, FORKED, "0"]
    assert run(built.misuse, "fork-first", digits_bundle.root).stdout.split() == ["0"]


@pytest.mark.skipif(bool(SANITIZE), reason="AddressSanitizer's own library would have to be copied, too")
def test_a_runtime_that_is_missing(built: Build, digits_bundle: Bundle, tmp_path: Path) -> None:
    """The library, and OpenVINO's part of it, on a machine without OpenVINO; and without that part."""
    program = tmp_path / "samdeploy-probe"
    shutil.copy(built.probe, program)
    status, used, text = run(program, "open", digits_bundle.root, "fp32").stdout.splitlines()
    assert (status, used) == (UNAVAILABLE, "0")
    cause = "this library was built without OpenVINO, or installed without that part"
    assert text.startswith(f"{cause} (there is no {tmp_path}/libsamdeploy-openvino.so)")
    part = tmp_path / "libsamdeploy-openvino.so"
    content = (built.folder / part.name).read_bytes()
    assert content.count(b"libopenvino.so") >= 1
    part.write_bytes(content.replace(b"libopenvino.so", b"libabsentvn.so"))
    status, used, text = run(program, "open", digits_bundle.root, "fp32").stdout.splitlines()
    assert (status, used) == (UNAVAILABLE, "0")
    assert text.startswith("OpenVINO cannot be loaded: libabsentvn.so")
    assert "LD_LIBRARY_PATH" in text


@pytest.mark.skipif(bool(SANITIZE), reason="AddressSanitizer's own library would have to be copied, too")
def test_a_part_of_another_build_is_refused(built: Build, digits_bundle: Bundle, tmp_path: Path) -> None:
    program, part = tmp_path / "samdeploy-probe", tmp_path / "libsamdeploy-openvino.so"
    shutil.copy(built.probe, program)
    source = tmp_path / "old.cpp"
    source.write_text(
        'extern "C" const void* samdeploy_backend() { static const char* old[] = {"0.0.9"}; return old; }'
    )
    subprocess.run(["c++", "-shared", "-fPIC", str(source), "-o", str(part)], check=True)
    status, _, text = run(program, "open", digits_bundle.root, "fp32").stdout.splitlines()
    assert status == UNAVAILABLE
    assert "belongs to samdeploy 0.0.9" in text


def test_two_processes_open_one_bundle_that_cannot_be_written(built: Build, copy_of_bundle: Path) -> None:
    for path in (*copy_of_bundle.rglob("*"), copy_of_bundle):
        path.chmod(0o555 if path.is_dir() else 0o444)
    command = [str(built.probe), "open", str(copy_of_bundle), "fp32"]
    environment = {**os.environ, **SANITIZER_SETTINGS}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].split()[0] for process in both] == [OK, OK]
    before = sorted(str(path) for path in copy_of_bundle.rglob("*"))
    for path in (copy_of_bundle, *copy_of_bundle.rglob("*")):
        path.chmod(0o755)
    assert sorted(str(path) for path in copy_of_bundle.rglob("*")) == before


def test_a_really_read_only_disk(built: Build, digits_bundle: Bundle, tmp_path: Path) -> None:
    """A read-only mount in a namespace of its own, which not every machine allows."""
    mount = f"mount --bind '{digits_bundle.root}' '{tmp_path}' && mount -o remount,ro,bind '{tmp_path}'"
    proof = f"! touch '{tmp_path}/x' 2>/dev/null || exit 78"
    script = f"{mount} || exit 77; {proof}; exec '{built.probe}' open '{tmp_path}' fp32"
    done = run(Path("/usr/bin/unshare"), "--mount", "sh", "-c", script) if shutil.which("unshare") else None
    if done is None or done.returncode in (1, 77):
        pytest.skip("this machine mounts nothing for tests")
    assert done.stdout.split()[:1] == [OK], done.stderr


@pytest.mark.skipif(shutil.which("strace") is None or bool(SANITIZE), reason="apt-get install strace")
def test_nothing_calls_home(built: Build, digits_bundle: Bundle, digit_files: Sequence[Path], tmp_path: Path) -> None:
    """No socket but a local one, and no file below the home folder."""
    (tmp_path / "home").mkdir()
    trace = ["-f", "-qq", "-e", "trace=socket", "-o", tmp_path / "trace"]
    command = [built.classify, digits_bundle.root, *digit_files]
    done = run(Path(str(shutil.which("strace"))), *trace, *command, HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert "AF_INET" not in (tmp_path / "trace").read_text()
    assert list((tmp_path / "home").rglob("*")) == []
