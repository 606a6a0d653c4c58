"""The command line: one function per command; what a command needs is imported inside it.

Exit codes: 0 done, 1 a promise was not kept (a gate failed, an engine cannot be had, a picture was broken),
2 the input is wrong, 130 interrupted.
"""

from __future__ import annotations

import functools
import io
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer

import samdeploy
from samdeploy.errors import SamdeployError

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

# Which of our extras brings a package.
_EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "safetensors", "sklearn"), "train"),
    **{package: package for package in ("onnxruntime", "openvino", "tensorrt")},
    "onnx": "export",
    "matplotlib": "plots",
}

RunsRoot = Annotated[Path, typer.Option("--runs", help="Folder of all runs.")]
DataRoot = Annotated[Path | None, typer.Option("--data", help="Folder of the data set's files.")]


def _command(function: Callable[P, R]) -> Callable[P, R]:
    """Register a command; our own errors become one line on standard error and an exit code."""

    @app.command()
    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except SamdeployError as error:
            print(f"samdeploy: {' '.join(str(error).split())}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("samdeploy"):
                raise  # a mistake of ours, not of the installation
            print(f"samdeploy: {_missing_package(error, function.__name__)}", file=sys.stderr)
            raise SystemExit(1) from None
        except BrokenPipeError:
            raise  # `samdeploy predict ... | head`: typer ends the program quietly
        except OSError as error:  # a full disk, a folder that may not be written to
            print(f"samdeploy: {error.filename or 'output'}: {error.strerror or error}", file=sys.stderr)
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            print("samdeploy: interrupted", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapped


@_command
def train(
    recipe: Annotated[str, typer.Argument(help="A built-in recipe's name, or a .toml file.")] = "digits",
    data: DataRoot = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe's value; repeatable.")
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the data set where it can be had.")] = False,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Train a network: writes a run directory with the best weights."""
    from samdeploy.train.recipe import load_recipe

    overrides = list(settings or [])
    if data is not None:
        overrides.append(f"data.root={data}")
    if download:
        overrides.append("data.download=true")
    loaded = load_recipe(recipe, overrides)

    from samdeploy.train.loop import train as run_training

    print(run_training(loaded, runs_root=runs))


@_command
def export(
    run: Annotated[Path | None, typer.Argument(help="A run directory; the newest if left out.")] = None,
    engine: Annotated[str, typer.Option(help="trt, trt-rtx, onnxruntime, openvino or all.")] = "all",
    precision: Annotated[str | None, typer.Option(help="fp32, fp16, bf16 or int8; each engine's usual one.")] = None,
    batch: Annotated[str, typer.Option(metavar="MIN,OPT,MAX", help="Batch sizes of a TensorRT engine.")] = "1,8,64",
    target: Annotated[str | None, typer.Option(help="GPU generations for TensorRT-RTX: SM86, or SM86+SM89.")] = None,
    optimization_level: Annotated[int, typer.Option(help="TensorRT's, 0 to 5: longer builds, faster engines.")] = 3,
    workspace: Annotated[int | None, typer.Option(help="TensorRT's scratch memory, in MiB.")] = None,
    max_drop: Annotated[float, typer.Option(help="Points of validation top-1 that int8 may cost.", min=0)] = 0.5,
    headroom_plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the FP16 head-room of every tensor.")
    ] = None,
    data: DataRoot = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Fold a trained network, write its graphs, build engines: writes RUN/bundle."""
    from samdeploy.run import latest_run
    from samdeploy.spec import ENGINES, PRECISIONS

    # Before PyTorch is loaded, and whether or not there is a run.
    _check_name("engine", engine, ENGINES)
    _check_name("precision", precision, PRECISIONS)
    run_dir = run if run is not None else _taken("run", latest_run(runs))

    from samdeploy.export import ExportOptions, export_run
    from samdeploy.export.table import export_table, headroom_table, int8_lines

    options = ExportOptions(
        engine=engine,
        precision=precision,
        batch=_batch_sizes(batch),
        target=target,
        optimization_level=optimization_level,
        workspace=workspace,
        max_drop=max_drop,
        data_root=data,
    )
    result = export_run(run_dir, options)
    print(headroom_table(result.headroom))
    if headroom_plot is not None:
        from samdeploy.export.headroom_plot import plot_headroom

        plot_headroom(result.headroom, headroom_plot)
        print(f"head-room of every tensor: {headroom_plot}")
    print()
    for quantized in result.int8:
        print(int8_lines(quantized))
    print(export_table(result))
    print(result.bundle)


@_command
def eval(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle; the newest if left out.")] = None,
    backend: Annotated[str, typer.Option(help="pytorch, onnxruntime, openvino, tensorrt or all.")] = "all",
    precision: Annotated[str | None, typer.Option(help="fp32, fp16, bf16 or int8; each engine's own.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    data: DataRoot = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here too.")] = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Run the whole test set through each engine and compare with PyTorch; exit 0 only if the gate holds."""
    from samdeploy.backends import BACKENDS
    from samdeploy.backends.session import DEVICES
    from samdeploy.bundle import latest_bundle, open_bundle
    from samdeploy.errors import InputError
    from samdeploy.spec import PRECISIONS

    _check_name("backend", backend, (*BACKENDS, "all"))
    _check_name("precision", precision, PRECISIONS)
    _check_name("device", device, DEVICES)
    if json_file is not None and not json_file.parent.is_dir():  # known now, not after minutes of evaluation
        raise InputError(f"--json: the folder {json_file.parent} does not exist; make it first")
    opened = open_bundle(bundle if bundle is not None else _taken("bundle", latest_bundle(runs)))

    from samdeploy.evaluate import EvalOptions, evaluate_bundle, table, verdict
    from samdeploy.evaluate.report import EVAL_FILE
    from samdeploy.files import json_bytes, write_atomic

    report = evaluate_bundle(opened, EvalOptions(backend, precision, device, data))
    print(table(report))
    print(f"{verdict(report)}: {opened.root}")
    content = json_bytes(report.to_json())
    if json_file is not None:
        write_atomic(json_file, content)
    try:
        write_atomic(opened.root / EVAL_FILE, content)
    except OSError as error:  # a bundle may lie where nothing can be written; the verdict stands
        print(f"samdeploy: {opened.root / EVAL_FILE} was not written: {error.strerror}", file=sys.stderr)
    if not report.passed:
        raise SystemExit(1)


@_command
def predict(
    paths: Annotated[list[Path], typer.Argument(metavar="[BUNDLE] IMAGE...", help="Pictures, or folders of them.")],
    top: Annotated[int, typer.Option(help="Classes to name.", min=1)] = 5,
    backend: Annotated[str, typer.Option(help="auto, pytorch, onnxruntime, openvino or tensorrt.")] = "auto",
    precision: Annotated[str | None, typer.Option(help="fp32, fp16, bf16 or int8; the engine's own.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per picture, one per line.")] = False,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Name the classes of pictures; the bundle is the newest unless the first path is one."""
    from samdeploy.backends import BACKENDS
    from samdeploy.backends.session import DEVICES
    from samdeploy.predict import predict_paths
    from samdeploy.spec import PRECISIONS

    _check_name("backend", backend, ("auto", *BACKENDS))
    _check_name("precision", precision, PRECISIONS)
    _check_name("device", device, DEVICES)
    if not predict_paths(paths, runs, top=top, backend=backend, precision=precision, device=device, as_json=as_json):
        raise SystemExit(1)


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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file name that the terminal's encoding lacks is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:  # outside a command: while arguments are read or the interpreter winds up
        raise SystemExit(130) from None


def _terminate(number: int, frame: object) -> None:
    """What Ctrl-C does, for `docker stop`, a batch system or `timeout`: whatever is open is closed in good order."""
    raise SystemExit(128 + number)


def _check_name(kind: str, found: str | None, valid: Iterable[str]) -> None:
    from samdeploy.errors import InputError, unknown

    if found is not None and found not in valid:
        raise InputError(unknown(kind, found, valid))


def _taken(what: str, path: Path) -> Path:
    print(f"taking the newest {what}: {path}", file=sys.stderr)
    return path


def _batch_sizes(text: str) -> tuple[int, int, int]:
    from samdeploy.errors import InputError

    try:
        low, usual, high = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--batch: {text!r} found, three numbers expected, such as 1,8,64") from None
    return low, usual, high


def _missing_package(error: ModuleNotFoundError, command: str) -> str:
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    if extra == "train" and command == "export":
        extra = "export"
    cure = f"samdeploy[{extra}]" if extra else package
    return f"the package {package!r} is not installed; pip install '{cure}'"


if __name__ == "__main__":
    main()
