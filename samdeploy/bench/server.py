"""A server of the Open Inference Protocol under load: does it answer as the bundle does, how soon, and how often.

The client is written here and knows nothing of our own server: Triton, OVMS and others are asked the same.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends import precisions_held
from samdeploy.backends.golden import GOLDEN_TOLERANCE, golden_error
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, BundleError, InputError

CONCURRENCIES = (1, 2, 4, 8, 16, 32)
_HEADER_LENGTH = "Inference-Header-Content-Length"
# As perf_analyzer has it: three windows one after another whose rates and latencies are as far apart, at most so many.
_ALIKE, _WINDOWS, _MOST_WINDOWS = 0.1, 3, 10
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """
    Attributes:
        url: .../v2/models/NAME, or with /versions/V behind it.
        concurrencies: how many clients ask at once.
        seconds: of a window.
        precision: that the server is said to compute in; None: the coarsest of the bundle.
        key: sent as `Authorization: Bearer KEY`.
    """

    url: str
    concurrencies: Sequence[int] = CONCURRENCIES
    seconds: float = 1.0
    precision: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """One number of clients, over the last windows.

    Attributes:
        rate: answers a second.
        p50_ms, p95_ms, p99_ms: from sending to the whole answer.
        answers, failed: how many; a failed one has another status than 200, or wrong logits.
        settled: whether three windows were alike.
    """

    clients: int
    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    answers: int
    failed: int
    settled: bool


@dataclass(frozen=True, slots=True)
class ServerBench:
    """What was found.

    Attributes:
        about: the server's own answer to GET v2.
        difference: the largest from the golden logits, as a share of their range.
        allowed: of `precision`.
        statuses: HTTP status -> how often it came instead of an answer; "wrong" counts answers with other logits.
    """

    url: str
    about: dict[str, Any]
    precision: str
    difference: float
    allowed: float
    points: tuple[LoadPoint, ...]
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether every answer was that of the bundle."""
        return self.difference <= self.allowed and not self.statuses

    def to_json(self) -> dict[str, Any]:
        """As it is written to a file."""
        return {**asdict(self), "sound": self.sound}


class _Client:
    """One connection that is kept."""

    def __init__(self, options: ServerOptions) -> None:
        parts = urlsplit(options.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "/models/" not in parts.path:
            raise InputError(f"--url: {options.url!r} found, such as http://127.0.0.1:8000/v2/models/NAME expected")
        if parts.scheme == "https":
            context = ssl.create_default_context()
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=_TIMEOUT, context=context
            )
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT)
        self.path = parts.path.rstrip("/")
        self.headers = {"Authorization": f"Bearer {options.key}"} if options.key else {}

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, str]:
        """(status, body, length of the JSON at its front or "")."""
        try:
            self._connection.request(method, path, body, self.headers | (headers or {}))
            answer = self._connection.getresponse()
            return answer.status, answer.read(), answer.getheader(_HEADER_LENGTH, "")
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise BackendUnavailable(f"{self._connection.host}:{self._connection.port}: {error}") from None

    def close(self) -> None:
        self._connection.close()


def bench_server(bundle: Bundle, options: ServerOptions) -> ServerBench:
    """Compare a server's answers to the golden images with the bundle's, then ask it again and again.

    Raises:
        InputError: `url` is no address of a model, or a number of clients is below 1.
        BackendUnavailable: nobody answers there, or not the protocol.
        BundleError: the model there has other tensors than the bundle.
    """
    if min(options.concurrencies, default=0) < 1:
        raise InputError(f"--clients: {', '.join(map(str, options.concurrencies))} found, numbers from 1 on expected")
    images, golden = bundle.golden()
    client = _Client(options)
    try:
        about = _json(client, client.path.partition("/models/")[0])
        model = _json(client, client.path)
        _check_tensors(model, bundle)
        precision = options.precision or _said_precision(client, bundle) or _coarsest(bundle)
        requests = [_request(image[None], bundle) for image in images]
        found = np.concatenate([_logits(client, request, bundle) for request in requests])
        difference = golden_error(found, golden, precision)
        statuses: dict[str, int] = {}
        allowed = GOLDEN_TOLERANCE[precision]
        largest = allowed * float(np.ptp(found))
        points = tuple(
            _point(options, bundle, requests, found, largest, clients, statuses) for clients in options.concurrencies
        )
    finally:
        client.close()
    return ServerBench(options.url, about, precision, difference, allowed, points, statuses)


def _said_precision(client: _Client, bundle: Bundle) -> str | None:
    """What `samdeploy serve` says of its engine; None from other servers, and if the bundle lacks it."""
    status, body, _ = client.ask("GET", f"{client.path}/config")
    try:
        said = json.loads(body)["parameters"]["precision"]["string_value"]
    except (ValueError, KeyError, TypeError):
        return None
    return said if status == 200 and said in _held(bundle) else None


def _coarsest(bundle: Bundle) -> str:
    return max(_held(bundle), key=GOLDEN_TOLERANCE.__getitem__)


