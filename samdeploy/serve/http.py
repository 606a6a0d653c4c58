"""The server's addresses: the Open Inference Protocol, images in and classes out, maps, health and metrics."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

import samdeploy
from samdeploy.errors import AnswerError, ImageError, SamdeployError, first_line
from samdeploy.serve.answers import EXTENSIONS, model_config, model_metadata, write_infer
from samdeploy.serve.bodies import form_files, read_body
from samdeploy.serve.errors import RequestError
from samdeploy.serve.explained import decoded_png, explained_png
from samdeploy.serve.infer_request import InferRequest, timeout_of
from samdeploy.serve.json_body import LARGE
from samdeploy.serve.metrics import Metrics
from samdeploy.serve.models import Models
from samdeploy.serve.openapi import openapi
from samdeploy.serve.page import HAS_COLOURS, card, page_routes
from samdeploy.serve.protocol import HEADER_LENGTH, read_infer
from samdeploy.serve.served import ServedModel

_LOG = logging.getLogger("samdeploy.serve")
# Seconds after which it is looked whether the client is still there: it costs a task, which short requests are spared.
_PATIENCE = 0.05
T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class Server:
    """What handlers share.

    Attributes:
        pool: threads that decode.
        body_seconds: in which a body must be whole.
        ending: the server takes no new requests.
    """

    models: Models
    metrics: Metrics
    pool: ThreadPoolExecutor
    body_seconds: float
    ending: bool = False
    # One thread: what a large body becomes while it is read takes many times its memory.
    _reader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "samdeploy-read"))

    @property
    def ready(self) -> bool:
        """Whether all models are, and new requests are taken."""
        return self.models.ready and not self.ending

    async def read_infer(self, body: bytes, header_length: str | None, model: ServedModel) -> InferRequest:
        """See `protocol.read_infer`."""
        read = partial(read_infer, body, header_length, model.spec, model.limits.queue)
        return await self.read(read, len(body), model)

    async def read(self, call: Callable[[], T], size: int, model: ServedModel) -> T:
        """What the call returns; with a large size (in bytes) others are answered meanwhile."""
        if size <= LARGE:
            return call()
        (result,) = await model.decoding.run(self._reader, model.deadline(None), [call])
        return result

    def close(self) -> None:
        """End all engines and threads."""
        for pool in (self.pool, self._reader):
            pool.shutdown(cancel_futures=True)
        self.models.close()


class _Routes:
    """One method per address."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def routes(self) -> list[Route]:
        one = "/v2/models/{model}"
        return [
            Route("/v2", self.about),
            Route("/v2/models", self.list),
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
            Route("/page/models", self.cards),
            *(
                Route(prefix + address, self._answered(name, handler), methods=[method])
                for prefix in (one, one + "/versions/{version}")
                for address, name, handler, method in (
                    ("", "metadata", self.model, "GET"),
                    ("/config", "config", self.config, "GET"),
                    ("/ready", "ready", self.model_ready, "GET"),
                    ("/infer", "infer", self.infer, "POST"),
                    ("/predict", "predict", self.predict, "POST"),
                    ("/explain", "explain", self.explain, "POST"),
                )
            ),
        ]

    async def about(self, request: Request) -> Response:
        return _json({"name": "samdeploy", "version": samdeploy.__version__, "extensions": list(EXTENSIONS)})

    async def list(self, request: Request) -> Response:
        models = self._server.models.all
        return _json({"models": [{"name": one.name, "version": one.version, "ready": one.ready} for one in models]})

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def ready(self, request: Request) -> Response:
        ready = self._server.ready
        return _json({"ready": ready}, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        self._server.models.count_all()
        return Response(self._server.metrics.text(), media_type=Metrics.content_type)

    async def openapi(self, request: Request) -> Response:
        return _json(openapi(self._server.models))

    async def cards(self, request: Request) -> Response:
        cards = [card(model) for model in self._server.models.newest_first]
        return Response(json.dumps(cards, ensure_ascii=False), media_type="application/json")

    async def model(self, request: Request, model: ServedModel) -> Response:
        return _json(model_metadata(model.name, self._server.models.versions(model.name), model.bundle))

    async def config(self, request: Request, model: ServedModel) -> Response:
        return _json(model_config(model.name, model.bundle, model.batcher.batch, model.classifier.session.precision))

    async def model_ready(self, request: Request, model: ServedModel) -> Response:
        ready = model.ready and not self._server.ending
        return _json({"name": model.name, "ready": ready}, 200 if ready else 503)

    async def infer(self, request: Request, model: ServedModel) -> Response:
        body = await self._body(request, model)
        asked = await self._server.read_infer(body, request.headers.get(HEADER_LENGTH), model)
        logits = await model.answer(asked.images, asked.timeout, self._server.pool)
        content, front = write_infer(model.name, model.version, asked, logits, model.spec)
        headers = {HEADER_LENGTH: str(front)} if front else None
        model.count(logits)
        return Response(
            content, headers=headers, media_type="application/octet-stream" if front else "application/json"
        )

    async def predict(self, request: Request, model: ServedModel) -> Response:
        top = _number(request, "top", 5, len(model.spec.classes))
        body = await self._body(request, model)
        is_form = _is_form(request)
        files = await form_files(request, body) if is_form else [("", "", body)]
        deadline = model.deadline(_timeout(request))
        begin = time.perf_counter()
        names = [f"{field}, {name}" for field, name, _ in files] if is_form else None
        pixels = await model.decode([content for *_, content in files], deadline, self._server.pool, names)
        decoded = time.perf_counter()
        logits = await model.infer(pixels, deadline)
        decode_ms, engine_ms = 1000 * (decoded - begin), 1000 * (time.perf_counter() - decoded)
        timing = {"Server-Timing": f"decode;dur={decode_ms:.1f}, engine;dur={engine_ms:.1f}"}
        answers = [answer.to_json() for answer in model.predictions(logits, top)]
        named = [{"field": field, "image": name, **one} for (field, name, _), one in zip(files, answers, strict=True)]
        model.count(logits)
        return _json({"predictions": named} if is_form else answers[0], headers=timing)

    async def explain(self, request: Request, model: ServedModel) -> Response:
        model.check_ready()
        wanted, layer = request.query_params.get("class"), request.query_params.get("layer")
        if layer not in (None, "map", "image"):
            raise RequestError(400, f"layer: {layer[:40]!r} found, 'map' or 'image' expected")
        if layer != "image" and not HAS_COLOURS:
            raise RequestError(501, "no maps: the server lacks matplotlib; pip install 'samdeploy[plots]'")
        if _is_form(request):
            raise RequestError(400, "a form found, the image's own bytes expected")
        body = await self._body(request, model)
        pool, deadline = self._server.pool, model.deadline(None)
        if layer == "image":
            (png,) = await model.decoding.run(pool, deadline, [partial(decoded_png, model, body)])
            return Response(png, media_type="image/png")
        draw = partial(explained_png, model, body, wanted, alone=layer == "map")
        ((png, label),) = await model.decoding.run(pool, deadline, [draw])
        return Response(png, media_type="image/png", headers={"X-Class": json.dumps(label)})

    async def _body(self, request: Request, model: ServedModel) -> bytes:
        body = await read_body(request, model.limits.max_bytes, self._server.body_seconds)
        request.state.is_read = True
        return body

    def _answered(self, name: str, handler: Callable[[Request, ServedModel], Awaitable[Response]]) -> Handler:
        """The handler, with its model found, its errors as answers, its client watched and its request counted."""
        counter = self._server.metrics.requests

        async def answer(request: Request) -> Response:
            labels = ("", "")
            try:
                model = self._server.models.find(request.path_params["model"], request.path_params.get("version"))
                labels = (model.name, model.version)
                response = await _while_connected(request, handler(request, model))
            except RequestError as error:
                response = await _refused(request, error)
            except ImageError as error:
                response = _error(422 if isinstance(error, AnswerError) else 400, str(error))
            except ClientDisconnect:
                response = Response(status_code=499)  # nobody reads it; the metrics say so
            except SamdeployError as error:  # its text may name the server's folders
                _LOG.error("%s: %s", name, first_line(error))
                response = await _unexpected(request, error)
            counter.labels(*labels, name, response.status_code).inc()
            return response

        return answer


async def _while_connected(request: Request, work: Awaitable[Response]) -> Response:
    """The answer; its work is cancelled where the client goes away meanwhile.

    Raises:
        ClientDisconnect: it did.
        RequestError: the server ends.
    """
    request.state.is_read = request.method == "GET"
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=_PATIENCE)
        while not task.done():
            # The body belongs to the work until it is read.
            if request.state.is_read and await request.is_disconnected():
                raise ClientDisconnect
            await asyncio.wait([task], timeout=_PATIENCE)
        return task.result()
    except asyncio.CancelledError:  # by uvicorn, whose time for what is under way is up
        raise RequestError(503, "the server is ending") from None
    finally:
        if not task.cancel() and not task.cancelled():
            task.exception()  # else asyncio says that nobody looked at it
        del task  # an error's traceback holds this frame: with the task, which holds the error, the body would stay


