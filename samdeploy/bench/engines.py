"""Which engines of a bundle are benched, and at which batch sizes."""

from __future__ import annotations

from dataclasses import dataclass

from samdeploy.backends import BACKENDS, precisions_held
from samdeploy.bundle import Bundle
from samdeploy.errors import InputError

ALL = "all"
# The largest batch where no profile sets one.
MOST = 64
# PyTorch is the reference; it is benched where it is named, and as an alternative.
_ENGINES = tuple(backend for backend in BACKENDS if backend != "pytorch")


@dataclass(frozen=True, slots=True)
class Engine:
    """One runtime at one precision.

    Attributes:
        smallest, largest: batch sizes of its profile; no largest one is None.
    """

    backend: str
    precision: str
    smallest: int = 1
    largest: int | None = None

    @property
    def name(self) -> str:
        return f"{self.backend} {self.precision}"

    def takes(self, batch: int) -> bool:
        """Whether a batch is within the profile, and so is neither split nor filled up."""
        return self.smallest <= batch <= (self.largest or batch)


def select_engines(bundle: Bundle, backend: str, precision: str | None) -> tuple[Engine, ...]:
    """The engines to bench, runnable here or not.

    Args:
        backend: a key of `BACKENDS`, or "all".
        precision: None: all that the bundle holds for a backend, see `precisions_held`.
    """
    names = _ENGINES if backend == ALL else (backend,)
    return tuple(
        _engine(bundle, name, chosen)
        for name in names
        for chosen in ([precision] if precision is not None else precisions_held(bundle, name))
    )


def sweep_sizes(engine: Engine, wanted: tuple[int, ...] | None) -> tuple[int, ...]:
    """The batch sizes of an engine's sweep: those wanted that it takes; None: 1, 2, 4 and so on up to its largest."""
    if wanted is not None:
        return tuple(size for size in wanted if engine.takes(size))
    largest = engine.largest or MOST
    doubled = {1 << power for power in range(largest.bit_length())} | {largest, engine.smallest}
    return tuple(sorted(size for size in doubled if engine.takes(size)))


def check_sizes(engines: tuple[Engine, ...], wanted: tuple[int, ...] | None, *, named: bool) -> None:
    """Refuse batch sizes that no engine takes, or that one asked for by name does not.

    Outside its profile a session splits a batch or fills it up: the figure would be that of another batch.

    Raises:
        InputError: with the profile.
    """
    for size in wanted or ():
        refusing = [engine for engine in engines if not engine.takes(size)]
        if refusing and (named or len(refusing) == len(engines)):
            first = refusing[0]
            raise InputError(
                f"--batch: {size} found, but the profile of {first.name} takes {first.smallest} to {first.largest}; "
                "choose sizes between, or export again with --batch MIN,OPT,MAX"
            )


def _engine(bundle: Bundle, backend: str, precision: str) -> Engine:
    engines = bundle.select("engine", backend=backend, precision=precision)
    bounds = [file.batches for file in engines if file.batches]
    if not bounds:
        return Engine(backend, precision)
    # Which of several targets' plans will open is not known yet: what all of them take.
    return Engine(backend, precision, max(low for low, _ in bounds), min(high for _, high in bounds))