def _held(bundle: Bundle) -> set[str]:
    return {
        precision
        for backend in ("onnxruntime", "openvino", "tensorrt")
        for precision in precisions_held(bundle, backend)
    } or {"fp32"}


def _json(client: _Client, path: str) -> dict[str, Any]:
    status, body, _ = client.ask("GET", path)
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if status != 200 or not isinstance(found, dict):
        raise BackendUnavailable(f"GET {path}: {status} {body[:100]!r} found, 200 and a JSON object expected")
    return found


def _check_tensors(model: dict[str, Any], bundle: Bundle) -> None:
    spec = bundle.spec
    size = spec.preprocessing
    expected = {
        (spec.input.name, "UINT8", (size.height, size.width, 3)),
        (spec.output.name, "FP32", (len(spec.classes),)),
    }
    found = {
        (one.get("name"), one.get("datatype"), tuple(one.get("shape", ()))[1:])
        for one in [*model.get("inputs", ()), *model.get("outputs", ())]
    }
    if not expected <= found:
        raise BundleError(
            f"the server's model has the tensors {sorted(found, key=str)}, not the bundle's {sorted(expected)}"
        )


def _request(image: UInt8Array, bundle: Bundle) -> tuple[bytes, dict[str, str]]:
    parameters = {"binary_data_size": image.nbytes}
    tensor = {"name": bundle.spec.input.name, "datatype": "UINT8", "shape": image.shape, "parameters": parameters}
    output = {"name": bundle.spec.output.name, "parameters": {"binary_data": True}}
    front = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    return front + image.tobytes(), {_HEADER_LENGTH: str(len(front)), "Content-Type": "application/octet-stream"}


def _logits(client: _Client, request: tuple[bytes, dict[str, str]], bundle: Bundle) -> Float32Array:
    status, body, front = client.ask("POST", client.path + "/infer", *request)
    logits = _read_logits(status, body, front, bundle)
    if logits is None:
        raise BackendUnavailable(f"POST {client.path}/infer: {status} {body[:200]!r} found, logits expected")
    return logits


def _read_logits(status: int, body: bytes, front: str, bundle: Bundle) -> Float32Array | None:
    """float32 [1, K]; None where the answer holds none."""
    classes = len(bundle.spec.classes)
    if status != 200 or not front.isdecimal() or len(body) - int(front) != 4 * classes:
        return None
    return np.frombuffer(body, "<f4", classes, int(front)).reshape(1, classes)


class _Window:
    """What clients found, while it lasts."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        self.failed = 0


def _point(
    options: ServerOptions,
    bundle: Bundle,
    requests: Sequence[tuple[bytes, dict[str, str]]],
    expected: Float32Array,
    largest: float,
    clients: int,
    statuses: dict[str, int],
) -> LoadPoint:
    lock, stop = threading.Lock(), threading.Event()
    window = _Window()

    def work(number: int) -> None:
        client = _Client(options)
        place = number
        try:
            while not stop.is_set():
                place = (place + 1) % len(requests)
                start = time.perf_counter()
                try:
                    status, body, front = client.ask("POST", client.path + "/infer", *requests[place])
                except BackendUnavailable:
                    status, body, front = 0, b"", ""
                spent = 1000 * (time.perf_counter() - start)
                logits = _read_logits(status, body, front, bundle)
                sound = logits is not None and bool((np.abs(logits[0] - expected[place]) <= largest).all())
                with lock:
                    if sound:
                        window.ms.append(spent)
                    else:
                        window.failed += 1
                        name = "wrong" if status == 200 else str(status or "no answer")
                        statuses[name] = statuses.get(name, 0) + 1
                if not sound:
                    time.sleep(0.01)  # a server that refuses is not asked ten thousand times a second
        finally:
            client.close()

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    windows: list[tuple[_Window, float]] = []
    time.sleep(min(options.seconds, 0.5))  # connections and first batches
    try:
        while len(windows) < _MOST_WINDOWS and not _settled(windows):
            with lock:
                window = _Window()
            start = time.perf_counter()
            time.sleep(options.seconds)
            windows.append((window, time.perf_counter() - start))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    last = windows[-_WINDOWS:]
    ms = [value for one, _ in last for value in one.ms] or [float("nan")]
    p50, p95, p99 = (float(value) for value in np.percentile(ms, [50, 95, 99]))
    answers, failed = sum(len(one.ms) for one, _ in last), sum(one.failed for one, _ in last)
    rate = answers / sum(seconds for _, seconds in last)
    return LoadPoint(clients, rate, p50, p95, p99, answers, failed, _settled(windows))


def _settled(windows: Sequence[tuple[_Window, float]]) -> bool:
    last = windows[-_WINDOWS:]
    if len(last) < _WINDOWS or any(not one.ms for one, _ in last):
        return False
    rates = [len(one.ms) / seconds for one, seconds in last]
    medians = [float(np.median(one.ms)) for one, _ in last]
    return all(max(values) <= (1 + _ALIKE) * min(values) for values in (rates, medians))
