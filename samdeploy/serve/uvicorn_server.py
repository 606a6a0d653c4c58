"""uvicorn, with our connections, and an end that lets what is under way finish."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Generator
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from samdeploy.serve.bodies import ReadOn
from samdeploy.serve.connection import Connection
from samdeploy.serve.http import Server
from samdeploy.serve.options import ServeOptions
from samdeploy.serve.security import KeyRequired
from samdeploy.serve.workers import ENDING


def uvicorn_config(app: ASGIApp, options: ServeOptions, key: bytes | None) -> uvicorn.Config:
    """How uvicorn serves the application, behind the key where there is one."""
    return uvicorn.Config(
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


class UvicornServer(uvicorn.Server):
    """A server that ends with exit code 0 when it is asked to, after what is under way."""

    def __init__(
        self, config: uvicorn.Config, server: Server, options: ServeOptions, announce: Callable[[], None]
    ) -> None:
        """`announce` is called when connections are answered."""
        super().__init__(config)
        self._server, self._options, self._announce = server, options, announce

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """See uvicorn."""
        loop = asyncio.get_running_loop()
        for number in ENDING:
            if signal.getsignal(number) != signal.SIG_IGN:  # a worker leaves all but SIGTERM to its parent
                loop.add_signal_handler(number, self._asked_to_end, number)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
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
        if self._server.ending:
            if number != signal.SIGHUP:  # asked twice; a closed terminal may send two by itself
                self.should_exit = self.force_exit = True
            return
        self._server.ending = True
        delay = 0.0 if number == signal.SIGINT else self._options.drain_seconds
        asyncio.get_running_loop().call_later(delay, setattr, self, "should_exit", True)
