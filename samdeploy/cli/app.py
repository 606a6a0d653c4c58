"""The application that commands are registered with, what becomes of their errors, and the entry point.

Exit codes: 0 done, 1 a promise was not kept (a gate failed, an engine cannot be had, some pictures were broken),
2 the input is wrong (or not one of the pictures could be read), 130, 141 and 143 ended by Ctrl-C, a closed pipe
or SIGTERM.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
import typer.core

import samdeploy
from samdeploy.cli.arguments import GENERAL_HINT, missing_package, no_such_option
from samdeploy.errors import SAID, DatasetMissing, SamdeployError

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    name="samdeploy",
    help="Train an image classifier with streamlined attention, export it to an engine, and prove that the engine "
    "answers as the trained model does.  Every command takes the newest result of the one before it, and says which.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # importing rich would double the time of --help
    pretty_exceptions_enable=False,
)

RunsRoot = Annotated[Path, typer.Option("--runs", help="Folder of all runs.")]
DataRoot = Annotated[Path | None, typer.Option("--data", help="Folder of the data set's files.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe's value: [section.]key=value; repeatable."),
]
Epochs = Annotated[int | None, typer.Option("--epochs", metavar="N", help="Most epochs (training.epochs).")]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", metavar="N", help="Images per step (training.batch_size).")
]
LearningRate = Annotated[
    float | None, typer.Option("--lr", metavar="RATE", help="Peak learning rate (training.learning_rate).")
]
Size = Annotated[
    str | None, typer.Option("--size", metavar="PIXELS", help="The network's input, 64 or HEIGHTxWIDTH (image.size).")
]


class _Command(typer.core.TyperCommand):
    """A command that names the recipe's key where somebody gives it as an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = [name for parameter in self.params for name in parameter.opts]
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # typer does not export its NoSuchOption
            option, message = getattr(error, "option_name", None), getattr(error, "message", None)
            if isinstance(option, str) and isinstance(message, str) and "--set" in own:
                hint = no_such_option(option, own)
                if hint or not getattr(error, "possibilities", None):
                    error.message = f"{message}; {hint or GENERAL_HINT}"  # type: ignore[attr-defined]
                    error.possibilities = None  # type: ignore[attr-defined]
            raise


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Register a command; our own errors become one line on standard error and an exit code."""

    @app.command(cls=_Command)
    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            result = function(*args, **kwargs)
            if sys.stdout is not None:  # closed by the caller: `>&-`
                sys.stdout.flush()  # what cannot be written is found out here, and not when the interpreter has ended
            return result
        except SamdeployError as error:
            text = " ".join(str(error).split())
            if isinstance(error, DatasetMissing):  # every command that opens a data set has this option
                text += "; if the files lie elsewhere, name their folder: --data DIR"
            print(f"samdeploy: {text}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("samdeploy"):
                raise  # a mistake of ours, not of the installation
            print(f"samdeploy: {missing_package(error, function.__name__)}", file=sys.stderr)
            raise SystemExit(1) from None
        except BrokenPipeError:  # `samdeploy predict ... | head`: ends quietly, with the code of other programs
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
            raise SystemExit(128 + signal.SIGPIPE) from None
        except (MemoryError, RuntimeError) as error:
            full = _memory_error(error)
            if full is None:
                raise
            print(f"samdeploy: {full}", file=sys.stderr)
            raise SystemExit(1) from None
        except OSError as error:  # a full disk, a folder that may not be written to
            print(f"samdeploy: {_file_error(error)}", file=sys.stderr)
            raise SystemExit(2) from None
        except KeyboardInterrupt as error:
            if SAID not in error.args:
                print("samdeploy: interrupted", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapped


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
    return f"the memory is full{f' ({said})' if said else ''}; end other programs, or take smaller batches or pictures"


def _file_error(error: OSError) -> str:
    """Which file or folder, what is wrong with it, and the cure where there is one."""
    cure = {
        errno.EACCES: "; change its permissions, or name another place",
        errno.EROFS: "; name a place that can be written to",
        errno.ENOSPC: "; free some space, or name another place",
    }.get(error.errno or 0, "")
    return f"{error.filename or 'output'}: {error.strerror or error}{cure}"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"samdeploy {samdeploy.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of samdeploy itself; the text above the commands is the application's."""


def main() -> None:
    """Entry point of the `samdeploy` command."""
    signal.signal(signal.SIGTERM, _terminate)
    # Pillow's remarks on a picture, with file and line of its own source; what is wrong with one is said in our words.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that the terminal's encoding lacks is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    if "" in sys.argv[1:]:  # a path of no letters would be taken for the current folder
        print("samdeploy: an argument is empty; a variable of the shell that is not set?", file=sys.stderr)
        raise SystemExit(2)
    try:
        app()
    except KeyboardInterrupt:  # outside a command: while arguments are read or the interpreter winds up
        raise SystemExit(130) from None


def _terminate(number: int, frame: object) -> None:
    """What Ctrl-C does, for `docker stop`, a batch system or `timeout`: whatever is open is closed in good order."""
    os.write(2, b"samdeploy: terminated\n")  # print could be interrupted in the middle of another print
    raise SystemExit(128 + number)
