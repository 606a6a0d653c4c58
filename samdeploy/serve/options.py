"""The options of `samdeploy serve`, and whether they fit each other."""

from __future__ import annotations

import ssl
import sys
from dataclasses import dataclass, field
from pathlib import Path

from samdeploy.errors import InputError
from samdeploy.serve.served import Limits

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The options of `samdeploy serve`.

    Attributes:
        host, port: port 0 takes a free one.
        grpc_port: likewise for gRPC; None: no gRPC.
        backend, device, precision: as `Classifier.open` takes them.
        threads: that decode; 0: as many as processors.
        selftest_every: seconds between runs of the golden images; 0: only at the start.
        header_seconds, body_seconds: in which a client must have sent its request's head, and its body; it must read
            something of its answer in the latter, too.
        connections: at most so many at a time.
        drain_seconds: after SIGTERM, how long requests are still taken while the server says that it is not ready.
        workers: processes that share the port, each with engines of its own.
        trust: a public key that must have signed every bundle, see `Classifier.open`.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    backend: str = "auto"
    device: str = "auto"
    precision: str | None = None
    limits: Limits = field(default_factory=Limits)
    threads: int = 0
    selftest_every: float = 600.0
    api_key_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    connections: int = 1000
    drain_seconds: float = 0.0
    workers: int = 1
    trust: Path | None = None


def check_delay(limits: Limits) -> None:
    """
    Raises:
        InputError: requests would time out while they wait for others.
    """
    if limits.delay >= limits.timeout:
        most = f"less than {1000 * limits.timeout:g} (--timeout)"
        raise InputError(f"--delay-ms: {1000 * limits.delay:g} found, {most} expected")


def check_tls(certificate: Path | None, key: Path | None) -> None:
    """
    Raises:
        InputError: one without the other, or no certificate with its key.
    """
    if (certificate is None) != (key is None):
        given, other = ("--tls-cert", "--tls-key") if key is None else ("--tls-key", "--tls-cert")
        raise InputError(f"{given} found without {other}; a certificate and its key, both PEM, expected")
    if certificate is None or key is None:
        return
    for option, path in (("--tls-cert", certificate), ("--tls-key", key)):
        if not path.is_file():
            raise InputError(f"{option} {path}: no such file")
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, lambda: "")
    except (ssl.SSLError, OSError) as error:
        raise InputError(
            f"--tls-cert {certificate}, --tls-key {key}: not a certificate and its private key in PEM ({error})"
        ) from None


def warn_if_open(options: ServeOptions) -> None:
    """Say on stderr that other machines need no key."""
    if options.host not in _LOOPBACK and options.api_key_file is None:
        print(
            f"warning: whoever reaches {options.host} may use this server; --api-key-file FILE asks for a key",
            file=sys.stderr,
        )
