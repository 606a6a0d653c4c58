"""`samdeploy label`: classes for many images, in files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import command
from samdeploy.cli.arguments import shard_of


@command
def label(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or a run that has one.")],
    input: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="Folder, quoted pattern, list, table, Parquet or tar; - reads a list."),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the results.")],
    rows: Annotated[int, typer.Option(help="Rows per Parquet file.", min=1)] = 10_000,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Write parts I, I+N, I+2N...: one of N jobs.")] = "1/1",
    where: Annotated[str, typer.Option(help="Write only some rows: rejected, error, 'probability < X'.")] = "",
    logits: Annotated[str, typer.Option(help="Also write logits: float16 or float32.")] = "",
    features: Annotated[str, typer.Option(help="Also write the last linear layer's input: float16 or float32.")] = "",
    column: Annotated[str, typer.Option(help="A table's column with paths, addresses or encoded images.")] = "",
    limit: Annotated[int | None, typer.Option(help="Stop after this many rows.", min=1)] = None,
    batch: Annotated[int, typer.Option(help="Batch size.", min=1)] = 16,
    threads: Annotated[
        int | None, typer.Option(help="Threads that decode; one per processor if left out.", min=1)
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, pytorch, onnxruntime, openvino or tensorrt.")] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16, bf16 or int8; the engine's usual one if left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    engine: Annotated[str, typer.Option(help="plain: this process; ray: actors on a cluster.")] = "plain",
    workers: Annotated[int | None, typer.Option(help="Actors of ray; one for each node if left out.", min=1)] = None,
    gpus: Annotated[float, typer.Option(help="GPUs that each actor of ray takes.", min=0)] = 0.0,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an address.", min=0.1)] = 30.0,
    trust: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Public key (PEM) that must have signed the bundle.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Start over if the folder holds other results.")] = False,
) -> None:
    """Label many images, into Parquet files.  After an interruption, the same command continues."""
    from samdeploy.backends.names import check_names
    from samdeploy.errors import BackendUnavailable, InputError

    check_names(backend, device, precision, also="auto")
    own = shard_of(shard)
    for option, value in (("--logits", logits), ("--features", features)):
        if value not in ("", "float16", "float32"):
            raise InputError(f"{option}: {value!r} found, float16 or float32 expected")
    if features:
        backend, precision = "onnxruntime" if backend == "auto" else backend, precision or "fp32"
    if engine not in ("plain", "ray"):
        raise InputError(f"--engine: {engine!r} found, plain or ray expected; --backend names the runtime")
    if engine == "plain" and (workers or gpus):
        raise InputError("--workers, --gpus: for --engine ray; for processes of your own, --shard")
    from samdeploy.label.folder import SETTINGS_FILE
    from samdeploy.label.label import label
    from samdeploy.label.options import LabelOptions
    from samdeploy.label.summary import say
    from samdeploy.runs.locate import bundle_of

    options = LabelOptions(
        input, out, rows, batch, threads, own, limit, where, logits, features, column, timeout, force
    )
    if engine == "ray":
        try:
            from samdeploy.label.ray import Wanted, label_on_ray
        except ModuleNotFoundError as error:
            raise BackendUnavailable(f"--engine ray: {error}; pip install 'samdeploy[label,ray]'") from error
        wanted = Wanted(bundle_of(bundle), backend, device, precision, trust, workers, gpus)
    else:
        from samdeploy.classifier import Classifier

        opened = Classifier.open(bundle_of(bundle), backend, device=device, precision=precision, trust=trust)
    try:
        if engine == "ray":
            found, classes = label_on_ray(wanted, options)
        else:
            with opened as classifier:
                found, classes = label(classifier, options), classifier.classes
    except (KeyboardInterrupt, SystemExit):
        if (out / SETTINGS_FILE).is_file():
            same = "the same command without --force" if force else "the same command"
            kept = len(list(out.glob("part-*.parquet")))
            if kept:
                print(f"stopped after {kept} part{'s' * (kept != 1)}; {same} goes on from there", file=sys.stderr)
            else:
                cure = f"a part has {rows:,} rows; --rows N --force makes smaller ones"
                print(f"stopped before the first part was whole, so nothing is kept; {cure}", file=sys.stderr)
        raise
    say(found, classes)
    print(out)
    # Other shards may still be at work: only what this one should have done is its failure.
    is_wrong = found.parts[0] == found.parts[1] and not found.whole
    if is_wrong or found.errors == found.done > 0:
        raise typer.Exit(1)
