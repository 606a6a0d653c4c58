"""Writing and reading files so that a crash or a hostile neighbour cannot do harm."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import mmap
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, NoReturn

from samdeploy.errors import BundleError, FileSizeLimit

# Nobody can change a file with these, not even its owner.
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
# Objects and lists within one another, the outermost counted; docs/bundle.md, section 1.
_DEEPEST = 32
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
# Bytes that one call of the kernel is asked to copy; it stops below 2 GiB by itself.
_AT_ONCE = 1 << 30


def cache_folder() -> Path:
    """$SAMDEPLOY_CACHE, else ~/.cache/samdeploy: what may be lost at any time, and costs no more than time.

    Raises:
        FileNotFoundError: neither is known: no HOME, and the user is in no list of users.
    """
    folder = expanded(os.environ.get("SAMDEPLOY_CACHE") or "~/.cache/samdeploy")
    if str(folder).startswith("~"):
        raise FileNotFoundError(errno.ENOENT, "no home folder is known; set HOME or SAMDEPLOY_CACHE", str(folder))
    return folder


def expanded(path: str | Path) -> Path:
    """`path` with its "~" replaced; unchanged where no home is known, so that it is refused by its own name."""
    try:
        found = Path(path).expanduser()
    except RuntimeError:
        return Path(path)
    return found if found.is_absolute() or not str(path).startswith("~") else Path(path)  # HOME is empty or relative


def user_text(path: Path) -> str:
    """A text that a user may have saved with an editor of Windows: UTF-8, with or without a byte order mark.

    Raises:
        OSError: it cannot be read.
        UnicodeError: it is no UTF-8; names UTF-16, which Notepad and PowerShell write.
    """
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnicodeError("it is UTF-16; save it again with the encoding UTF-8")
    return content.decode("utf-8-sig")


def temporary_name(path: Path, suffix: str = "") -> Path:
    """A hidden name beside `path` that nothing has.

    Made by plain `open` and `mkdir`, what is put there follows the umask; `tempfile` makes everything private.
    """
    return path.with_name(f".{path.name}-{os.urandom(6).hex()}{suffix}")


@contextmanager
def names_file(path: Path) -> Iterator[None]:
    """Give an error of the block, such as that of a full disk, the name that write() does not know."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def write_atomic(path: Path, data: bytes | bytearray, *, mode: int = 0o666) -> None:
    """Put `data` at `path` whole or not at all: temporary file beside it, fsync, rename, fsync of the folder.

    Args:
        mode: permissions, less the umask.
    """
    temporary = temporary_name(path)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with names_file(path), os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def _seal(handle: int) -> None:
    """Add `_SEALS`; the kernel refuses with EBUSY while it holds one of the pages for a moment itself."""
    for tries_left in reversed(range(20)):
        try:
            fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
        except OSError as error:
            if error.errno != errno.EBUSY or not tries_left:
                raise
            time.sleep(0.05)
        else:
            return


