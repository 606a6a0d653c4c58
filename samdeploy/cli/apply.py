"""`samdeploy predict` and `samdeploy explain`: a bundle at work on images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import RunsRoot, command
from samdeploy.cli.arguments import print_as_utf8


@command
def predict(
    paths: Annotated[list[Path], typer.Argument(metavar="[BUNDLE] IMAGE...", help="Images, or folders of them.")],
    top: Annotated[int, typer.Option(help="How many classes to print.", min=1)] = 5,
    backend: Annotated[str, typer.Option(help="auto, pytorch, onnxruntime, openvino or tensorrt.")] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16, bf16 or int8; the engine's usual one if left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line and image.")] = False,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Classify images.  The bundle is the newest one, unless the first path is a bundle."""
    from samdeploy.backends.names import check_names
    from samdeploy.predict import predict_paths

    check_names(backend, device, precision, also="auto")
    if as_json:
        print_as_utf8()
    if not predict_paths(paths, runs, top=top, backend=backend, precision=precision, device=device, as_json=as_json):
        raise SystemExit(1)


@command
def explain(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[BUNDLE] [IMAGE]...", help="Images or folders; the bundle's golden ones if none."),
    ] = None,
    top: Annotated[int, typer.Option(help="How many classes to draw a map of, per image.", min=1)] = 3,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write the maps to; explain/RUN if left out.")
    ] = None,
    gates: Annotated[bool, typer.Option("--gates", help="Draw the attention modules' gates instead of maps.")] = False,
    backend: Annotated[str, typer.Option(help="auto, onnxruntime, openvino or pytorch.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    runs: RunsRoot = Path("runs"),
) -> None:
    """Draw where the network sees each class.  The bundle is the newest one, unless the first path is a bundle."""
    from samdeploy.explain import ExplainOptions, explain_gates, explain_paths

    options = ExplainOptions(runs_root=runs, out=out, top=top, backend=backend, device=device)
    if not (explain_gates if gates else explain_paths)(paths or [], options):
        raise SystemExit(1)
