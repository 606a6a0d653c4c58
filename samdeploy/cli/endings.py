"""How a command ends that fails: one line on standard error and an exit code, never a traceback."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from samdeploy.cli.arguments import missing_package
from samdeploy.errors import NEXT_FAULT, NEXT_IMAGE, SAID, DatasetMissing, SamdeployError
from samdeploy.terminal import printable


@contextmanager
def one_line_errors(command: str, *, names_data: bool = False) -> Iterator[None]:
    """Turn what the user or the machine got wrong into a line and `SystemExit`; a mistake of ours stays a traceback.

    Args:
        command: its name, which decides what extra a missing package is looked for in.
        names_data: whether --data or a folder of images was given, so that nobody is asked for it.
    """
    try:
        yield
    except SamdeployError as error:
        text = "".join(
            part if part in (NEXT_FAULT, NEXT_IMAGE) else printable(" ".join(part.split()))
            for part in re.split(f"({NEXT_FAULT}|{NEXT_IMAGE})", str(error))
        )
        if isinstance(error, DatasetMissing) and not names_data:  # every command that opens a data set has this option
            text += "; if the files lie elsewhere, name their folder: --data DIR"
        print(f"samdeploy: {text}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("samdeploy"):
            raise  # a mistake of ours, not of the installation
        print(f"samdeploy: {missing_package(error, command)}", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:  # `samdeploy predict ... | head`: ends quietly, with the code of other programs
        _drop_output()
        raise SystemExit(128 + signal.SIGPIPE) from None
    except (MemoryError, RuntimeError) as error:
        full = _memory_error(error)
        if full is None:
            raise
        print(f"samdeploy: {full}", file=sys.stderr)
        raise SystemExit(1) from None
    except UnicodeEncodeError as error:  # the name of a file, in a recipe for example, that the locale has no bytes for
        print(f"samdeploy: {_encoding_error(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:  # a full disk, a folder that may not be written to
        print(f"samdeploy: {_file_error(error)}", file=sys.stderr)
        if error.filename is None:
            _drop_output()
        raise SystemExit(2) from None
    except KeyboardInterrupt as error:
        if SAID not in error.args:
            print("samdeploy: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _drop_output() -> None:
    """Let standard output lead nowhere: what waits to be written would fail once more when the interpreter ends."""
    with suppress(OSError):  # no file: a caller in this process took its place
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _encoding_error(error: UnicodeEncodeError) -> str:
    return (
        f"{error.object!r} cannot be written in this system's encoding, {error.encoding}: {error.reason}; set "
        "LC_ALL=C.UTF-8"
    )


def _memory_error(error: MemoryError | RuntimeError) -> str | None:
    """Where no part of the product knew better what to say of a full memory; None for any other error."""
    said = str(error).strip()
    if isinstance(error, RuntimeError):
        if "torch" not in sys.modules:
            return None
        from samdeploy.models.memory import is_out_of_memory, memory_reason

        if not is_out_of_memory(error):
            return None
        said = memory_reason(error)
    return f"the memory is full{f' ({said})' if said else ''}; end other programs, or take smaller batches or images"


def _file_error(error: OSError) -> str:
    """Which file or folder, what is wrong with it, and the cure where there is one."""
    cure = {
        errno.EACCES: "; change its permissions, or name another place",
        errno.EROFS: "; name a place that can be written to",
        errno.EBADF: "; standard output is closed, redirect it: >/dev/null",
        errno.ENOSPC: "; free some space, or name another place",
    }.get(error.errno or 0, "")
    name = error.filename or "output"
    if error.errno == errno.EACCES and isinstance(name, str):  # the file was only looked for in a closed folder
        name = next((str(folder) for folder in reversed(Path(name).parents) if not os.access(folder, os.X_OK)), name)
    return f"{name}: {error.strerror or error}{cure}"
