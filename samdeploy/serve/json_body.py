"""JSON that clients send, read so that no large one keeps other threads waiting."""

from __future__ import annotations

import json
from typing import Any

from samdeploy.serve.errors import RequestError

# Bytes of JSON above which other threads get their turn while it is read.
LARGE = 1 << 20
# What the parser reads without giving another thread its turn, which it does at numbers alone.
_SILENT = (b"[", b"{", b'"', b"null", b"true", b"false", b"\\")
# So many of them in LARGE bytes are no matter: 15,000 encoded images, or base64 whose slashes are escaped.
_FEW = 30_000


def read_json(text: bytes) -> Any:
    """
    Raises:
        RequestError: it is not JSON, is nested too deeply, or is large and not of numbers or of long texts.
    """
    integer, real = None, None
    if len(text) > LARGE:
        _check_silence(text)
        integer, real = _int, _float
    try:
        return json.loads(text, parse_constant=_no_constant, parse_int=integer, parse_float=real)
    except RecursionError:
        raise RequestError(400, "the request is nested too deeply") from None
    except ValueError as error:  # no UTF-8, too, and numbers of thousands of digits
        raise RequestError(400, f"the request is not JSON: {error}") from None


def _check_silence(text: bytes) -> None:
    """Everywhere in it: all in one place would keep the others waiting as long.

    Nested pixels have one list for three numbers, and a few for the rows.
    """
    for start in range(0, len(text), LARGE):
        end = start + LARGE
        if sum(text.count(one, start, end) for one in _SILENT) > _FEW + text.count(b",", start, end) * 2 // 5:
            raise RequestError(
                400, "the request's JSON has too many lists, objects, texts or escapes; send numbers or binary tensors"
            )


# Python's own would keep all other threads waiting from the first number to the last.
def _int(text: str) -> int:
    return int(text)


def _float(text: str) -> float:
    return float(text)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
