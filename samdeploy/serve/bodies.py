"""What clients send, read within bounds of length and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from samdeploy.serve.errors import RequestError


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The body.

    Raises:
        RequestError: longer than `most` bytes (413), or not there within `seconds` (408).
        ClientDisconnect: the client went away.
    """
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
                    raise RequestError(413, f"more than {most} bytes found")
                pieces.append(piece)
    except TimeoutError:
        raise RequestError(408, f"the request was not whole within {seconds:g} s") from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Form(MultiPartParser):
    spool_max_size = 1 << 62  # nothing goes to a disk: the body is bounded, and in memory already


async def form_files(request: Request, body: bytes) -> list[tuple[str, str, bytes]]:
    """(name of the field, name of the file, content) of each file in a multipart form.

    Raises:
        RequestError: no form, or one without files.
    """

    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        form = await _Form(request.headers, stream(), max_files=1000, max_fields=100).parse()  # type: ignore[arg-type]
    except (MultiPartException, KeyError, ValueError) as error:
        raise RequestError(400, f"not a multipart form: {error}") from None
    files = [(field, value) for field, value in form.multi_items() if isinstance(value, UploadFile)]
    if not files:
        raise RequestError(400, "no file found in the form; send each image as a file")
    return [(field, file.filename or "", await file.read()) for field, file in files]


__all__ = ["ClientDisconnect", "form_files", "read_body"]
