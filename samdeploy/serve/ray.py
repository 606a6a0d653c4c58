"""Bundles on Ray Serve: every replica is the server of `samdeploy serve`, behind Ray's proxies.

    from ray import serve
    from samdeploy.serve.ray import app
    serve.run(app("cats=runs/<run>", replicas=(1, 8)), route_prefix="/")

The addresses are those of docs/serving.md.  A replica takes requests when the golden images of its bundles passed, and
Ray replaces one whose golden images fail later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from samdeploy.serve.http import make_app
from samdeploy.serve.options import ServeOptions
from samdeploy.serve.server import open_server


class _Replica:
    """One server without a port."""

    def __init__(self, bundles: Sequence[str], options: ServeOptions) -> None:
        self._every = options.selftest_every
        self._server = open_server(bundles, options)
        self._app = make_app(self._server)
        self._tester = ThreadPoolExecutor(1)
        self._tested = -float("inf")
        self._test()

    def _test(self) -> None:
        """
        Raises:
            RuntimeError: golden images fail; for Ray the replica is broken then.
        """
        for model in self._server.models.all:
            model.self_test()
            if model.fault:
                raise RuntimeError(f"{model.name}:{model.version}: {model.fault}")
        self._tested = time.monotonic()

    async def check_health(self) -> None:
        """Called by Ray every few seconds."""
        if self._every and time.monotonic() - self._tested > self._every:
            await asyncio.get_running_loop().run_in_executor(self._tester, self._test)

    async def __call__(self, request: Request) -> Response:
        """One request, by the protocol."""
        status, headers, parts = 500, [], []

        async def send(message: Any) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], message.get("headers", [])
            else:
                parts.append(message.get("body", b""))

        await self._app(request.scope, request.receive, send)
        response = Response(b"".join(parts), status)
        response.raw_headers = list(headers)
        return response


def app(
    *bundles: str,
    options: ServeOptions | None = None,
    replicas: tuple[int, int] = (1, 4),
    ongoing: int = 16,
    cpus: float = 1.0,
    gpus: float = 0.0,
) -> Any:
    """An application for `serve.run`.

    Args:
        bundles: each NAME[:VERSION]=PATH, or a path that every node can read.
        options: those of `samdeploy serve`; address, key and TLS are Ray's matter.
        replicas: at least and at most.
        ongoing: requests per replica that Ray aims at when it adds or removes replicas; twice as many are sent to one.
        cpus: that each replica takes.
        gpus: likewise.
    """
    deployment = serve.deployment(
        name="samdeploy",
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        autoscaling_config={
            "min_replicas": replicas[0], "initial_replicas": replicas[0], "max_replicas": replicas[1],
            "target_ongoing_requests": ongoing,
        },
        max_ongoing_requests=2 * ongoing,
    )(_Replica)  # fmt: skip
    return deployment.bind(list(bundles), options or ServeOptions())
