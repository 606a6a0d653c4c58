"""Runtimes behind one `Session`.  No runtime is imported before it is asked for."""

from samdeploy.backends.names import BACKENDS
from samdeploy.backends.registry import availability, open_session, precisions_held

__all__ = ["BACKENDS", "availability", "open_session", "precisions_held"]
