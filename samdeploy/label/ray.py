"""One labelling on a cluster of Ray: actors with an engine each make whole parts, whichever is next.

The parts go straight into the folder of the results, which all nodes share.  The part of an actor that is lost, alone
or with its node, is given to another one, and a new actor is asked for; an actor that finds no room waits for it
without holding a part.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from samdeploy.bundle.spec import MAX_BYTES
from samdeploy.classifier import Classifier
from samdeploy.errors import BackendUnavailable, InputError, first_line
from samdeploy.images.walk import counted
from samdeploy.label.inputs import Input
from samdeploy.label.label import Labelling, engine_facts, opened
from samdeploy.label.options import LabelOptions
from samdeploy.label.summary import Summary
from samdeploy.label.worker import Worker
from samdeploy.progress import progress_bar

# A part whose actors die so often kills them, for example for want of memory.
_MAX_LOSSES = 5
_WAIT_S = 60.0
_PATIENCE = 10.0  # seconds, for a connection


@dataclass(frozen=True, slots=True)
class Wanted:
    """The engine, and how many actors with how much of the cluster.

    Attributes:
        bundle: its folder, on every node.
        backend, device, precision, trust: see `Classifier.open`.
        workers: actors; None: one for each node.
        gpus: of each actor.
    """

    bundle: Path
    backend: str = "auto"
    device: str = "auto"
    precision: str | None = None
    trust: Path | None = None
    workers: int | None = None
    gpus: float = 0.0


def label_on_ray(wanted: Wanted, options: LabelOptions) -> tuple[Summary, tuple[str, ...]]:
    """`label` by actors; the parts have the bytes that it would write.

    Uses the cluster that the process is connected to, else that of RAY_ADDRESS or of this machine, else a new one here.

    Returns:
        The summary, and the names of the classes.

    Raises:
        InputError: as `label` raises it; or the nodes open different engines.
        BackendUnavailable: an engine cannot be opened or failed, or a part loses its actor again and again.
    """
    options = replace(options, out=options.out.absolute())
    with _connected(), opened(options, MAX_BYTES) as given:
        crew = _Crew(wanted, options, given)
        try:
            return crew.work()
        finally:
            crew.dismiss()


@contextmanager
def _connected() -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing calls home
    try:
        _check_reachable(os.environ.get("RAY_ADDRESS", ""))
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
    except Exception as error:  # of its own kinds, RuntimeError, ConnectionError, or Exception itself
        raise BackendUnavailable(
            f"--engine ray: Ray cannot be reached, or started here ({first_line(error)}); RAY_ADDRESS names a cluster"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError where nobody listens at HOST:PORT, which Ray would try for minutes without a word."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()


class _Actor:
    """One engine on some node."""

    def __init__(self, wanted: Wanted, options: LabelOptions, given: Input, omp_threads: str | None) -> None:
        # Ray sets it to the actor's share of processors, which would change the order of sums in PyTorch.
        os.environ.pop("OMP_NUM_THREADS", None)
        if omp_threads is not None:
            os.environ["OMP_NUM_THREADS"] = omp_threads
        self._wanted, self._options, self._given = wanted, options, given

    def open(self) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Open the engine: what the labels depend on of it, and the classes."""
        wanted = self._wanted
        classifier = Classifier.open(
            wanted.bundle, wanted.backend, device=wanted.device, precision=wanted.precision, max_bytes=MAX_BYTES,
            trust=wanted.trust,
        )  # fmt: skip
        self._worker = Worker(classifier, self._options, self._given)
        return engine_facts(classifier), classifier.classes

    def work(self, number: int, rows: range, settings: Mapping[str, Any]) -> None:
        """Make one part."""
        self._worker.work(number, rows, settings, lambda steps, status: None)