class SealedFile:
    """A file in memory that nobody can change, not even its owner; it has a path until it is closed.

    >>> with SealedFile.copy_of(Path("model.onnx")) as sealed:
    ...     print(sealed.bytes, sealed.path)
    """

    def __init__(self, content: bytes = b"", *, source: int | None = None) -> None:
        """Holds `content`, or what the descriptor `source` still has to give.

        Raises:
            FileSizeLimit: it is longer than the process's limit on file sizes.
        """
        self.bytes, self._handle = 0, -1
        self._handle = os.memfd_create("sealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(self._handle, view) :]
            while source is not None and os.sendfile(self._handle, source, None, _AT_ONCE):
                pass
            self.bytes = os.fstat(self._handle).st_size
            _seal(self._handle)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError) and error.errno == errno.EFBIG:
                raise FileSizeLimit(
                    "the graph cannot be held in memory (File too large); raise the limit on file sizes, which counts "
                    "here too: ulimit -f"
                ) from None
            raise

    @classmethod
    def copy_of(cls, path: Path) -> SealedFile:
        """Copied inside the kernel: a third of the time that reading and writing take.

        Raises:
            OSError: it cannot be read, or is a link.
        """
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return cls(source=source)
        finally:
            os.close(source)

    @property
    def path(self) -> str:
        """For this process, until `close`."""
        return f"/proc/self/fd/{self._handle}"

    def sha256(self) -> str:
        """In lower-case hexadecimal; one call outside Python's lock, so that other threads are not in its way."""
        import hashlib

        if not self.bytes:
            return hashlib.sha256().hexdigest()
        with mmap.mmap(self._handle, self.bytes, prot=mmap.PROT_READ) as content:
            return hashlib.sha256(content).hexdigest()

    def close(self) -> None:
        """Give the memory back, once nobody else has it open; again, it does nothing."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __enter__(self) -> SealedFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Make `path` and its parents; where the block fails, those that are new and empty are removed."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in new:
            with suppress(OSError):
                folder.rmdir()
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` last over a power cut; file systems that cannot do that are left alone."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def json_bytes(value: object) -> bytes:
    """Indented UTF-8 JSON with a final newline; NaN is refused, since other languages cannot read it."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path, what: str, *, max_bytes: int = 1 << 30, sha256: str | None = None) -> dict[str, Any]:
    """The JSON object in `path`, which every language can read alike.

    Args:
        sha256: that the content must have; None: any.

    Raises:
        BundleError: missing, of another SHA-256, longer than `max_bytes`, nested deeper than 32, no UTF-8, no JSON, no
            object, a key that stands twice, a number that is not finite or an integer that does not fit 64 bits.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise BundleError(
                f"{what}: {path} has {path.stat().st_size} bytes, at most {max_bytes} are read; this is no file of "
                "samdeploy"
            )
        if not content:  # what a full disk leaves
            raise BundleError(f"{what}: {path} is empty; copy it or make it again")
        if sha256 is not None and _sha256(content) != sha256:
            raise BundleError(f"{what}: {path} was changed while it was read; open it again")
        value = strict_json(content)
    except FileNotFoundError:
        raise BundleError(f"{what}: {path} is missing; is this the right folder?") from None
    except OSError as error:
        raise BundleError(f"{what}: {path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{what}: {path} is not valid JSON ({error}); copy it or make it again") from None
    if not isinstance(value, dict):
        raise BundleError(f"{what}: {path} holds a {type(value).__name__}, an object was expected")
    return value


def strict_json(content: bytes) -> Any:
    """JSON that every language can read alike.

    Raises:
        ValueError: as `read_json` lists it.
    """
    _check_nesting(content)  # before the parser, whose recursion may be without a limit
    value = json.loads(
        content.decode("utf-8"),  # json.loads itself would guess UTF-16 and UTF-32
        object_pairs_hook=_unique_keys,
        parse_constant=_no_constant,
        parse_float=_finite_float,
        parse_int=_int64,
    )
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a surrogate pair could be no path and no message
    return value


def contained_file(root: Path, relative: str, what: str) -> Path:
    """`root / relative`, proven to be a plain file inside `root` that no link leads to or through.

    Raises:
        BundleError: the path is absolute, leaves `root`, is written unusually, or a link, folder or device
            stands on it; or the file is missing.
    """
    pure = PurePosixPath(relative)
    plain = relative == str(pure) and "\\" not in relative and "\0" not in relative
    if not relative or pure.is_absolute() or ".." in pure.parts or not plain or relative == ".":
        raise BundleError(f"{what}: path {relative!r} leaves the folder or is not plain; expected one like 'a/b.onnx'")
    path = root
    try:
        for part in pure.parts:
            path = path / part
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                raise BundleError(f"{what}: {relative!r} is a symbolic link or behind one; copy the bundle with cp -rL")
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(
            f"{what}: {relative!r} is missing; the folder is incomplete; copy or export it again"
        ) from None
    except OSError as error:
        raise BundleError(f"{what}: {relative!r} cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{what}: {relative!r} is not a plain file")
    if status.st_nlink > 1:
        raise BundleError(f"{what}: {relative!r} has {status.st_nlink} hard links; copy the folder without links")
    return path


def _sha256(content: bytes) -> str:
    import hashlib  # late: few who read JSON need it

    return hashlib.sha256(content).hexdigest()


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} stands twice")
        found[key] = value
    return found


def _check_nesting(content: bytes) -> None:
    # Without escapes, every other part between quotes is outside of strings.
    outside = b"".join(content.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2])
    level = 0
    for bracket in outside.translate(None, _NO_BRACKETS):
        level += 1 if bracket in b"[{" else -1
        if level > _DEEPEST:
            raise ValueError(f"nested deeper than {_DEEPEST}")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {text[:20]} is too large")
    return value


def _int64(text: str) -> int:
    # 19 digits and a sign; Python alone would take thousands of digits, and float() then fails on them.
    value = int(text) if len(text) <= 20 else 1 << 63
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"integer {text[:20]}... does not fit 64 bits")
    return value
