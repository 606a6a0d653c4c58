"""Images from addresses such as s3://, gs:// and https://, by fsspec."""

from __future__ import annotations

from typing import Any

from samdeploy.errors import ImageError, PackageMissing, first_line

_PIECE = 1 << 20


class Fetch:
    """Callable: an address to its bytes."""

    def __init__(self, timeout: float, max_bytes: int) -> None:
        """
        Args:
            timeout: seconds until an address that does not answer is given up.
            max_bytes: longer content is refused.
        """
        self._timeout, self._max_bytes = timeout, max_bytes

    def __call__(self, uri: str) -> bytes:
        """
        Raises:
            ImageError: it is not to be had.
            PackageMissing: what fsspec needs for such an address is not installed.
        """
        import fsspec

        is_http = uri.startswith(("http://", "https://"))
        # One read from the beginning: no ranges; and with a size, whichever, fsspec does not ask for it first.
        once = {"block_size": 0, "size": 1} if is_http else {}
        try:
            files, path = fsspec.url_to_fs(uri, **(self._http_options() if is_http else {}))
            with files.open(path, "rb", **once) as file:
                content = self._content(file)
        except ImportError as error:
            raise PackageMissing(f"{uri}: {first_line(error)}") from None
        except Exception as error:  # every file system has its own
            raise ImageError(f"{uri}: {self._why(uri, error)}") from None
        if len(content) > self._max_bytes:
            raise ImageError(f"{uri}: more than {self._max_bytes:,} bytes")
        return content

    def _why(self, uri: str, error: BaseException) -> str:
        causes = [error]
        while causes[-1].__cause__ is not None:  # over HTTP, everything is a FileNotFoundError on top
            causes.append(causes[-1].__cause__)
        if any(isinstance(cause, TimeoutError) for cause in causes):
            return f"no answer within {self._timeout:g} s"
        if isinstance(causes[-1], FileNotFoundError):
            return "no such file"
        return f"cannot be read ({type(causes[-1]).__name__}: {first_line(causes[-1]).replace(uri, '')})"

    def _content(self, file: Any) -> bytes:
        """All of it, as far as the limit: one read may give what is there just now."""
        pieces, left = [], self._max_bytes + 1
        while left > 0 and (piece := file.read(min(left, _PIECE))):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _http_options(self) -> dict[str, Any]:
        import aiohttp

        return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=self._timeout)}}
