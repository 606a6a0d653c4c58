"""Ports to listen on."""

from __future__ import annotations

import errno
import socket

from samdeploy.errors import InputError

# Number of an error -> what it says, and what to do.
_REFUSED = {
    errno.EADDRINUSE: ("the port is taken", "; give another one"),
    errno.EACCES: ("not permitted: ports below 1024 are for root", "; give another one"),
    errno.EADDRNOTAVAIL: ("not an address of this machine", "; --host 0.0.0.0 listens on all of its addresses"),
}


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """A socket that connections queue at; port 0 takes a free one.

    Args:
        option: of the command line that named the port, for errors.

    Raises:
        InputError: the port is taken, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
        listening.setblocking(False)
    except (OSError, OverflowError, UnicodeError) as error:  # the last: a host of labels that are empty or too long
        if isinstance(error, socket.gaierror | UnicodeError):
            raise InputError(f"--host {host}: no such host; give an address of this machine, or 0.0.0.0") from None
        what, cure = _REFUSED.get(getattr(error, "errno", None) or 0, (str(error), ""))
        option = "--host" if getattr(error, "errno", None) == errno.EADDRNOTAVAIL else option
        raise InputError(f"{option}: cannot listen on {host_and_port(host, port)}: {what}{cure}") from None
    return listening


def host_and_port(host: str, port: int) -> str:
    """HOST:PORT, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
