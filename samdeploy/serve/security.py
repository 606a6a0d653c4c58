"""Who may ask: a key in the request, compared in constant time."""

from __future__ import annotations

import hmac
import json
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from samdeploy.errors import InputError

# Probes of an orchestrator have no key, and the page asks for it.
_OPEN = ("/v2/health/live", "/v2/health/ready", "/", "/page/page.css", "/page/page.js")
_LEAST = 16


def read_key(path: Path) -> bytes:
    """The key: the file's first line.

    Raises:
        InputError: it cannot be read, or is shorter than 16 characters.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"--api-key-file {path}: cannot be read ({error.strerror})") from None
    key = lines[0].strip() if lines else b""
    if len(key) < _LEAST or not key.isascii():
        what = f"{len(key)} characters" if key.isascii() else "other characters than ASCII's"
        raise InputError(f"--api-key-file {path}: {what} found, at least {_LEAST} characters of ASCII expected")
    return key


def has_key(given: str | bytes, key: bytes) -> bool:
    """Whether "Bearer KEY" is what was given; takes as long whatever the key was."""
    found = given.encode("latin-1", "replace") if isinstance(given, str) else given
    scheme, _, token = found.partition(b" ")
    return hmac.compare_digest(token.strip(), key) and scheme.lower() == b"bearer"


class KeyRequired:
    """An ASGI application behind ``Authorization: Bearer KEY``."""

    def __init__(self, app: ASGIApp, key: bytes) -> None:
        self._app, self._key = app, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        path = scope.get("path", "")
        if scope["type"] != "http" or path in _OPEN:
            return await self._app(scope, receive, send)
        given = b"".join(value for name, value in scope["headers"] if name == b"authorization")
        if has_key(given, self._key):
            return await self._app(scope, receive, send)
        body = json.dumps({"error": "the key is missing or wrong: Authorization: Bearer KEY"}).encode()
        headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return None
