"""From options to a listening server, and to its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

from samdeploy.classifier import Classifier
from samdeploy.errors import InputError
from samdeploy.images.stream import processors
from samdeploy.serve.bodies import ReadOn
from samdeploy.serve.connection import Connection
from samdeploy.serve.http import Server, make_app
from samdeploy.serve.metrics import Metrics
from samdeploy.serve.models import Models, read_place
from samdeploy.serve.security import KeyRequired, read_key
from samdeploy.serve.served import Limits, Place, ServedModel
from samdeploy.serve.workers import Workers

_LOG = logging.getLogger("samdeploy.serve")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The options of `samdeploy serve`.

    Attributes:
        host, port: port 0 takes a free one.
        grpc_port: likewise for gRPC; None: no gRPC.
        backend, device, precision: as `Classifier.open` takes them.
        threads: that decode; 0: as many as processors.
        selftest_every: seconds between runs of the golden images; 0: only at the start.
        header_seconds, body_seconds: in which a client must have sent its request's head, and its body; it must read
            something of its answer in the latter, too.
        connections: at most so many at a time.
        drain_seconds: after SIGTERM, how long requests are still taken while the server says that it is not ready.
        workers: processes that share the port, each with engines of its own.
        trust: a public key that must have signed every bundle, see `Classifier.open`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    backend: str = "auto"
    device: str = "auto"
    precision: str | None = None
    limits: Limits = field(default_factory=Limits)
    threads: int = 0
    selftest_every: float = 600.0
    api_key_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    connections: int = 1000
    drain_seconds: float = 0.0
    workers: int = 1
    trust: Path | None = None


class _Uvicorn(uvicorn.Server):
    """A server that ends with exit code 0 when it is asked to, after what is under way."""

    def __init__(
        self, config: uvicorn.Config, server: Server, options: ServeOptions, announce: Callable[[], None]
    ) -> None:
        """`announce` is called when connections are answered."""
        super().__init__(config)
        self._server, self._options, self._announce = server, options, announce

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:  # a worker leaves SIGINT to its parent
                loop.add_signal_handler(number, self._asked_to_end, number)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        config = self.config
        about = {"config": config, "server_state": self.server_state, "app_state": self.lifespan.state}
        for one in sockets or []:
            listener = await asyncio.get_running_loop().create_server(
                partial(config.http_protocol_class, **about),
                sock=one,
                ssl=config.ssl,
                backlog=config.backlog,
                # uvicorn gives a client a minute.
                ssl_handshake_timeout=self._options.header_seconds if config.ssl else None,
            )
            self.servers.append(listener)
        self._announce()

    def _asked_to_end(self, number: int) -> None:
        if self._server.ending:  # asked twice
            self.should_exit = self.force_exit = True
            return
        self._server.ending = True
        delay = self._options.drain_seconds if number == signal.SIGTERM else 0.0
        asyncio.get_running_loop().call_later(delay, setattr, self, "should_exit", True)


def serve(bundles: Sequence[str], options: ServeOptions) -> None:
    """Serve bundles until SIGTERM or Ctrl-C.

    Args:
        bundles: each NAME[:VERSION]=PATH, or a path.

    Raises:
        InputError: two of one name and version, a port that is taken, a key or certificate that cannot be read.
        BundleError, BackendUnavailable: as `Classifier.open` does.
    """
    limits = options.limits
    if limits.delay >= limits.timeout:
        found = f"--delay-ms {1000 * limits.delay:g} found"
        raise InputError(f"{found}; less than --timeout ({limits.timeout:g} s) expected")
    key = read_key(options.api_key_file) if options.api_key_file is not None else None
    _check_tls(options.tls_cert, options.tls_key)
    places = [read_place(text) for text in bundles]
    _check_names(places)
    # Before the bundles: a port that is taken shall be said at once.
    listening = _listen(options.host, options.port)
    settings = _Settings(tuple(places), options, key)
    _warn(options)

    def announce(models: str) -> None:
        scheme = "https" if options.tls_cert else "http"
        host, port = listening.getsockname()[:2]
        with contextlib.suppress(OSError):  # a log on a full disk is no reason not to serve
            print(f"{scheme}://{_address(host, port)}", flush=True)
            print(models, file=sys.stderr)

    if options.workers == 1:
        _serve_at(settings, listening, announce)
    elif options.grpc_port == 0:
        raise InputError("--grpc-port: 0 found, with --workers a port expected that all of them can share")
    elif options.grpc_port is not None and not _is_free(options.host, options.grpc_port):
        raise InputError(f"--grpc-port: {options.host}:{options.grpc_port} is taken")
    elif code := Workers(_serve_at, settings, listening, options.workers).run(announce):
        raise SystemExit(code)


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
        app = make_app(server)
        config = uvicorn.Config(
            ReadOn(KeyRequired(app, key) if key is not None else app),
            http=type(
                "Connection",
                (Connection,),
                {"header_seconds": options.header_seconds, "stuck_seconds": options.body_seconds},
            ),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=options.connections + 1,  # uvicorn refuses the one that reaches its limit
            timeout_keep_alive=30,
            timeout_graceful_shutdown=int(options.limits.timeout) + 1,
            ssl_certfile=str(options.tls_cert) if options.tls_cert else None,
            ssl_keyfile=str(options.tls_key) if options.tls_key else None,
        )
        # uvloop's loop, which the extra brings.
        with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(config, server, listening, settings, announce))
    finally:
        server.close()


def open_server(bundles: Sequence[str], options: ServeOptions) -> Server:
    """What answers requests, without a port; see `serve`.  Its models have not tested themselves yet."""
    places = [read_place(text) for text in bundles]
    _check_names(places)
    return _open_server(places, options)


def _open_server(places: Sequence[Place], options: ServeOptions) -> Server:
    metrics = Metrics()
    models = Models([_open(place, options, metrics) for place in places])
    pool = ThreadPoolExecutor(options.threads or processors(), "samdeploy-decode")
    return Server(models, metrics, pool, options.body_seconds)


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
    http = _Uvicorn(config, server, options, lambda: announce(_served(server.models, options, grpc_port)))
    testing = asyncio.create_task(_keep_testing(server.models, options.selftest_every))
    try:
        await http.serve(sockets=[listening])
    finally:
        testing.cancel()
        if grpc is not None:
            await grpc.stop(options.limits.timeout)


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
        lines.append(f"  grpc {_address(options.host, grpc_port)}")
    return "\n".join(lines)


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
    port = bind(made, _address(options.host, options.grpc_port or 0), certificate)
    await made.start()
    return made, port


async def _keep_testing(models: Models, every: float) -> None:
    while every:
        await asyncio.sleep(every)
        await asyncio.to_thread(_test, models)


def _test(models: Models) -> None:
    for model in models.all:
        model.self_test()


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


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
        listening.setblocking(False)
    except (OSError, OverflowError) as error:
        cure = "; --port 0 takes a free one" if getattr(error, "errno", None) == errno.EADDRINUSE else ""
        raise InputError(f"cannot listen on {host}:{port} ({error}){cure}") from None
    return listening


def _is_free(host: str, port: int) -> bool:
    """Whether nobody listens there; workers share the port, and would share it with a stranger."""
    try:
        _listen(host, port).close()
    except InputError:
        return False
    return True


def _check_names(places: Sequence[Place]) -> None:
    seen: set[tuple[str, str]] = set()
    for place in places:
        if (place.name, place.version) in seen:
            raise InputError(
                f"two bundles would be served as {place.name}:{place.version}; name them apart: NAME[:VERSION]=PATH"
            )
        seen.add((place.name, place.version))


def _check_tls(certificate: Path | None, key: Path | None) -> None:
    if (certificate is None) != (key is None):
        given, other = ("--tls-cert", "--tls-key") if key is None else ("--tls-key", "--tls-cert")
        raise InputError(f"{given} found without {other}; a certificate and its key, both PEM, expected")
    if certificate is None or key is None:
        return
    for option, path in (("--tls-cert", certificate), ("--tls-key", key)):
        if not path.is_file():
            raise InputError(f"{option} {path}: no such file")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, lambda: "")
    except (ssl.SSLError, OSError) as error:
        raise InputError(f"--tls-cert {certificate}, --tls-key {key}: no certificate with its key ({error})") from None


def _warn(options: ServeOptions) -> None:
    if options.host not in _LOOPBACK and options.api_key_file is None:
        print(
            f"warning: whoever reaches {options.host} may use this server; --api-key-file FILE asks for a key",
            file=sys.stderr,
        )
