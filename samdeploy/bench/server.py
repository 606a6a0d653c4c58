"""A server of the Open Inference Protocol under load: does it answer as the bundle does, how soon, and how often.

The client knows nothing of our own server: Triton, OVMS and others are asked the same.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from samdeploy.arrays import Float32Array, Float64Array, UInt8Array
from samdeploy.backends.golden import GOLDEN_TOLERANCE, golden_error
from samdeploy.bench.open_inference import HEADER_LENGTH, Client, tensors_of
from samdeploy.bench.options import check_seconds
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, BundleError, InputError
from samdeploy.evaluate.finite_json import finite_json
from samdeploy.files import strict_json

CONCURRENCIES = (1, 2, 4, 8, 16, 32)
# As perf_analyzer has it: three windows one after another whose rates and latencies are as far apart, at most so many.
_ALIKE, _WINDOWS, _MOST_WINDOWS = 0.1, 3, 10
# Seconds that answers may still take after the last window.
_DRAIN = 10.0


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
        answers, failed: how many; a failed one has another status than 200, wrong logits, or never came.
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
        precision_known: it was named, by the user or the server; else it is the coarsest that the bundle has.
        difference: the largest from the golden logits, as a share of their range.
        allowed: of `precision`.
        statuses: HTTP status -> how often it came instead of an answer; "wrong" counts answers with other logits.
    """

    url: str
    about: dict[str, Any]
    precision: str
    precision_known: bool
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
        return {**finite_json(self), "sound": self.sound}


def bench_server(bundle: Bundle, options: ServerOptions) -> ServerBench:
    """Compare a server's answers to the golden images with the bundle's, then ask it again and again.

    Raises:
        InputError: `url` is no address of a model, a number of clients is below 1, or `seconds` are too few or many.
        BackendUnavailable: nobody answers there, or not the protocol.
        BundleError: the model there has other tensors than the bundle.
    """
    if min(options.concurrencies, default=0) < 1:
        raise InputError(f"--clients: {', '.join(map(str, options.concurrencies))} found, numbers from 1 on expected")
    check_seconds(options.seconds)
    images, golden = bundle.golden()
    client = Client(options.url, options.key)
    try:
        about = client.json(client.path.partition("/models/")[0])
        _check_tensors(client.path, client.json(client.path), bundle)
        held = _held(bundle)
        known = options.precision or _said_precision(client, held)
        precision = known or max(held, key=GOLDEN_TOLERANCE.__getitem__)
        requests = [_request(image[None], bundle) for image in images]
        found = np.concatenate([_logits(client, request, bundle) for request in requests])
    finally:
        client.close()
    difference = golden_error(found, golden, precision)
    statuses: dict[str, int] = {}
    allowed = GOLDEN_TOLERANCE[precision]
    expected = found.astype(np.float64)
    points = tuple(
        _point(options, bundle, requests, expected, allowed * float(np.ptp(expected)), clients, statuses)
        for clients in options.concurrencies
    )
    return ServerBench(options.url, about, precision, known is not None, difference, allowed, points, statuses)


def _said_precision(client: Client, held: set[str]) -> str | None:
    """What `samdeploy serve` says of its engine; None from other servers, and if the bundle lacks it."""
    status, body, _ = client.ask("GET", f"{client.path}/config")
    try:
        config = strict_json(body)
    except ValueError:
        return None
    match config:
        case {"parameters": {"precision": {"string_value": str(said)}}} if status == 200 and said in held:
            return said
    return None


def _held(bundle: Bundle) -> set[str]:
    """Precisions of the bundle's graphs and engines."""
    return {file.precision for file in bundle.files if file.role in ("graph", "engine") and file.precision} or {"fp32"}


def _check_tensors(path: str, model: dict[str, Any], bundle: Bundle) -> None:
    spec = bundle.spec
    size = spec.preprocessing
    expected = {
        (spec.input.name, "UINT8", (size.height, size.width, 3)),
        (spec.output.name, "FP32", (len(spec.classes),)),
    }
    found = {(name, datatype, shape[1:]) for name, datatype, shape in tensors_of(path, model)}
    if not expected <= found:
        raise BundleError(
            f"--url: a model with the tensors {sorted(found, key=str)} found, the bundle's {sorted(expected)} expected"
        )


def _request(image: UInt8Array, bundle: Bundle) -> tuple[bytes, dict[str, str]]:
    parameters = {"binary_data_size": image.nbytes}
    tensor = {"name": bundle.spec.input.name, "datatype": "UINT8", "shape": image.shape, "parameters": parameters}
    output = {"name": bundle.spec.output.name, "parameters": {"binary_data": True}}
    front = json.dumps({"inputs": [tensor], "outputs": [output]}).encode()
    return front + image.tobytes(), {HEADER_LENGTH: str(len(front)), "Content-Type": "application/octet-stream"}


