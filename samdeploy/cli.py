"""The command line: one function per command; what a command needs is imported inside it.

Exit codes: 0 done, 1 a promise was not kept (a gate failed, an engine cannot be had, a picture was broken),
2 the input is wrong, 130 interrupted.
"""

from __future__ import annotations

import functools
import io
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer

import samdeploy
from samdeploy.arguments import batch_sizes, check_name, check_writable, missing_package, sizes_from, taken
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
            print(f"samdeploy: {missing_package(error, function.__name__)}", file=sys.stderr)
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
    cam: Annotated[
        bool, typer.Option("--cam/--no-cam", help="Write the graph of class activation maps, for explain.")
    ] = True,
    data: DataRoot = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Fold a trained network, write its graphs, build engines: writes RUN/bundle."""
    from samdeploy.run import latest_run
    from samdeploy.spec import ENGINES, PRECISIONS

    # Before PyTorch is loaded, and whether or not there is a run.
    check_name("engine", engine, ENGINES)
    check_name("precision", precision, PRECISIONS)
    if headroom_plot is not None:
        check_writable("--headroom-plot", headroom_plot)
    run_dir = run if run is not None else taken("run", latest_run(runs))

    from samdeploy.export import ExportOptions, export_run
    from samdeploy.export.table import export_table, headroom_table, int8_lines

    options = ExportOptions(
        engine=engine,
        precision=precision,
        batch=batch_sizes(batch),
        target=target,
        optimization_level=optimization_level,
        workspace=workspace,
        max_drop=max_drop,
        data_root=data,
        cam=cam,
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
    margin: Annotated[float, typer.Option(help="Points of top-1 that an engine below FP32 may lose.")] = 0.5,
    confidence: Annotated[float, typer.Option(help="With which the test images must show it, below 1.")] = 0.95,
    consistency: Annotated[
        float, typer.Option(metavar="SECONDS", help="For each engine's checks against itself; 0: none.")
    ] = 60.0,
    why: Annotated[bool, typer.Option("--why", help="Find the layer at which a failing engine departs.")] = False,
    data: DataRoot = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here too.")] = None,
    report_folder: Annotated[
        Path | None, typer.Option("--report", metavar="DIR", help="Write report.html, report.json and junit.xml here.")
    ] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write the result as JUnit XML.")
    ] = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Run the whole test set through each engine and compare with PyTorch; exit 0 only if the gate holds.

    FP32 must give the same answers.  Any other precision must be shown to lose less top-1 than the margin.
    """
    from samdeploy.bundle import latest_bundle, open_bundle
    from samdeploy.errors import InputError
    from samdeploy.evaluate import EvalOptions, evaluate_bundle, table, verdict, write_eval
    from samdeploy.files import json_bytes, write_atomic

    options = EvalOptions(backend, precision, device, data, margin, confidence, consistency, why)
    for option, file in (("--json", json_file), ("--junit", junit_file)):
        if file is not None:  # known now, not after minutes of evaluation
            check_writable(option, file)
    if json_file is not None and junit_file is not None and json_file.absolute() == junit_file.absolute():
        raise InputError(f"--json and --junit: both name {json_file}; name two files")
    opened = open_bundle(bundle if bundle is not None else taken("bundle", latest_bundle(runs)))
    if report_folder is not None:
        from samdeploy.report.write import make_folder, write_report  # Jinja may be missing: known now as well

        make_folder(report_folder)

    report = evaluate_bundle(opened, options)
    print(table(report))
    print(f"{verdict(report)}: {opened.root}")
    if json_file is not None:
        write_atomic(json_file, json_bytes(report.to_json()))
    try:
        write_eval(opened.root, report)
    except OSError as error:  # a bundle may lie where nothing can be written; the verdict stands
        print(f"samdeploy: {opened.root}: eval.json was not written: {error.strerror}", file=sys.stderr)
    if junit_file is not None:
        from samdeploy.report.junit import junit_xml

        write_atomic(junit_file, junit_xml(report))
    if report_folder is not None:
        line = shlex.join(["samdeploy", *sys.argv[1:]])
        print(f"report: {write_report(report_folder, opened, report, data_root=data, command=line)}")
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

    check_name("backend", backend, ("auto", *BACKENDS))
    check_name("precision", precision, PRECISIONS)
    check_name("device", device, DEVICES)
    if not predict_paths(paths, runs, top=top, backend=backend, precision=precision, device=device, as_json=as_json):
        raise SystemExit(1)


