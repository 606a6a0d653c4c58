"""A client of the Open Inference Protocol over HTTP, that trusts no server: answers have a deadline and a limit."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from samdeploy.errors import BackendUnavailable, InputError
from samdeploy.files import strict_json

HEADER_LENGTH = "Inference-Header-Content-Length"
# Seconds for sending a request, and for its whole answer; and an answer's longest body.
_TIMEOUT, _MOST_BYTES = 60.0, 1 << 26


class _AnswerStream(io.RawIOBase):
    """What arrives at a socket, until a deadline: the socket's own timeout begins anew with every byte."""

    def __init__(self, connection: socket.socket, keeper: io.BufferedIOBase) -> None:
        """`keeper` holds the socket open: http.client closes its own handle where no other request may follow."""
        self._socket, self._keeper, self._until = connection, keeper, time.monotonic() + _TIMEOUT

    def close(self) -> None:
        self._keeper.close()
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(left)
        return self._socket.recv_into(buffer)


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_AnswerStream(sock, self.fp))

    def _read_next_chunk_size(self) -> int:
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]
        if size < 0:  # -1 would be everything that the server ever sends
            raise http.client.HTTPException(f"a chunk of {size} bytes")
        return size


class Client:
    """One connection that is kept.

    Attributes:
        path: of the model.
    """

    def __init__(self, url: str, key: str | None) -> None:
        """Connects with the first request.

        Args:
            url: .../v2/models/NAME.
            key: sent as `Authorization: Bearer KEY`.

        Raises:
            InputError: `url` is no address of a model.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host or not url.isascii() or parts.scheme not in ("http", "https") or "/models/" not in parts.path:
            raise InputError(f"--url: {url!r} found, an address such as http://127.0.0.1:8000/v2/models/NAME expected")
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=_TIMEOUT, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
        self._connection.response_class = _Answer
        self.path = parts.path.rstrip("/")
        self._aborted = False
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes, str]:
        """(status, body, length of the JSON at its front or "").

        Raises:
            BackendUnavailable: no whole answer within the time, or one that is too long.
        """
        was_open = self._connection.sock is not None
        try:
            try:
                return self._exchange(method, path, body, {**self._headers, **(headers or {})})
            except ConnectionError:  # servers may close a connection that they said to keep
                self.close()
                if not was_open or self._aborted:
                    raise
                return self._exchange(method, path, body, {**self._headers, **(headers or {})})
        except (OSError, http.client.HTTPException, UnicodeError) as error:  # the last: a host's labels
            self.close()
            where = f"{self._connection.host}:{self._connection.port}"
            raise BackendUnavailable(
                f"{where}: {method} {path} failed ({error}); check that the server runs and that --url is right"
            ) from None

    def json(self, path: str) -> dict[str, Any]:
        """The JSON object that GET gives.

        Raises:
            BackendUnavailable: it gives none.
        """
        status, body, _ = self.ask("GET", path)
        try:
            found = strict_json(body)
        except ValueError:
            found = None
        if status in (401, 403):
            raise BackendUnavailable(
                f"GET {path}: {status}, the server wants a key, or another one; give it with --api-key-file FILE"
            )
        if status != 200 or not isinstance(found, dict):
            raise BackendUnavailable(
                f"--url: no model of the Open Inference Protocol (GET {path} gave {status} {body[:90]!r}); check it"
            )
        return found

    def abort(self) -> None:
        """End a request that another thread waits for."""
        self._aborted = True
        connection = self._connection.sock
        if connection is not None:
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def close(self) -> None:
        self._connection.close()

    def _exchange(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes, str]:
        if self._connection.sock is not None:
            self._connection.sock.settimeout(_TIMEOUT)
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        found = answer.read(_MOST_BYTES + 1)
        if len(found) > _MOST_BYTES or answer.length:
            raise http.client.HTTPException(
                f"a body of more than {_MOST_BYTES} bytes" if len(found) > _MOST_BYTES else "half a body"
            )
        return answer.status, found, answer.getheader(HEADER_LENGTH, "")


def tensors_of(path: str, model: Mapping[str, Any]) -> set[tuple[str, str, tuple[int, ...]]]:
    """(name, datatype, shape) of all inputs and outputs of a model.

    Args:
        path: of the model, for the message.
        model: its metadata.

    Raises:
        BackendUnavailable: they are not as the protocol has them.
    """
    found = set()
    for key in ("inputs", "outputs"):
        tensors = model.get(key)
        for one in tensors if isinstance(tensors, list) and tensors else (tensors,):
            match one:
                case {"name": str(name), "datatype": str(datatype), "shape": [*shape]} if all(
                    isinstance(size, int) for size in shape
                ):
                    found.add((name, datatype, tuple(shape)))
                case _:
                    raise BackendUnavailable(
                        f"GET {path}: {str(one)[:100]} found in {key}, a tensor's name, datatype and shape expected; "
                        "see whether --url names a model of the Open Inference Protocol"
                    )
    return found