def _logits(client: Client, request: tuple[bytes, dict[str, str]], bundle: Bundle) -> Float32Array:
    status, body, front = client.ask("POST", client.path + "/infer", *request)
    logits = _read_logits(status, body, front, bundle)
    if logits is None:
        raise BackendUnavailable(f"POST {client.path}/infer: {status} {body[:200]!r} found, finite logits expected")
    return logits


def _read_logits(status: int, body: bytes, front: str, bundle: Bundle) -> Float32Array | None:
    """float32 [1, K], finite; None where the answer holds none."""
    classes = len(bundle.spec.classes)
    length = int(front) if front.isdecimal() and len(front) < 10 else -1
    if status != 200 or length < 0 or len(body) - length != 4 * classes:
        return None
    logits = np.frombuffer(body, "<f4", classes, length).reshape(1, classes)
    return logits if np.isfinite(logits).all() else None


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request: when it was sent and answered, by `time.perf_counter`, and whether the answer was right."""

    start: float
    end: float
    sound: bool


def _point(
    options: ServerOptions,
    bundle: Bundle,
    requests: Sequence[tuple[bytes, dict[str, str]]],
    expected: Float64Array,
    largest: float,
    clients: int,
    statuses: dict[str, int],
) -> LoadPoint:
    lock, stop = threading.Lock(), threading.Event()
    asked: list[_Asked] = []

    def work(client: Client, place: int) -> None:
        while not stop.is_set():
            place = (place + 1) % len(requests)
            start = time.perf_counter()
            try:
                status, body, front = client.ask("POST", client.path + "/infer", *requests[place])
            except BackendUnavailable:
                status, body, front = 0, b"", ""
            end = time.perf_counter()
            logits = _read_logits(status, body, front, bundle)
            sound = logits is not None and bool((np.abs(logits[0] - expected[place]) <= largest).all())
            with lock:
                asked.append(_Asked(start, end, sound))
                if not sound:
                    name = "wrong" if status == 200 else str(status or "no answer")
                    statuses[name] = statuses.get(name, 0) + 1
            if not sound:
                time.sleep(0.01)  # a server that refuses is not asked ten thousand times a second

    connections = [Client(options.url, options.key) for _ in range(clients)]
    threads = [
        threading.Thread(target=work, args=(client, number), daemon=True) for number, client in enumerate(connections)
    ]
    for thread in threads:
        thread.start()
    time.sleep(min(options.seconds, 0.5))  # connections and first batches
    edges = [time.perf_counter()]
    try:
        while len(edges) <= _MOST_WINDOWS and not _settled(asked, edges):
            time.sleep(options.seconds)
            edges.append(time.perf_counter())
        stop.set()
        _join(threads, _DRAIN)
    finally:
        stop.set()
        for client in connections:  # what still waits gets no answer
            client.abort()
        _join(threads, 1.0)
        for client in connections:
            client.close()
    with lock:
        return _load_point(asked, edges, clients)


def _join(threads: Sequence[threading.Thread], seconds: float) -> None:
    until = time.perf_counter() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.perf_counter()))


def _load_point(asked: Sequence[_Asked], edges: Sequence[float], clients: int) -> LoadPoint:
    """Of the last windows; a request counts in the rate by the share of its time that lies there.

    So windows that are shorter than an answer takes neither gain nor lose answers.
    """
    begin, end = edges[-1 - _WINDOWS], edges[-1]
    there = [one for one in asked if one.start < end and one.end > begin]
    sound = [one for one in there if one.sound]
    shares = [(min(one.end, end) - max(one.start, begin)) / (one.end - one.start) for one in sound]
    ms = [1000 * (one.end - one.start) for one in sound] or [float("nan")]
    p50, p95, p99 = (float(value) for value in np.percentile(ms, [50, 95, 99]))
    rate = sum(shares) / (end - begin)
    return LoadPoint(clients, rate, p50, p95, p99, len(sound), len(there) - len(sound), settled=_settled(asked, edges))


def _settled(asked: Sequence[_Asked], edges: Sequence[float]) -> bool:
    """Whether rates and latencies of the answers that arrived in each of the last windows are alike."""
    if len(edges) <= _WINDOWS:
        return False
    rates, medians = [], []
    for begin, end in itertools.pairwise(edges[-1 - _WINDOWS :]):
        ms = [one.end - one.start for one in tuple(asked) if one.sound and begin < one.end <= end]
        if not ms:
            return False
        rates.append(len(ms) / (end - begin))
        medians.append(float(np.median(ms)))
    return all(max(values) <= (1 + _ALIKE) * min(values) for values in (rates, medians))
