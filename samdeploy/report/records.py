"""What files in and beside the bundle say: head-room, `samdeploy bench`, the leak guard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from samdeploy.bundle import Bundle
from samdeploy.bundle.annotations import Rules
from samdeploy.bundle.fields import read
from samdeploy.bundle.names import LEAKS_FILE
from samdeploy.errors import BundleError
from samdeploy.files import contained_file, read_json
from samdeploy.terminal.wording import engine_name

T = TypeVar("T")

# Where the report looks for what `samdeploy bench --json FILE` wrote.
BENCH_FILE, AGAINST_FILE = "bench.json", "bench-against.json"


@dataclass(frozen=True, slots=True)
class TensorRoom:
    """One tensor of the graph.

    Attributes:
        bits: how often its largest value can double before it leaves FP16; None for a tensor of zeros.
        stored_as_times_two_to_minus: how often the FP16 graph halves it.
    """

    name: str
    bits: float | None
    stored_as_times_two_to_minus: float = 0.0


@dataclass(frozen=True, slots=True)
class HeadroomRecord:
    """headroom.json: `tensors` in the graph's order; `fp32_layers`: layer -> why it stays."""

    images: int
    fp16_share_of_multiply_adds: float
    fp32_layers: Mapping[str, str]
    tensors: tuple[TensorRoom, ...]

    def bits(self) -> dict[str, float]:
        """Tensor -> how often it can double as the FP16 graph stores it; without zeros and pixels."""
        return {
            tensor.name: tensor.bits + tensor.stored_as_times_two_to_minus
            for tensor in self.tensors
            # Pixels are normalised in FP32 in every graph.
            if tensor.bits is not None and not tensor.name.startswith("pixels")
        }


@dataclass(frozen=True, slots=True)
class BatchRate:
    """Images per second at one batch size, and the milliseconds of one batch."""

    batch: int = field(metadata=Rules(at_least=1))
    images_per_s: float = field(metadata=Rules(at_least=0))
    p50_ms: float


@dataclass(frozen=True, slots=True)
class EngineRates:
    """One engine's sweep over batch sizes."""

    backend: str
    precision: str
    device: str
    batches: tuple[BatchRate, ...]

    @property
    def name(self) -> str:
        """What to call it: "openvino int8", and the device where that is not the CPU."""
        return engine_name(self.backend, self.precision, self.device)


@dataclass(frozen=True, slots=True)
class Alternative:
    """How many times as fast as the base an engine is, within each round; None, with the reason, if it was not timed.

    Attributes:
        times_base, times_base_p10, times_base_p90: median, 10th and 90th percentile.
    """

    engine: str
    ours: bool
    ran: bool
    reason: str
    times_base: float | None
    times_base_p10: float | None
    times_base_p90: float | None


@dataclass(frozen=True, slots=True)
class Against:
    """The bundle's engines beside the alternatives, at one batch size; `base` is None if none of them ran."""

    batch: int
    base: str | None
    rows: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class BenchRecord:
    """What `samdeploy bench` measured, when and where; `engines` or `against` is empty where that was not asked for."""

    date: str
    machine: str
    engines: tuple[EngineRates, ...]
    against: tuple[Against, ...]


@dataclass(frozen=True, slots=True)
class LeakRecord:
    """One pair of splits: images of `split` that are in `other` too, exactly and nearly (None: not known)."""

    split: str
    other: str
    images: int
    exact: int
    near: int | None


@dataclass(frozen=True, slots=True)
class _Leaks:
    """leaks.json."""

    overlaps: tuple[LeakRecord, ...]


def read_headroom(bundle: Bundle) -> HeadroomRecord | None:
    """The bundle's headroom.json; None if it has none.

    Raises:
        BundleError: it was changed or is damaged.
    """
    file = bundle.find("headroom")
    if file is None:
        return None
    bundle.read(file)  # checks its hash
    return _read(HeadroomRecord, bundle.root / file.path, "samdeploy export")


def read_bench(bundle: Bundle, name: str) -> BenchRecord | None:
    """`BENCH_FILE` or `AGAINST_FILE` in the bundle's folder, without what was not measured; None if there is none.

    Raises:
        BundleError: it is damaged, or a link.
    """
    path = bundle.root / name
    if not path.exists():
        return None
    contained_file(bundle.root, name, "bench")
    found = _read(BenchRecord, path, "samdeploy bench --json")
    engines = tuple(
        replace(engine, batches=tuple(sorted(engine.batches, key=lambda point: point.batch)))
        for engine in found.engines
        if engine.batches
    )
    return replace(found, engines=engines, against=tuple(each for each in found.against if each.base is not None))


def leaks_of(values: Mapping[str, Any]) -> tuple[LeakRecord, ...]:
    """The pairs of splits in a leak report's JSON: leaks.json, or "leaks" of `eval.json`."""
    return read(_Leaks, values, "leaks", BundleError, ignore_other_keys=True).overlaps


def read_leaks(bundle: Bundle) -> tuple[LeakRecord, ...] | None:
    """What the leak guard found at training: leaks.json of the run that the bundle lies in; None if there is none.

    Raises:
        BundleError: it is damaged.
    """
    path = bundle.root.resolve().parent / LEAKS_FILE
    return _read(_Leaks, path, "samdeploy train").overlaps if path.is_file() else None


def _read(kind: type[T], path: Path, writer: str) -> T:
    """A file that anyone may have edited: whatever is wrong in it costs its section of the report alone."""
    values = read_json(path, path.stem)
    try:
        return read(kind, values, str(path), BundleError, ignore_other_keys=True)
    except BundleError as error:
        raise BundleError(f"{error}; make it again: {writer}") from None
