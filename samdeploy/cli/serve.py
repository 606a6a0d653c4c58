"""`samdeploy serve`: bundles behind a port."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import RunsRoot, command


@command
def serve(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(metavar="[[NAME[:VERSION]=]BUNDLE]...", help="Bundles or runs; the newest bundle if none."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    grpc_port: Annotated[int | None, typer.Option(help="Also serve gRPC at this port.", min=0, max=65535)] = None,
    batch: Annotated[int, typer.Option(help="Images per call of the engine, at most.", min=1)] = 16,
    delay_ms: Annotated[float, typer.Option(help="How long an image waits for others.", min=0)] = 0.0,
    queue: Annotated[int, typer.Option(help="Images that may wait; beyond them: 503.", min=1)] = 128,
    timeout: Annotated[float, typer.Option(help="Seconds until a request is too late: 504.", min=0.001)] = 10.0,
    backend: Annotated[str, typer.Option(help="auto, pytorch, onnxruntime, openvino or tensorrt.")] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16, bf16 or int8; the engine's usual one if left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads that decode; 0: one per processor.", min=0)] = 0,
    selftest_every: Annotated[
        float, typer.Option(help="Seconds between runs of the golden images; 0: at the start alone.", min=0)
    ] = 600.0,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the key that clients must give.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    max_bytes: Annotated[int, typer.Option(help="Longest request.", min=1)] = 32 << 20,
    max_pixels: Annotated[int, typer.Option(help="Largest image.", min=1)] = 1 << 26,
    connections: Annotated[int, typer.Option(help="Most at a time.", min=1)] = 1000,
    header_seconds: Annotated[
        float, typer.Option(help="Seconds until a request's head must be there.", min=0.01)
    ] = 10.0,
    body_seconds: Annotated[float, typer.Option(help="Seconds until its body must be there.", min=0.01)] = 30.0,
    drain_seconds: Annotated[
        float, typer.Option(help="After SIGTERM, how long requests are still taken while it says not ready.", min=0)
    ] = 0.0,
    workers: Annotated[
        int, typer.Option(help="Processes that share the port, each with its own engine.", min=1, max=256)
    ] = 1,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Serve bundles by the Open Inference Protocol (KServe v2): tensors or images in, classes and maps out."""
    from samdeploy.backends.names import check_names
    from samdeploy.runs.locate import latest_bundle
    from samdeploy.serve.models import Limits
    from samdeploy.serve.server import ServeOptions, serve

    check_names(backend, device, precision, also="auto")
    limits = Limits(batch, delay_ms / 1000, queue, timeout, max_bytes, max_pixels)
    options = ServeOptions(
        host, port, grpc_port, backend, device, precision, limits, threads, selftest_every, api_key_file,
        tls_cert, tls_key, header_seconds, body_seconds, connections=connections, drain_seconds=drain_seconds,
        workers=workers,
    )  # fmt: skip
    serve(bundles or [str(latest_bundle(runs))], options)
