"""`samdeploy export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from samdeploy.cli.app import DataRoot, RunsRoot, command
from samdeploy.cli.arguments import batch_sizes, check_writable, one_name, taken


@command
def export(
    run: Annotated[
        Path | None, typer.Argument(help="A run; the newest if left out. With --triton, a bundle works, too.")
    ] = None,
    engines: Annotated[
        list[str] | None,
        typer.Option("--engine", metavar="NAME", help="trt, trt-rtx, onnxruntime or openvino; all if left out."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16, bf16 or int8; each engine's usual one if left out.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="MIN,OPT,MAX", help="Batch sizes of a TensorRT engine; 1,8,64 if left out.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="GPU generations for TensorRT-RTX: SM86, or SM86+SM89.")] = None,
    optimization_level: Annotated[
        int | None, typer.Option(help="TensorRT's, 0 to 5: longer builds, faster engines; 3 if left out.")
    ] = None,
    workspace: Annotated[int | None, typer.Option(help="TensorRT's scratch memory, in MiB.")] = None,
    max_drop: Annotated[float, typer.Option(help="Most points of validation top-1 that int8 may lose.", min=0)] = 0.5,
    reject_error: Annotated[
        float | None,
        typer.Option(
            "--reject-error",
            metavar="PERCENT",
            help="Reject answers, so that at most this share of the others is wrong.",
        ),
    ] = None,
    headroom_plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the FP16 head-room of every tensor.")
    ] = None,
    cam: Annotated[
        bool, typer.Option("--cam/--no-cam", help="Write the graph that draws class activation maps.")
    ] = True,
    small: Annotated[
        bool,
        typer.Option(
            "--small", help="Leave out the graph of activation maps, and the FP16 graph unless an FP16 engine is named."
        ),
    ] = False,
    triton: Annotated[
        Path | None,
        typer.Option(metavar="REPO", help="Also write a model repository for Triton."),
    ] = None,
    data: DataRoot = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Write a bundle: graphs and engines of a run.  It is RUN/bundle."""
    from samdeploy.bundle.names import BUNDLE_FOLDER, MANIFEST
    from samdeploy.bundle.spec import ENGINES, PRECISIONS
    from samdeploy.errors import InputError, check_name
    from samdeploy.runs.record import latest_run

    engine = one_name("--engine", engines, "all")
    # Before PyTorch is loaded, and whether or not there is a run.
    check_name("engine", engine, ENGINES)
    if precision is not None:
        check_name("precision", precision, PRECISIONS)
    own: dict[str, Any] = {
        "--batch": batch,
        "--target": target,
        "--optimization-level": optimization_level,
        "--workspace": workspace,
    }
    for option, value in own.items():
        if value is not None and engine in ("onnxruntime", "openvino"):
            raise InputError(f"{option}: is for TensorRT engines, and --engine {engine} builds none; leave it out")
    if small and headroom_plot is not None:
        raise InputError("--headroom-plot: there is nothing to draw without the FP16 graph; leave out --small")
    if headroom_plot is not None:
        check_writable("--headroom-plot", headroom_plot)
        if headroom_plot.suffix.lower() not in (".png", ".svg", ".pdf"):
            raise InputError(f"--headroom-plot {headroom_plot}: a .png, .svg or .pdf expected")
    if triton is not None and run is not None and (run / MANIFEST).is_file():
        own |= {
            "--small": small or None,
            "--reject-error": reject_error,
            "--headroom-plot": headroom_plot,
            "--data": data,
        }
        for option, value in own.items():
            if value is not None:
                raise InputError(f"{option}: nothing is exported anew from a bundle; name its run, or leave it out")
        _write_repository(run, triton, engine, precision)
        return
    run_dir = run if run is not None else taken("run", latest_run(runs))
    if triton is not None:  # known now, not after minutes of exporting
        from samdeploy.export.triton.place import check_repository
        from samdeploy.runs.locate import address_name

        check_repository(triton, address_name(run_dir / BUNDLE_FOLDER), run_dir / BUNDLE_FOLDER)

    from samdeploy.export import ExportOptions, export_run
    from samdeploy.report.text.export import export_table, headroom_table, int8_lines

    # What was left out has its default in one place.
    given: dict[str, Any] = {
        "batch": None if batch is None else batch_sizes(batch),
        "optimization_level": optimization_level,
        "workspace": workspace,
    }
    options = ExportOptions(
        engine=engine,
        precision=precision,
        target=target,
        max_drop=max_drop,
        data_root=data,
        cam=cam and not small,
        small=small,
        reject_error=reject_error,
        **{key: value for key, value in given.items() if value is not None},
    )
    result = export_run(run_dir, options)
    if result.headroom is not None:
        print(headroom_table(result.headroom))
    if result.headroom is None and headroom_plot is not None:
        print("--headroom-plot: nothing to draw; the network was imported without images", file=sys.stderr)
    elif result.headroom is not None and headroom_plot is not None:
        from samdeploy.export.fp16.headroom_plot import plot_headroom

        plot_headroom(result.headroom, headroom_plot)
        print(f"head-room of every tensor: {headroom_plot}")
    print()
    for quantized in result.int8:
        print(int8_lines(quantized))
    print(export_table(result))
    if triton is not None:
        _write_repository(result.bundle, triton, engine, precision)
    print(f"next: samdeploy eval {run_dir}", file=sys.stderr)
    print(result.bundle)


def _write_repository(bundle: Path, repository: Path, engine: str, precision: str | None) -> None:
    from samdeploy.bundle import open_bundle
    from samdeploy.export.triton.repository import write_repository
    from samdeploy.runs.locate import address_name

    opened = open_bundle(bundle)
    for model in write_repository(opened, repository, address_name(opened.root), engine, precision):
        print(f"{repository / model}", file=sys.stderr)
