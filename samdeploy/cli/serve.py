"""`samdeploy serve`: bundles behind a port."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from samdeploy.cli.app import RunsRoot, command

# Of times: what timers take.
_LONGEST = 1e6


@command
def serve(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(metavar="[[NAME[:VERSION]=]BUNDLE]...", help="Bundles or runs; the newest bundle if none."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0: every address of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port for HTTP; 0 picks a free one.", min=0, max=65535)] = 8000,
    grpc_port: Annotated[
        int | None, typer.Option(help="Also serve gRPC on this port; 0 picks a free one.", min=0, max=65535)
    ] = None,
    batch: Annotated[int, typer.Option(help="Largest batch.", min=1)] = 16,
    delay_ms: Annotated[
        float, typer.Option(help="Longest wait for a fuller batch, in milliseconds.", min=0, max=_LONGEST)
    ] = 0.0,
    queue: Annotated[int, typer.Option(help="Images that may wait; more are refused with 503.", min=1)] = 128,
    timeout: Annotated[
        float, typer.Option(help="Seconds before a request is refused as late, with 504.", min=0.001, max=_LONGEST)
    ] = 10.0,
    backend: Annotated[str, typer.Option(help="auto, pytorch, onnxruntime, openvino or tensorrt.")] = "auto",
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16, bf16 or int8; the engine's usual one if left out.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads that decode; 0: one per processor.", min=0)] = 0,
    selftest_every: Annotated[
        float, typer.Option(help="Seconds between golden-image checks; 0: only at the start.", min=0, max=_LONGEST)
    ] = 600.0,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the API key that clients must send.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="TLS certificate, a PEM file.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key of the certificate, a PEM file.")] = None,
    max_bytes: Annotated[int, typer.Option(help="Largest request, in bytes.", min=1)] = 32 << 20,
    max_pixels: Annotated[int, typer.Option(help="Largest image, in pixels.", min=1)] = 1 << 26,
    connections: Annotated[int, typer.Option(help="Most connections at once.", min=1)] = 1000,
    header_seconds: Annotated[
        float, typer.Option(help="Seconds for a request's headers to arrive.", min=0.01, max=_LONGEST)
    ] = 10.0,
    body_seconds: Annotated[
        float, typer.Option(help="Seconds for a request's body to arrive.", min=0.01, max=_LONGEST)
    ] = 30.0,
    drain_seconds: Annotated[
        float,
        typer.Option(help="Seconds to go on answering after SIGTERM, reported as not ready.", min=0, max=_LONGEST),
    ] = 0.0,
    workers: Annotated[
        int, typer.Option(help="Processes that share the port, each with its own engine.", min=1, max=256)
    ] = 1,
    trust: Annotated[
        Path | None, typer.Option(metavar="KEY", help="Public key (PEM) that must have signed every bundle.")
    ] = None,
    runs: RunsRoot = Path("runs"),
) -> None:
    """Serve bundles over HTTP and gRPC.  Follows the Open Inference Protocol (KServe v2)."""
    from samdeploy.backends.names import check_names
    from samdeploy.runs.locate import latest_bundle
    from samdeploy.serve.options import ServeOptions
    from samdeploy.serve.served import Limits
    from samdeploy.serve.server import serve

    check_names(backend, device, precision, also="auto")
    limits = Limits(batch, delay_ms / 1000, queue, timeout, max_bytes, max_pixels)
    options = ServeOptions(
        host, port, grpc_port, backend, device, precision, limits, threads, selftest_every, api_key_file,
        tls_cert, tls_key, header_seconds, body_seconds, connections=connections, drain_seconds=drain_seconds,
        workers=workers, trust=trust,
    )  # fmt: skip
    serve(bundles or [str(latest_bundle(runs))], options)
