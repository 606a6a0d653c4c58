"""Runtimes behind one `Session`.  No runtime is imported before it is asked for."""

from samdeploy.backends.registry import (
    BACKENDS,
    DEFAULT_PRECISION,
    availability,
    check_precision,
    open_session,
    precisions_held,
)

__all__ = [
    "BACKENDS",
    "DEFAULT_PRECISION",
    "availability",
    "check_precision",
    "open_session",
    "precisions_held",
]
