"""What clients send, read within bounds of length and time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import unquote_to_bytes

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from samdeploy.serve.errors import RequestError

_ENCODED_NAME = re.compile(rb"filename\*=[\w-]+'[\w-]*'([\w.!#$&+^`|~%-]+)", re.I)


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The body.

    Raises:
        RequestError: longer than `most` bytes (413), not there within `seconds` (408), or compressed (415).
        ClientDisconnect: the client went away.
    """
    if (coding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise RequestError(415, f"Content-Encoding {coding[:20]!r} found; send the body as it is")
    length = request.headers.get("content-length", "0")
    if len(length) > 18 or int(length) > most:  # h11 and httptools let nothing but digits pass
        raise RequestError(413, f"Content-Length {length[:20]} found, at most {most} bytes expected")
    pieces: list[bytes] = []
    found = 0
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                found += len(piece)
                if found > most:
                    raise RequestError(413, f"a body of more than {most} bytes found")
                pieces.append(piece)
    except TimeoutError:
        raise RequestError(408, f"the request was not whole within {seconds:g} s") from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class ReadOn:
    """An ASGI application that may answer before it has read the whole body.

    Most clients send everything before they read, and see a reset instead of the answer where the connection is closed
    on what they still send.  So that is read and discarded within bounds, and the connection is closed then.
    """

    def __init__(self, app: ASGIApp, most: int = 1 << 30, seconds: float = 10.0) -> None:
        """
        Args:
            most: bytes that are discarded, at most.
            seconds: likewise.
        """
        self._app, self._most, self._seconds = app, most, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        is_whole = not any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
            for name, value in scope["headers"]
        )

        async def receive_noted() -> Message:
            nonlocal is_whole
            message = await receive()
            is_whole = not message.get("more_body", False)
            return message

        async def send_early(message: Message) -> None:
            if is_whole:
                await send(message)
            elif message["type"] == "http.response.start":
                await send({**message, "headers": [*message["headers"], (b"connection", b"close")]})
            elif message.get("more_body", False):
                await send(message)
            else:
                await send({**message, "more_body": True})
                await self._discard(receive)
                await send({"type": "http.response.body"})

        return await self._app(scope, receive_noted, send_early)

    async def _discard(self, receive: Receive) -> None:
        left = self._most
        with suppress(TimeoutError, asyncio.CancelledError):  # the server may end meanwhile
            async with asyncio.timeout(self._seconds):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return


class _Form(MultiPartParser):
    spool_max_size = 1 << 62  # nothing goes to a disk: the body is bounded, and in memory already
    is_whole = False

    def on_headers_finished(self) -> None:
        """Take a file's name as urllib3 1 writes it, in RFC 5987's form, for one in quotes."""
        part = self._current_part
        part.content_disposition = _ENCODED_NAME.sub(_in_quotes, part.content_disposition or b"")
        super().on_headers_finished()

    def on_end(self) -> None:
        """The last boundary was there."""
        self.is_whole = True


def _in_quotes(name: re.Match[bytes]) -> bytes:
    return b'filename="' + unquote_to_bytes(name[1]).replace(b'"', b"%22") + b'"'


async def form_files(request: Request, body: bytes) -> list[tuple[str, str, bytes]]:
    """(name of the field, name of the file, content) of each file in a multipart form.

    Raises:
        RequestError: no form, one without its end, or one without files.
    """

    async def stream() -> AsyncIterator[bytes]:
        yield body

    parser = _Form(request.headers, stream(), max_files=1000, max_fields=100)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise RequestError(400, f"not a multipart form: {error}") from None
    if not parser.is_whole:
        raise RequestError(400, "the form is cut short: its last boundary is missing")
    files = []
    for field, value in form.multi_items():
        if not isinstance(value, UploadFile):
            raise RequestError(400, f"form: a text found in field {field[:40]!r}; send each image as a file")
        files.append((field, value.filename or "", await value.read()))
    if not files:
        raise RequestError(400, "no file found in the form; send each image as a file")
    return files


__all__ = ["ClientDisconnect", "ReadOn", "form_files", "read_body"]
