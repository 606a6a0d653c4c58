"""Whole files or none, JSON that every language reads alike, and paths that stay where they are."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from samdeploy.errors import BundleError
from samdeploy.files import SealedFile, _seal, contained_file, json_bytes, read_json, write_atomic

# --- write_atomic -----------------------------------------------------------------------------------------------------


def test_write_atomic_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    for content in (b"first", b"", b"\0second\xff" * 100_000):
        write_atomic(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_write_atomic_gives_a_file_that_others_may_read(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_atomic(path, b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_disk_that_takes_no_more_is_named_with_the_file(tmp_path: Path) -> None:
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom samdeploy.files import write_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write_atomic(Path(sys.argv[1]), b'x' * 2000)\n"
        "except OSError as error:\n    print(error.filename)"
    )
    path = tmp_path / "model.onnx"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert done.stdout == f"{path}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomic(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("run.json", b"old")]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    write_atomic(path, b"old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("run.json", b"old")]


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut leaves the new name with no content."""
    path = tmp_path / "run.json"
    steps: list[tuple[str, int]] = []
    fsync, replace = os.fsync, Path.replace

    def seen_fsync(handle: int) -> None:
        status = os.fstat(handle)
        steps.append(("fsync of the folder", 0) if stat.S_ISDIR(status.st_mode) else ("fsync", status.st_size))
        fsync(handle)

    def seen_replace(self: Path, target: Path) -> Path:
        steps.append(("replace", self.stat().st_size))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    write_atomic(path, b"12345")
    assert steps == [("fsync", 5), ("replace", 5), ("fsync of the folder", 0)]


