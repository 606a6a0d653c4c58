"""What files in and beside the bundle say: head-room, `samdeploy bench`, the leak guard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samdeploy.bundle import Bundle
from samdeploy.bundle.names import LEAKS_FILE
from samdeploy.errors import BundleError
from samdeploy.files import contained_file, read_json

# Where the report looks for what `samdeploy bench --json FILE` wrote.
BENCH_FILE, AGAINST_FILE = "bench.json", "bench-against.json"


@dataclass(frozen=True, slots=True)
class TensorRoom:
    """One tensor of the graph: how often its largest value can double before it leaves FP16, as it is exported."""

    name: str
    bits: float


@dataclass(frozen=True, slots=True)
class HeadroomRecord:
    """headroom.json: `tensors` in the graph's order, without zeros and pixels; `fp32_layers`: layer -> why it stays."""

    images: int
    fp16_share: float
    fp32_layers: Mapping[str, str]
    tensors: tuple[TensorRoom, ...]


@dataclass(frozen=True, slots=True)
class BatchRate:
    """Pictures per second at one batch size, and the milliseconds of one batch."""

    batch: int
    images_per_s: float
    p50_ms: float


@dataclass(frozen=True, slots=True)
class EngineRates:
    """One engine's sweep over batch sizes."""

    name: str
    points: tuple[BatchRate, ...]


@dataclass(frozen=True, slots=True)
class Alternative:
    """How many times as fast as the base an engine is, within each round: median, 10th and 90th percentile."""

    name: str
    ours: bool
    times_base: float
    p10: float
    p90: float


@dataclass(frozen=True, slots=True)
class Against:
    """The bundle's engines beside the alternatives, at one batch size; `left_out`: engine -> why it was not timed."""

    batch: int
    base: str
    rows: tuple[Alternative, ...]
    left_out: Mapping[str, str]


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


def read_headroom(bundle: Bundle) -> HeadroomRecord | None:
    """The bundle's headroom.json; None if it has none.

    Raises:
        BundleError: it was changed or is damaged.
    """
    file = bundle.find("headroom")
    if file is None:
        return None
    bundle.read(file)  # checks its hash
    path = bundle.root / file.path
    with _reading(path, "`samdeploy export`"):
        values = read_json(path, "head-room")
        tensors = tuple(
            TensorRoom(_text(row["name"]), _number(row["bits"]) + _number(row["stored_as_times_two_to_minus"]))
            for row in values["tensors"]
            # Pixels are normalised in FP32 in every graph.
            if row["bits"] is not None and not _text(row["name"]).startswith("pixels")
        )
        layers = {_text(layer): _text(reason) for layer, reason in values["fp32_layers"].items()}
        return HeadroomRecord(
            int(_number(values["images"])), _number(values["fp16_share_of_multiply_adds"]), layers, tensors
        )


def read_bench(bundle: Bundle, name: str) -> BenchRecord | None:
    """`BENCH_FILE` or `AGAINST_FILE` in the bundle's folder; None if there is none.

    Raises:
        BundleError: it is damaged, or a link.
    """
    path = bundle.root / name
    if not path.exists():
        return None
    contained_file(bundle.root, name, "bench")
    with _reading(path, "`samdeploy bench --json`"):
        values = read_json(path, "bench")
        return BenchRecord(
            date=_text(values["date"]),
            machine=_text(values["machine"]),
            engines=tuple(_rates(row) for row in values["engines"] if row["batches"]),
            against=tuple(_against(row) for row in values["against"] if row["base"] is not None),
        )


def leaks_of(values: Mapping[str, Any]) -> tuple[LeakRecord, ...]:
    """The pairs of splits in a leak report's JSON: leaks.json, or "leaks" of `eval.json`."""
    return tuple(
        LeakRecord(
            _text(row["split"]),
            _text(row["other"]),
            int(_number(row["images"])),
            int(_number(row["exact"])),
            None if row["near"] is None else int(_number(row["near"])),
        )
        for row in values["overlaps"]
    )


def read_leaks(bundle: Bundle) -> tuple[LeakRecord, ...] | None:
    """What the leak guard found at training: leaks.json of the run that the bundle lies in; None if there is none.

    Raises:
        BundleError: it is damaged.
    """
    path = bundle.root.resolve().parent / LEAKS_FILE
    if not path.is_file():
        return None
    with _reading(path, "`samdeploy train`"):
        return leaks_of(read_json(path, "leak guard"))


@contextmanager
def _reading(path: Path, writer: str) -> Iterator[None]:
    """These files may be edited by anyone: whatever is wrong in them is said, and costs its section alone."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        kind = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise BundleError(f"{path} is not as {writer} writes it ({kind}); make it again") from None


def _rates(row: Mapping[str, Any]) -> EngineRates:
    device = _text(row["device"])
    name = f"{_text(row['backend'])} {_text(row['precision'])}" + (f" ({device})" if device != "cpu" else "")
    points = [
        BatchRate(int(_number(point["batch"])), _number(point["images_per_s"]), _number(point["p50_ms"]))
        for point in row["batches"]
    ]
    if any(point.batch < 1 or point.images_per_s < 0 for point in points):
        raise ValueError("batch sizes of at least 1 and rates of at least 0 expected")
    return EngineRates(name, tuple(sorted(points, key=lambda point: point.batch)))


def _against(values: Mapping[str, Any]) -> Against:
    timed = [row for row in values["rows"] if row["times_base"] is not None]
    rows = tuple(
        Alternative(
            _text(row["engine"]),
            bool(row["ours"]),
            _number(row["times_base"]),
            _number(row["times_base_p10"]),
            _number(row["times_base_p90"]),
        )
        for row in timed
    )
    left_out = {_text(row["engine"]): _text(row["reason"]) for row in values["rows"] if not row["ran"]}
    return Against(int(_number(values["batch"])), _text(values["base"]), rows, left_out)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.60} found, a number expected")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} found, a text expected")
    return value
