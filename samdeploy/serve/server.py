"""From options to a listening server, and to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import uvicorn

from samdeploy.classifier import Classifier
from samdeploy.errors import InputError
from samdeploy.images.stream import processors
from samdeploy.serve.http import Server, make_app
from samdeploy.serve.metrics import Metrics
from samdeploy.serve.models import Models, read_places
from samdeploy.serve.options import ServeOptions, check_delay, check_tls, warn_if_open
from samdeploy.serve.ports import host_and_port, listen
from samdeploy.serve.security import read_key
from samdeploy.serve.served import Place, ServedModel
from samdeploy.serve.uvicorn_server import UvicornServer, uvicorn_config
from samdeploy.serve.workers import Workers

# Seconds that engines and threads may take to close; and in which workers end, at most: more is too long for poll().
_CLOSING, _LONGEST_END = 30.0, 1e6


def serve(bundles: Sequence[str], options: ServeOptions) -> None:
    """Serve bundles until SIGTERM, SIGHUP or Ctrl-C.

    Args:
        bundles: each NAME[:VERSION]=PATH, or a path.

    Raises:
        InputError: two of one name and version, a port that is taken, a key or certificate that cannot be read.
        BundleError, BackendUnavailable: as `Classifier.open` does.
    """
    check_delay(options.limits)
    key = read_key(options.api_key_file) if options.api_key_file is not None else None
    check_tls(options.tls_cert, options.tls_key)
    places = read_places(bundles)
    # Before the bundles: a port that is taken shall be said at once.
    listening = listen(options.host, options.port)
    settings = _Settings(places, options, key)
    warn_if_open(options)

    def announce(models: str) -> None:
        scheme = "https" if options.tls_cert else "http"
        host, port = listening.getsockname()[:2]
        with contextlib.suppress(OSError):  # a log on a full disk is no reason not to serve
            print(f"{scheme}://{host_and_port(host, port)}", flush=True)
            print(models, file=sys.stderr)

    if options.workers == 1:
        _serve_at(settings, listening, announce)
    elif options.grpc_port == 0:
        raise InputError("--grpc-port: 0 found, with --workers a port expected that all of them can share")
    else:
        if options.grpc_port is not None:  # workers share the port, and would share it with a stranger
            listen(options.host, options.grpc_port, "--grpc-port").close()
        # HTTP's requests, then gRPC's, each for at most --timeout.
        longest_end = min(options.drain_seconds + 2 * options.limits.timeout + _CLOSING, _LONGEST_END)
        if code := Workers(_serve_at, settings, listening, options.workers, longest_end=longest_end).run(announce):
            raise SystemExit(code)


def open_server(bundles: Sequence[str], options: ServeOptions) -> Server:
    """What answers requests, without a port; see `serve`.  Its models have not tested themselves yet."""
    return _open_server(read_places(bundles), options)


@dataclass(frozen=True, slots=True)
class _Settings:
    """What a process that serves needs to know."""

    places: tuple[Place, ...]
    options: ServeOptions
    key: bytes | None


def _serve_at(settings: _Settings, listening: socket.socket, announce: Callable[[str], None]) -> None:
    """Serve in this process; `announce` is called with what is served when requests are answered."""
    options, key = settings.options, settings.key
    server = _open_server(settings.places, options)
    try:
        config = uvicorn_config(make_app(server), options, key)
        # uvloop's loop, which the extra brings.
        with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(config, server, listening, settings, announce))
    finally:
        server.close()


def _open_server(places: Sequence[Place], options: ServeOptions) -> Server:
    metrics = Metrics()
    models = Models([_open(place, options, metrics) for place in places])
    pool = ThreadPoolExecutor(options.threads or processors(), "samdeploy-decode")
    return Server(models, metrics, pool, options.body_seconds)


def _open(place: Place, options: ServeOptions, metrics: Metrics) -> ServedModel:
    classifier = Classifier.open(
        place.path,
        options.backend,
        device=options.device,
        precision=options.precision,
        max_pixels=options.limits.max_pixels,
        max_bytes=options.limits.max_bytes,
        trust=options.trust,
    )
    return ServedModel(place, classifier, options.limits, metrics)


async def _run(
    config: uvicorn.Config,
    server: Server,
    listening: socket.socket,
    settings: _Settings,
    announce: Callable[[str], None],
) -> None:
    options, key = settings.options, settings.key
    await asyncio.to_thread(_test, server.models)
    grpc, grpc_port = await _start_grpc(server, options, key) if options.grpc_port is not None else (None, 0)
    http = UvicornServer(config, server, options, lambda: announce(_served(server.models, options, grpc_port)))
    testing = asyncio.create_task(_keep_testing(server.models, options.selftest_every))
    try:
        await http.serve(sockets=[listening])
    finally:
        testing.cancel()
        if grpc is not None:
            await grpc.stop(options.limits.timeout)


async def _start_grpc(server: Server, options: ServeOptions, key: bytes | None) -> tuple[Any, int]:
    """The gRPC server and its port."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it would say of a port that is taken, `bind` says
    from samdeploy.serve.grpc import bind, make_grpc  # late: an extra, and a second to load

    made = make_grpc(
        server,
        max_bytes=options.limits.max_bytes,
        key=key,
        connections=options.connections,
        is_shared=options.workers > 1,
    )
    certificate = (options.tls_cert, options.tls_key) if options.tls_cert and options.tls_key else None
    port = bind(made, options.host, options.grpc_port or 0, certificate)
    await made.start()
    return made, port


def _served(models: Models, options: ServeOptions, grpc_port: int) -> str:
    """A line for each model, and for gRPC."""
    lines = []
    for model in models.all:
        session = model.classifier.session
        lines.append(
            f"  {model.name}:{model.version}  {session.backend}, {session.precision}, {session.device}, "
            f"batches up to {model.batcher.batch}: {model.fault or 'ready'}"
        )
    if options.workers > 1:
        lines.append(f"  {options.workers} workers")
    if grpc_port:
        lines.append(f"  grpc {host_and_port(options.host, grpc_port)}")
    return "\n".join(lines)


async def _keep_testing(models: Models, every: float) -> None:
    while every:
        await asyncio.sleep(every)
        await asyncio.to_thread(_test, models)


def _test(models: Models) -> None:
    for model in models.all:
        model.self_test()
