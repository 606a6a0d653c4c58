"""Bodies that are longer than what is read of them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

pytest.importorskip("starlette", reason="pip install 'samdeploy[serve]'")

from samdeploy.serve.bodies import ReadOn

ANSWER = [
    {"type": "http.response.start", "status": 413, "headers": []},
    {"type": "http.response.body", "body": b"too long"},
]


def run(headers: list[tuple[bytes, bytes]], pieces: list[bytes], *, most: int = 1000) -> tuple[list[Any], list[bytes]]:
    """What is sent by an application that answers at once, and the pieces of the body that nobody read."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in ANSWER:
            await send(message)

    async def receive() -> Any:
        if not pieces:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": True}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(ReadOn(app, most=most, seconds=0.2)({"type": "http", "headers": headers}, receive, send))
    return sent, pieces


def test_an_answer_without_a_body_before_it_is_left_alone() -> None:
    assert run([(b"content-length", b"0")], []) == (ANSWER, [])


@pytest.mark.parametrize("header", [(b"content-length", b"9999999"), (b"transfer-encoding", b"chunked")])
def test_the_rest_of_a_body_is_discarded_up_to_its_bound(header: tuple[bytes, bytes]) -> None:
    sent, left = run([header], [bytes(100)] * 15)
    assert sent[0]["headers"] == [(b"connection", b"close")]
    assert sent[1] == ANSWER[1] | {"more_body": True}  # the client has all of it before the rest is read
    assert sent[2:] == [{"type": "http.response.body"}]
    assert len(left) == 5


def test_a_client_that_stops_is_not_waited_for() -> None:
    begin = time.monotonic()
    sent, _ = run([(b"content-length", b"9")], [])
    assert len(sent) == 3
    assert 0.15 < time.monotonic() - begin < 10
