"""The server in this process, without a port: what it keeps of requests, and how many it takes."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from samdeploy.bundle import Bundle

pytest.importorskip("uvicorn", reason="pip install 'samdeploy[serve]'")
pytest.importorskip("prometheus_client", reason="pip install 'samdeploy[serve]'")
pytest.importorskip("onnxruntime", reason="pip install 'samdeploy[onnxruntime]'")

from starlette.types import ASGIApp, Message

from samdeploy.serve import http
from samdeploy.serve.infer_request import InferRequest
from samdeploy.serve.json_body import LARGE
from samdeploy.serve.options import ServeOptions
from samdeploy.serve.served import Limits
from samdeploy.serve.server import open_server

MODEL = "/v2/models/digits/"


@pytest.fixture(scope="module")
def app(digits_bundle: Bundle) -> Iterator[ASGIApp]:
    options = ServeOptions(backend="onnxruntime", limits=Limits(queue=2), threads=1)
    server = open_server([f"digits={digits_bundle.root}"], options)
    for model in server.models.all:
        model.self_test()
    yield http.make_app(server)
    server.close()


async def status(app: ASGIApp, path: str, body: bytes) -> int:
    sent: list[Message] = []
    received = [{"type": "http.request", "body": body, "more_body": False}]
    path, _, query = path.partition("?")
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "query_string": query.encode()}

    async def receive() -> Message:
        if not received:
            await asyncio.Event().wait()
        return received.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope | {"headers": [], "http_version": "1.1", "scheme": "http"}, receive, send)
    return int(sent[0]["status"])


def test_failed_requests_are_forgotten_at_once(
    app: ASGIApp, digits_bundle: Bundle, digit_files: Sequence[Path]
) -> None:
    """Else each keeps its body, until Python looks for cycles."""
    image = digits_bundle.golden()[0][:1]
    tensor = {"name": "image", "datatype": "UINT8", "shape": image.shape, "data": image.ravel().tolist()}
    late = {"inputs": [tensor], "parameters": {"timeout": 1}}

    async def ask() -> None:
        for _ in range(2):  # what is made once only is no matter
            gc.collect()
            gc.disable()
            try:
                found = [
                    await status(app, MODEL + "infer", b'{"inputs": [{}, {}]}'),
                    await status(app, MODEL + "infer", b'{"inputs": [{}, {}]}' + b" " * LARGE),
                    await status(app, MODEL + "infer", json.dumps(late).encode()),
                    await status(app, MODEL + "predict?timeout=1", digit_files[0].read_bytes()),
                    await status(app, MODEL + "predict", b"no image"),
                    await status(app, MODEL + "explain", b"no image"),
                ]
                left = gc.collect()
            finally:
                gc.enable()
        assert (found, left) == ([400, 400, 504, 504, 400, 400], 0)

    asyncio.run(ask())


def test_maps_are_bounded_as_decoding_is(app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(http, "decoded_png", lambda model, body: bytes(go_on.wait(60)))

    async def ask() -> list[int]:
        asked = [asyncio.create_task(status(app, MODEL + "explain?layer=image", b"")) for _ in range(5)]
        while sum(one.done() for one in asked) < 3:
            await asyncio.sleep(0.01)
        go_on.set()
        return sorted(await asyncio.gather(*asked))

    assert asyncio.run(ask()) == [200, 200, 503, 503, 503]


def test_a_large_body_is_read_while_others_are_answered(app: ASGIApp, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    found: list[bool] = []
    monkeypatch.setattr(http, "read_infer", lambda *_: found.append(go_on.wait(5)) or InferRequest("", [b""], ()))

    async def ask() -> list[int]:
        large = asyncio.create_task(status(app, MODEL + "infer", bytes(LARGE + 1)))
        other = await status(app, MODEL + "explain?layer=all", b"")
        go_on.set()
        return [other, await large]

    assert (asyncio.run(ask()), found) == ([400, 400], [True])