def make_app(server: Server) -> Starlette:
    """The ASGI application."""
    app = Starlette(
        routes=[*_Routes(server).routes(), *page_routes()],
        exception_handlers={HTTPException: _http_error, RequestError: _refused, Exception: _unexpected},
    )
    app.router.redirect_slashes = False  # it would send clients to the host that they name
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers) if error.headers else {}
    allowed = ", ".join(sorted(headers.get("Allow", "").split(", ")))
    cure = {404: "; /openapi.json lists what is there", 405: f"; {allowed} expected"}
    text = f"{request.method} {request.url.path[:200]}: {error.detail}{cure.get(error.status_code, '')}"
    return _error(error.status_code, text, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _error(error.status, str(error), {"Retry-After": str(error.retry_after)} if error.retry_after else None)


async def _unexpected(request: Request, error: Exception) -> Response:
    return _error(500, "the server failed; its log says more")


def _json(content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status, headers, "application/json")


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return _json({"error": text}, status, headers)


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith("multipart/form-data")


def _timeout(request: Request) -> float | None:
    text = request.query_params.get("timeout")
    return None if text is None else timeout_of({"timeout": int(text) if text.isdecimal() and len(text) < 19 else text})


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return min(default, most)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= 1):
        raise RequestError(400, f"{name}: {text[:40]!r} found, a number from 1 on expected; all classes are {most}")
    return min(int(text), most)
