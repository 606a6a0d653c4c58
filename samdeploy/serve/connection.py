"""One HTTP connection, within bounds that uvicorn lacks."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

_MOST_UNREAD = 64 << 10  # bytes
_MOST_WAITING = 1000  # requests that a client sends before it has the answer to the first


class Connection(HttpToolsProtocol):
    """HTTP with bounds on what is not a body: uvicorn waits and reads for ever.

    A head has `header_seconds` and 64 KiB, and so much may be between the parts of a body or behind it (trailers).
    A client that reads nothing of its answers for `stuck_seconds` is cut off.
    """

    header_seconds = 10.0
    stuck_seconds = 30.0
    _late: asyncio.TimerHandle | None = None  # while a head is awaited
    _stuck: asyncio.TimerHandle | None = None  # while the client does not read as fast as we write
    _answered: RequestResponseCycle | None = None  # others wait behind it, in the pipeline
    _malformed = ""  # why what comes after the requests is none
    _unread = 0  # bytes of neither a whole head nor a body
    _now = _left = b""  # what the parser has been given, and what it shall be given next

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._late = self.loop.call_later(self.header_seconds, transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._late is None:
            self._late = self.loop.call_later(self.header_seconds, self.transport.close)

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        self._left = data
        while data := self._left:
            self._now, self._left = data, b""
            super().data_received(data)
        self._now = b""
        if self._unread > _MOST_UNREAD and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n")
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._unread = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None
        super().on_headers_complete()
        if len(self.pipeline) > _MOST_WAITING:
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer in HTTP what is not HTTP, after the requests before it."""
        if self.cycle is None or self.cycle.more_body or self.cycle.response_complete:
            super().send_400_response(msg)
        else:
            self._malformed = msg

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._malformed and self.cycle.response_complete and not self.transport.is_closing():
            super().send_400_response(self._malformed)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look(-1)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()

    def _look(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left == before:
            self.transport.abort()
        else:
            self._stuck = self.loop.call_later(self.stuck_seconds, self._look, left)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._late, self._stuck):
            if timer is not None:
                timer.cancel()
        if self._answered is not None and not self._answered.response_complete:  # uvicorn: the newest one alone
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def _should_upgrade(self) -> bool:
        return True

    def handle_websocket_upgrade(self) -> None:
        """Answer in HTTP/1.1 what asks for another protocol, as Java's client and `curl --http2` do.

        Called while the parser's `HttpParserUpgrade` is handled: it ended at the head, and does not read the body.
        """
        stopped = sys.exception()
        assert isinstance(stopped, httptools.HttpParserUpgrade)
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            return self.send_400_response("CONNECT found; this is no proxy")
        fields = [b"%s: %s\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        head = b"%s %s HTTP/%s\r\n%s\r\n" % (method, self.url, version, b"".join(fields))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._left = head + self._now[stopped.args[0] :]
        return None
