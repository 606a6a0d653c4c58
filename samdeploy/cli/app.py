"""The application that commands are registered with, and the entry point.

Exit codes: 0 done, 1 a promise was not kept (a gate failed, an engine cannot be had, some images were broken),
2 the input is wrong (or not one of the images could be read), 130, 141 and 143 ended by Ctrl-C, a closed pipe
or SIGTERM.
"""

from __future__ import annotations

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
from samdeploy.cli.arguments import GENERAL_HINT, no_such_option
from samdeploy.cli.endings import one_line_errors

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    name="samdeploy",
    help="Train an image classifier with streamlined attention, export it to an engine, and prove that the engine "
    "answers as the trained model does.  Each command uses the newest result of the previous one, and prints which.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # importing rich would double the time of --help
    pretty_exceptions_enable=False,
)

RunsRoot = Annotated[Path, typer.Option("--runs", help="Folder of all runs.")]
DataRoot = Annotated[Path | None, typer.Option("--data", help="The data set's folder, table or tar shards.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe's value: [section.]key=value; repeatable."),
]
Epochs = Annotated[
    int | None, typer.Option("--epochs", metavar="N", help="Maximum number of epochs (training.epochs).")
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", metavar="N", help="Images per step (training.batch_size).")
]
LearningRate = Annotated[
    float | None, typer.Option("--lr", metavar="RATE", help="Peak learning rate (training.learning_rate).")
]
Size = Annotated[
    str | None, typer.Option("--size", metavar="PIXELS", help="The network's input, 64 or HEIGHTxWIDTH (image.size).")
]


# More arguments than a person types: the shell wrote them.
_LONG = 100


class _Command(typer.core.TyperCommand):
    """A command that names the recipe's key where somebody gives it as an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = [name for parameter in self.params for name in parameter.opts]
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # typer does not export its NoSuchOption
            if hasattr(error, "possibilities") and "--set" in own:
                option: str = error.option_name  # type: ignore[attr-defined]
                hint = no_such_option(option, own)
                if hint or not error.possibilities:
                    error.message = f"No such option: {option}; {hint or GENERAL_HINT}"  # type: ignore[attr-defined]
                    error.possibilities = None
            message = getattr(error, "message", "")
            if isinstance(message, str) and "extra argument" in message and len(message) > _LONG:
                error.message = f"{message[:_LONG]}...; put a pattern in quotes"  # type: ignore[attr-defined]
            raise


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Register a command; our own errors become one line on standard error and an exit code."""

    name = function.__name__.rstrip("_").replace("_", "-")  # "import" is a word of the language

    @app.command(name, cls=_Command)
    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        images = str(kwargs.get("recipe") or os.devnull)
        names_data = kwargs.get("data", kwargs.get("root")) is not None or Path(images).is_dir()
        with one_line_errors(name, names_data=names_data):
            result = function(*args, **kwargs)
            sys.stdout.flush()  # what cannot be written is found out here, and not when the interpreter has ended
            return result

    return wrapped


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
    _open_closed_streams()
    # Pillow's remarks on an image, with file and line of its own source; what is wrong with one is said in our words.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that the terminal's encoding lacks is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    _quiet_matplotlib()
    try:
        Path.cwd()
    except FileNotFoundError:  # PyTorch would end the process while it is imported
        print("samdeploy: the current folder was deleted; change to another one: cd", file=sys.stderr)
        raise SystemExit(2) from None
    if "" in sys.argv[1:]:  # a path of no letters would be taken for the current folder
        print("samdeploy: an argument is empty; a variable of the shell that is not set?", file=sys.stderr)
        raise SystemExit(2)
    with one_line_errors("samdeploy"):  # outside a command, too: while arguments are read or help is printed
        app()


def _open_closed_streams() -> None:
    """Fill the standard streams that the caller closed (`>&-`): else the next file opened would be one of them.

    Writing to a closed standard output fails with EBADF, as for other programs; what goes to standard error is lost.
    """
    for stream, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, mode)  # the lowest number that is free: this one
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _quiet_matplotlib() -> None:
    """Without a home to write to it says in every process that its list of fonts is made in a temporary folder."""
    try:
        if os.access(Path.home(), os.W_OK):
            return
    except RuntimeError:  # no home is known, and before 3.11 matplotlib asks for one: it takes a temporary folder, too
        os.environ.setdefault("MPLCONFIGDIR", os.devnull)
    import logging  # late: 4 ms

    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def _terminate(number: int, frame: object) -> None:
    """What Ctrl-C does, for `docker stop`, a batch system or `timeout`: whatever is open is closed in good order."""
    os.write(2, b"samdeploy: terminated\n")  # print could be interrupted in the middle of another print
    raise SystemExit(128 + number)