def test_a_folder_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomic(tmp_path / "run.json", b"new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"precious")
    link.symlink_to(target)
    write_atomic(link, b"new")
    assert (target.read_bytes(), link.read_bytes(), link.is_symlink()) == (b"precious", b"new", False)


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_json_bytes_are_utf8_with_a_final_newline() -> None:
    assert json_bytes({"name": "Löwe", "n": 1}) == '{\n  "name": "Löwe",\n  "n": 1\n}\n'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_bytes_refuses_what_other_languages_cannot_read(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes({"loss": value})


def test_read_json_reads_what_json_bytes_writes(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    values = {"text": "Löwe \U0001f981", "n": -(1 << 63), "m": (1 << 63) - 1, "x": 1e300, "list": [None, True]}
    path.write_bytes(json_bytes(values))
    assert read_json(path, "bundle") == values


REFUSED_JSON = {
    "no JSON": (b"{", "is not valid JSON (Expecting property name"),
    "empty": (b"", "is empty; copy it, or make it, again"),
    "a list": (b"[]", "holds a list, an object was expected"),
    "text": (b'"x"', "holds a str, an object was expected"),
    "key twice": (b'{"a": 1, "a": 1}', "is not valid JSON (key 'a' stands twice)"),
    "key twice, deep": (b'{"b": [{"a": 1, "a": 2}]}', "is not valid JSON (key 'a' stands twice)"),
    "NaN": (b'{"a": NaN}', "is not valid JSON (NaN is no JSON)"),
    "infinity": (b'{"a": -Infinity}', "is not valid JSON (-Infinity is no JSON)"),
    "a float too large": (b'{"a": 1e999}', "is not valid JSON (number 1e999 is too large)"),
    "an integer of 65 bits": (b'{"a": 9223372036854775808}', "does not fit 64 bits"),
    "an integer of 401 digits": (
        b'{"a": 1' + b"0" * 400 + b"}",
        "integer 10000000000000000000... does not fit 64 bits",
    ),
    "an integer of a million digits": (b'{"a": ' + b"9" * 1_000_000 + b"}", "does not fit 64 bits"),
    "Latin-1": ('{"a": "Löwe"}'.encode("latin-1"), "is not valid JSON ('utf-8' codec can't decode byte"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "is not valid JSON ('utf-8' codec can't decode byte"),
    "UTF-16 without a mark": ('{"a": 1}'.encode("utf-16-le"), "is not valid JSON ("),
    "byte order mark": (b'\xef\xbb\xbf{"a": 1}', "is not valid JSON (Unexpected UTF-8 BOM"),
    "half a surrogate pair": (b'{"a": "\\ud800"}', "is not valid JSON ('utf-8' codec can't encode character"),
    "nested 100,000 deep": (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "is not valid JSON ("),
}


@pytest.mark.parametrize("name", REFUSED_JSON)
def test_read_json_refuses(name: str, tmp_path: Path) -> None:
    content, text = REFUSED_JSON[name]
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(BundleError) as caught:
        read_json(path, "bundle")
    message = str(caught.value)
    assert message.startswith(f"bundle: {path} ")
    assert text in message
    assert len(message) < len(str(path)) + 200  # a hostile file must not fill the screen


def test_read_json_tells_missing_from_unreadable(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^run: .*run\.json is missing; is this the right folder\?$"):
        read_json(tmp_path / "run.json", "run")
    with pytest.raises(BundleError, match=r"cannot be read \(Is a directory\)"):
        read_json(tmp_path, "run")


# --- contained_file ---------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """root/{a.bin, graphs/b.onnx, empty/} and outside.bin beside it."""
    folder = tmp_path / "root"
    (folder / "graphs").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "a.bin").write_bytes(b"a")
    (folder / "graphs" / "b.onnx").write_bytes(b"b")
    (tmp_path / "outside.bin").write_bytes(b"secret")
    return folder


@pytest.mark.parametrize("relative", ["a.bin", "graphs/b.onnx"])
def test_plain_files_inside_are_found(root: Path, relative: str) -> None:
    assert contained_file(root, relative, "bundle") == root / relative


def test_names_that_only_look_like_an_escape_are_allowed(root: Path) -> None:
    for name in ("..a", "a..", "...", "ä b"):
        (root / name).write_bytes(b"x")
        assert contained_file(root, name, "bundle") == root / name


@pytest.mark.parametrize(
    "relative",
    [
        *("../outside.bin", "graphs/../../outside.bin", "graphs/../a.bin", "..", "graphs/.."),
        *("/etc/passwd", "//etc/passwd", "/", "."),
        *("", "./a.bin", "graphs//b.onnx", "graphs/./b.onnx", "a.bin/", "graphs/"),
        *("graphs\\b.onnx", "..\\outside.bin", "C:\\a.bin", "a.bin\0", "a\0/../../outside.bin"),
    ],
)
def test_paths_that_leave_the_folder_or_are_not_plain(root: Path, relative: str) -> None:
    with pytest.raises(BundleError) as caught:
        contained_file(root, relative, "bundle")
    expected = f"bundle: path {relative!r} leaves the folder or is not plain; expected one like 'a/b.onnx'"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("relative", "text"),
    [
        ("missing.bin", "'missing.bin' is missing; the folder is incomplete, export it again"),
        ("nowhere/b.onnx", "'nowhere/b.onnx' is missing"),
        ("a.bin/b.onnx", "'a.bin/b.onnx' is missing"),
        ("empty", "'empty' is not a plain file"),
        ("x" * 300, "cannot be read (File name too long)"),
    ],
)
def test_what_is_no_file(root: Path, relative: str, text: str) -> None:
    with pytest.raises(BundleError) as caught:
        contained_file(root, relative, "bundle")
    assert text in str(caught.value)


@pytest.mark.parametrize("target", ["outside", "inside", "nowhere", "itself"])
def test_a_symbolic_link_is_refused_wherever_it_leads(root: Path, target: str) -> None:
    targets = {"outside": "../outside.bin", "inside": "a.bin", "nowhere": "gone", "itself": "link.bin"}
    (root / "link.bin").symlink_to(targets[target])
    with pytest.raises(BundleError, match=r"'link\.bin' is or passes a symbolic link; only plain files are opened"):
        contained_file(root, "link.bin", "bundle")


def test_a_symbolic_link_to_a_folder_is_refused(root: Path) -> None:
    (root / "linked").symlink_to(root / "graphs")
    (root / "up").symlink_to("..")
    for relative in ("linked/b.onnx", "up/outside.bin", "up/root/a.bin"):
        with pytest.raises(BundleError, match="is or passes a symbolic link"):
            contained_file(root, relative, "bundle")


def test_the_folder_itself_may_be_reached_through_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    assert contained_file(tmp_path / "link", "graphs/b.onnx", "bundle").read_bytes() == b"b"


def test_a_hard_link_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "hard.bin").hardlink_to(tmp_path / "outside.bin")
    with pytest.raises(BundleError, match=r"'hard\.bin' has 2 hard links; copy the folder without links"):
        contained_file(root, "hard.bin", "bundle")


def test_a_pipe_is_refused_without_waiting_for_a_writer(root: Path) -> None:
    os.mkfifo(root / "pipe.bin")
    code = (
        "import sys; from pathlib import Path; from samdeploy.files import contained_file\n"
        "try: contained_file(Path(sys.argv[1]), 'pipe.bin', 'bundle')\n"
        "except Exception as error: print(error)"
    )
    # In a child, because a test that waits for a pipe's writer never ends.
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "bundle: 'pipe.bin' is not a plain file\n"


# --- SealedFile -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"sealed", bytes(range(256)) * 40_000])
def test_a_sealed_file_holds_what_was_there(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with SealedFile.copy_of(tmp_path / "file") as copy, SealedFile(content) as other:
        (tmp_path / "file").write_bytes(b"changed")
        for sealed in (copy, other):
            assert sealed.bytes == len(content)
            assert Path(sealed.path).read_bytes() == content
            assert sealed.sha256() == hashlib.sha256(content).hexdigest()


def test_nobody_can_change_a_sealed_file() -> None:
    with SealedFile(b"sealed") as sealed:
        with Path(sealed.path).open("r+b", buffering=0) as file:
            for change in (lambda: file.write(b"x"), lambda: file.truncate(1), lambda: file.truncate(99)):
                with pytest.raises(PermissionError):
                    change()
        assert Path(sealed.path).read_bytes() == b"sealed"


def sealed_files() -> int:
    """How many this process has open."""
    return sum("sealed" in str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


def test_a_sealed_file_is_gone_when_it_is_closed(tmp_path: Path) -> None:
    before = sealed_files()
    sealed = SealedFile(b"sealed")
    assert sealed_files() == before + 1
    sealed.close()
    sealed.close()
    SealedFile(b"forgotten")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "link"):
        with pytest.raises(OSError, match=r"No such file|symbolic links"):
            SealedFile.copy_of(path)
    assert sealed_files() == before


def test_a_sealed_file_beyond_the_limit_on_file_sizes_names_the_limit() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from samdeploy.files import SealedFile\nSealedFile(bytes(8192))"
    )
    command = [sys.executable, "-B", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "FileSizeLimit" in done.stderr
    assert "ulimit -f" in done.stderr


def test_a_file_that_the_kernel_holds_for_a_moment_is_sealed_after_it() -> None:
    """A page in use makes the kernel refuse (EBUSY); a writable mapping does so for as long as we like."""
    handle = os.memfd_create("held", os.MFD_ALLOW_SEALING)
    os.write(handle, b"content")
    held = mmap.mmap(handle, 7)
    threading.Timer(0.2, held.close).start()
    _seal(handle)
    with pytest.raises(PermissionError):
        os.write(handle, b"more")
    os.close(handle)


def test_nesting_is_found_before_it_is_parsed(tmp_path: Path) -> None:
    """A program without a limit on recursion would overflow its stack."""
    path = tmp_path / "deep.json"
    path.write_bytes(b"[" * 2_000_000)
    script = (
        "import sys; from pathlib import Path; from samdeploy.files import read_json\n"
        "sys.setrecursionlimit(10**7); read_json(Path(sys.argv[1]), 'manifest')"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not valid JSON (nested deeper than 32)" in done.stderr


def test_only_brackets_outside_of_strings_nest(tmp_path: Path) -> None:
    path, opening = tmp_path / "some.json", "[{" * 40
    value = {opening + '"\\': [opening + '\\\\"', "\\", opening, '"'], "deep": {}}
    path.write_text(json.dumps(value))
    assert read_json(path, "some") == value
