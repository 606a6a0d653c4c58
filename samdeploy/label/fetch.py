"""Images from addresses such as s3://, gs:// and https://, by fsspec."""

from __future__ import annotations

from typing import Any

from samdeploy.errors import ImageError, InputError, first_line


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
            InputError: what fsspec needs for such an address is not installed.
        """
        import fsspec

        try:
            with fsspec.open(uri, "rb", **self._options(uri)) as file:
                content: bytes = file.read(self._max_bytes + 1)
        except ImportError as error:
            raise InputError(f"{uri}: {first_line(error)}") from None
        except Exception as error:  # every file system has its own
            text = first_line(error) or type(error).__name__
            raise ImageError(f"{uri}: cannot be read ({text})") from None
        if len(content) > self._max_bytes:
            raise ImageError(f"{uri}: more than {self._max_bytes:,} bytes")
        return content

    def _options(self, uri: str) -> dict[str, Any]:
        if not uri.startswith(("http://", "https://")):
            return {}
        import aiohttp

        # One read from the beginning: no ranges, and no question for the size before it.
        return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=self._timeout)}, "block_size": 0}