@_command
def explain(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[BUNDLE] [IMAGE]...", help="Pictures or folders; the bundle's golden ones if none."),
    ] = None,
    top: Annotated[int, typer.Option(help="Classes to draw a map of, per picture.", min=1)] = 3,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the pictures go.")] = Path("explain"),
    gates: Annotated[bool, typer.Option("--gates", help="Draw the gates of the attention modules instead.")] = False,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime, openvino or pytorch.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    runs: RunsRoot = Path("runs"),
) -> None:
    """Draw where the network sees each class; the bundle is the newest unless the first path is one."""
    from samdeploy.backends import BACKENDS
    from samdeploy.backends.session import DEVICES
    from samdeploy.explain import ExplainOptions, explain_gates, explain_paths

    check_name("backend", backend, ("auto", *BACKENDS))
    check_name("device", device, DEVICES)
    options = ExplainOptions(runs_root=runs, out=out, top=top, backend=backend, device=device)
    if not (explain_gates if gates else explain_paths)(paths or [], options):
        raise SystemExit(1)


@_command
def bench(
    bundle: Annotated[Path | None, typer.Argument(help="A bundle; the newest if left out.")] = None,
    against: Annotated[bool, typer.Option("--against", help="Beside the alternatives, in turns.")] = False,
    alternatives: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Which alternatives; all that can run here if left out.")
    ] = None,
    backend: Annotated[str, typer.Option(help="pytorch, onnxruntime, openvino, tensorrt or all.")] = "all",
    precision: Annotated[str | None, typer.Option(help="fp32, fp16, bf16 or int8; each engine's own.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    batch: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Batch sizes; 1, 2, 4 and so on if left out.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of your pictures; test pictures if left out.")] = None,
    data: DataRoot = None,
    seconds: Annotated[float, typer.Option(help="Of measuring, for each point.")] = 1.0,
    rounds: Annotated[int, typer.Option(help="In which the alternatives take turns.")] = 21,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the result here too.")] = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Latency, throughput, cold start and memory of each engine; with --against, ratios to the alternatives."""
    from samdeploy.backends import BACKENDS
    from samdeploy.backends.session import DEVICES
    from samdeploy.bundle import latest_bundle, open_bundle
    from samdeploy.errors import InputError
    from samdeploy.spec import PRECISIONS

    check_name("backend", backend, (*BACKENDS, "all"))
    check_name("precision", precision, PRECISIONS)
    check_name("device", device, DEVICES)
    if alternatives is not None and not against:
        raise InputError("--alternatives: has a meaning beside --against only; add it")
    if json_file is not None:  # known now, not after minutes of measuring
        check_writable("--json", json_file)
    sizes = sizes_from(batch)
    opened = open_bundle(bundle if bundle is not None else taken("bundle", latest_bundle(runs)))

    from samdeploy.bench.options import ALTERNATIVES, BenchOptions
    from samdeploy.bench.pipeline import bench_against, bench_bundle
    from samdeploy.bench.table import table
    from samdeploy.files import json_bytes, write_atomic

    names = tuple(part.strip() for part in alternatives.split(",")) if alternatives is not None else ALTERNATIVES
    options = BenchOptions(backend, precision, device, sizes, images, data, seconds, rounds, names)
    report = (bench_against if against else bench_bundle)(opened, options)
    print(table(report))
    if json_file is not None:
        write_atomic(json_file, json_bytes(report.to_json()))
    if not report.complete:
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


if __name__ == "__main__":
    main()