class _Crew:
    """The actors, and which part each of them makes."""

    def __init__(self, wanted: Wanted, options: LabelOptions, given: Input) -> None:
        self._options, self._given = options, given
        self._hire = _hiring(wanted, options, given)
        self._labelling: Labelling | None = None
        self._facts: tuple[dict[str, Any], tuple[str, ...]] = {}, ()
        self._waiting: deque[int] = deque()
        self._idle: list[Any] = []
        # What Ray is asked for -> the actor, and its part; None while it opens its engine.
        self._running: dict[Any, tuple[Any, int | None]] = {}
        self._losses: Counter[int | None] = Counter()
        wanted_parts = -(-min(given.count, options.limit or given.count) // options.rows)
        for _ in range(min(wanted.workers or len(_nodes()), wanted_parts)):
            self._add()

    def _add(self) -> None:
        actor = self._hire()
        self._running[actor.open.remote()] = actor, None

    def work(self) -> tuple[Summary, tuple[str, ...]]:
        """All parts; see `label_on_ray`."""
        while self._labelling is None:
            self._wait(lambda steps, status: None)
        with progress_bar("labels", self._labelling.own) as step:
            while self._waiting or any(number is not None for _, number in self._running.values()):
                self._wait(step)
        return self._labelling.ended(), self._facts[1]

    def _wait(self, step: Callable[[int, str], None]) -> None:
        """For one actor that has done or lost what it did; then those without a part get one."""
        ready, _ = ray.wait(list(self._running), timeout=_WAIT_S)
        if not ready and all(number is None for _, number in self._running.values()):
            print(f"no worker has begun; the cluster has {_free()} free", file=sys.stderr)
        for order in ready:
            actor, number = self._running.pop(order)
            try:
                found = ray.get(order)
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:  # with its node, by the kernel for want of memory, or out of reach
                self._lost(actor, number, error)
                continue
            self._losses[number] = 0
            self._idle.append(actor)
            if number is None:
                self._ready(found)
            elif self._labelling:
                step(len(self._labelling.rows_of(number)), f"{counted(self._busy(), 'worker')}")
        while self._idle and self._waiting and self._labelling:
            actor, number = self._idle.pop(), self._waiting.popleft()
            order = actor.work.remote(number, self._labelling.rows_of(number), self._labelling.settings)
            self._running[order] = actor, number

    def _ready(self, facts: tuple[dict[str, Any], tuple[str, ...]]) -> None:
        """The first engine says what all must be."""
        if self._labelling is None:
            self._facts = facts
            self._labelling = Labelling(self._options, self._given, facts[0])
            self._waiting.extend(self._labelling.to_do)
        elif facts != self._facts:
            raise InputError(
                f"the nodes open different engines ({self._facts[0]['engine']} and {facts[0]['engine']}); name one "
                "with --backend, --precision and --device, and copy the same bundle to all"
            )

    def _lost(self, actor: Any, number: int | None, error: RayError) -> None:
        self._losses[number] += 1
        what = "opening its engine" if number is None else f"part {number}"
        if self._losses[number] >= _MAX_LOSSES:
            raise BackendUnavailable(f"{what}: {_MAX_LOSSES} workers were lost; last error: {error}")
        print(f"a worker was lost at {what}: {type(error).__name__}; it is done again", file=sys.stderr)
        with suppress(RayError):
            ray.kill(actor)
        if number is not None and self._labelling:
            self._labelling.tidy([number])
            self._waiting.appendleft(number)
        self._add()

    def _busy(self) -> int:
        return sum(number is not None for _, number in self._running.values())

    def dismiss(self) -> None:
        """End the actors."""
        for actor in [*self._idle, *(actor for actor, _ in self._running.values())]:
            with suppress(RayError):
                ray.kill(actor)


def _hiring(wanted: Wanted, options: LabelOptions, given: Input) -> Callable[[], Any]:
    """Gives a new actor, which begins when some node has room."""
    trust = wanted.trust.absolute() if wanted.trust else None
    wanted, shared = replace(wanted, bundle=wanted.bundle.absolute(), trust=trust), ray.put(given)
    kind = ray.remote(_Actor).options(
        num_cpus=options.threads or 1, num_gpus=wanted.gpus, scheduling_strategy="SPREAD", max_restarts=0
    )
    return lambda: kind.remote(wanted, options, shared, os.environ.get("OMP_NUM_THREADS"))


def _nodes() -> list[Mapping[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _free() -> str:
    found = ray.available_resources()
    return f"{found.get('CPU', 0):g} CPUs and {found.get('GPU', 0):g} GPUs"
