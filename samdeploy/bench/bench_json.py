"""What was measured, as JSON.  docs/files.md documents it.  Times are milliseconds; what was not measured is null."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from samdeploy.bench.alternatives.comparison import Comparison, comparison_json
from samdeploy.bench.cold_start import ColdStart
from samdeploy.bench.figures import Figure
from samdeploy.bench.nvml import GpuState
from samdeploy.bench.throughput import BatchPoint, ThreadPoint


@dataclass(frozen=True, slots=True)
class EngineBench:
    """One engine.

    Attributes:
        backend, precision, device: which, and where it ran; device is "" if it did not.
        ran: whether it could be opened here.
        reason: why not, or at which measurements it failed; the others are there.
        figures: the three figures at batch 1.
        batches, threads: images per second.
        left_out: batch sizes that were asked for and that its profile does not take.
        cold_start: None if it failed.
        cuda_graphs: `CheckedSession.cuda_graph_state` after all runs; "" on the CPU.
        gpu: the GPU before and after; empty on the CPU, or where `gpu_note` says why it is not known.
    """

    backend: str
    precision: str
    device: str
    ran: bool
    reason: str
    figures: tuple[Figure, ...] = ()
    batches: tuple[BatchPoint, ...] = ()
    threads: tuple[ThreadPoint, ...] = ()
    left_out: tuple[int, ...] = ()
    cold_start: ColdStart | None = None
    cuda_graphs: str = ""
    gpu: tuple[GpuState, ...] = ()
    gpu_note: str = ""

    def to_json(self) -> dict[str, Any]:
        """The engine as documented in docs/files.md."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "device": self.device,
            "ran": self.ran,
            "reason": self.reason,
            "figures": [figure.to_json() for figure in self.figures],
            "batches": [dataclasses.asdict(point) for point in self.batches],
            "threads": [dataclasses.asdict(point) for point in self.threads],
            "batches_left_out": list(self.left_out),
            "cold_start": dataclasses.asdict(self.cold_start) if self.cold_start else None,
            "cuda_graphs": self.cuda_graphs,
            "gpu": [{**dataclasses.asdict(state), "throttled": list(state.throttled)} for state in self.gpu],
            "gpu_note": self.gpu_note,
        }


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All engines, or the comparisons with the alternatives.

    Attributes:
        bundle: its folder.
        date: when, in UTC, ISO 8601.
        machine, versions: where and with what.
        load_average: programs that ran or waited for a core before it began, over the last minute.
        cores: that this process may use.
        images: what the engines were fed, in words.
        engines: empty with `--against`.
        against: one for each batch size; empty without `--against`.
    """

    bundle: str
    date: str
    machine: str
    versions: dict[str, str]
    load_average: float | None
    cores: int
    images: str
    engines: tuple[EngineBench, ...] = ()
    against: tuple[Comparison, ...] = ()

    @property
    def busy(self) -> bool:
        """Whether other programs took at least half a core while this began."""
        return self.load_average is not None and self.load_average > 0.5

    @property
    def complete(self) -> bool:
        """Whether at least one engine of the bundle was measured, and none died on the way."""
        ran = [engine for engine in self.engines if engine.ran]
        rows = [row for each in self.against for row in each.rows if row.ours]
        died = any(engine.reason for engine in ran) or any(row.reason and row.p50_ms is not None for row in rows)
        return not died and (bool(ran) or any(row.ran for row in rows))

    def to_json(self) -> dict[str, Any]:
        """The whole report as documented in docs/files.md."""
        return {
            "bundle": self.bundle,
            "date": self.date,
            "machine": self.machine,
            "cores": self.cores,
            "load_average": self.load_average,
            "versions": self.versions,
            "images": self.images,
            "engines": [engine.to_json() for engine in self.engines],
            "against": [comparison_json(each) for each in self.against],
        }
