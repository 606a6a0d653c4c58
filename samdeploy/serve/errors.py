"""What a request can come to, once for HTTP and gRPC."""

from __future__ import annotations

from samdeploy.errors import SamdeployError


class RequestError(SamdeployError):
    """A request that gets no answer, and the HTTP status that says so.

    Attributes:
        status: 400 for what is wrong in it, 404, 413 (too long, or too many images), 415 (compressed), 422
            (an image without an answer), 503 (full, or not ready), 504 (its time was up before the engine came to it).
        retry_after: seconds after which it may work; None: not by waiting.
    """

    def __init__(self, status: int, text: str, retry_after: int | None = None) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after


class QueueFull(RequestError):
    """More images are waiting than were allowed for."""

    def __init__(self, text: str) -> None:
        super().__init__(503, text, retry_after=1)


class TooManyImages(RequestError):
    """A request has more images than may wait."""

    def __init__(self, count: int | str, most: int) -> None:
        super().__init__(413, f"{count} images found, at most {most} in one request (--queue)")


class Late(RequestError):
    """A request's time was up."""

    def __init__(self, text: str = "the request's time was up before the engine came to it") -> None:
        super().__init__(504, text)
