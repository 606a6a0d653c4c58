"""Honest engines under the probe images of `eval`: how close they come to the limits, and whether one is accused.

    nice -n 5 .venv/bin/python benchmarks/evaluate/probe_limits.py [--cifar FOLDER] [--out FILE.json] [--jobs 1]

Makes small networks (see probe_networks.py), exports each, and asks every engine that runs here the golden images,
the probe images and the consistency checks.  INT8 graphs quantise every layer, whatever that costs in accuracy.
FOLDER holds the images of CIFAR-10 as train/<class>/ and test/<class>/; without it the networks on CIFAR are left out.

As a control, faults are planted in the engines of the networks of 32x32 pixels.  The probe images alone must catch
each, unless the probe that would show it is left out for this engine, or the network hardly looks at colour: both are
counted.  Exits with 1 where an honest engine is accused or a fault is missed.  The limits in
`samdeploy.evaluate.consistency.probes` are chosen from the largest differences, printed at the end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any

# Before torch is imported: threads that spin slow each other down tenfold where other programs run.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from honest_exports import ENGINES, examine  # the script beside this one
from probe_networks import NETWORKS, Network, make_run  # likewise

from samdeploy.arrays import Float32Array, UInt8Array
from samdeploy.backends import open_session
from samdeploy.backends.session import Session
from samdeploy.bundle import Bundle, open_bundle
from samdeploy.data import load_images, open_dataset
from samdeploy.errors import BackendUnavailable, ExportError, InputError
from samdeploy.evaluate.consistency.probes import (
    EXPLODES,
    EXPLODING_LIMITS,
    LIMITS,
    ProbeAnswers,
    ProbeReference,
    compare_probes,
    probe_reference,
)
from samdeploy.evaluate.machine import machine, versions
from samdeploy.export import ExportOptions, export_run
from samdeploy.runs.record import open_run

# Most seconds for the consistency checks of one engine; `eval` allows 60.
CONSISTENCY_S = 4.0
REPEATS = 40
WHITE, COLOUR = (255, 255, 255), (128, 0, 255)


class Planted:
    """An engine with a fault."""

    def __init__(self, session: Session, fault: Callable[[Session, UInt8Array], Float32Array]) -> None:
        self.backend, self.precision, self.device = session.backend, session.precision, session.device
        self._session, self._fault = session, fault

    def run(self, batch: UInt8Array) -> Float32Array:
        """uint8 [N, H, W, 3] -> float32 [N, K], wrong."""
        return self._fault(self._session, batch)

    def close(self) -> None:
        """The honest session stays open."""


def _swapped(session: Session, batch: UInt8Array) -> Float32Array:
    return session.run(np.ascontiguousarray(batch[..., ::-1]))


def _nan_on_white(session: Session, batch: UInt8Array) -> Float32Array:
    logits = session.run(batch)
    logits[(batch == WHITE).all(axis=(1, 2, 3))] = np.nan
    return logits


def _one_colour(session: Session, batch: UInt8Array) -> Float32Array:
    """The first logit of one colour is off by the range of the answer."""
    logits = session.run(batch)
    rows = (batch == COLOUR).all(axis=(1, 2, 3))
    logits[rows, 0] += np.ptp(logits[rows], axis=1)
    return logits


# With the name of the probe that shows it; "" for all with colour.
FAULTS: dict[str, tuple[Callable[[Session, UInt8Array], Float32Array], str]] = {
    "channels swapped": (_swapped, ""),
    "NaN on white": (_nan_on_white, "white"),
    "one colour wrong by its range": (_one_colour, "colour 128, 0, 255"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One engine.

    Attributes:
        probes: `ProbeAnswers.to_json` without the names of what was left out; None where the engine does not run.
        left_out: how many probes were.
        golden: largest difference, as a share of its image's range; None where the golden images accuse it.
        consistency: how many checks passed, failed, or were not finished in `CONSISTENCY_S`.
        faults: for each of `FAULTS` "caught", "missed", or why it cannot be seen; empty where none was planted.
        accused: of what, by any of the three.
        not_run: why it does not run here.
    """

    network: str
    backend: str
    precision: str
    device: str
    probes: dict[str, Any] | None
    left_out: int
    golden: float | None
    consistency: dict[str, int]
    faults: dict[str, str]
    accused: str
    not_run: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10 images")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time")
    options = parser.parse_args()
    start = time.monotonic()
    chosen = [network for network in NETWORKS if options.cifar or network.data != "cifar"]
    rows: list[Row] = []
    with ProcessPoolExecutor(options.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for found in pool.map(network_rows, chosen, repeat(options.cifar)):
            rows += found
    ran = [row for row in rows if row.probes is not None and row.golden is not None]
    # Opening refuses these, with or without probes: this precision cannot carry the network.
    refused = [f"{row.network}, {row.backend} {row.precision}" for row in rows if row.probes and row.golden is None]
    accused = [row for row in ran if row.accused]
    faults = {name: dict(Counter(row.faults[name] for row in ran if row.faults)) for name in FAULTS}
    missed = sum(count.get("missed", 0) for count in faults.values())
    seconds = round(time.monotonic() - start)
    print(f"\n{len(chosen)} networks, {len(ran)} engines, {len(accused)} accused, {missed} faults missed, {seconds} s")
    print(f"  refused at opening by their golden images: {'; '.join(refused) or 'none'}")
    for name, count in faults.items():
        print(f"  {name}: {', '.join(f'{many} {outcome}' for outcome, many in count.items())}")
    for limit, worst in _largest(ran).items():
        print(f"  {limit}: worst {worst['worst']:.1e} ({worst['network']}, {worst['image']})")
    report = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "versions": versions(),
        "command": "benchmarks/evaluate/probe_limits.py" + (" --cifar FOLDER" if options.cifar else ""),
        "seconds": seconds,
        "consistency_s": CONSISTENCY_S,
        "limits": LIMITS,
        "exploding_limits": EXPLODING_LIMITS,
        "explodes": EXPLODES,
        "networks": [network.name for network in chosen],
        "engines": len(ran),
        "refused_at_opening": refused,
        "accused": len(accused),
        "faults": faults,
        "largest": _largest(ran),
        "rows": [asdict(row) for row in rows],
    }
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if accused or missed or not ran else 0


def network_rows(network: Network, cifar: Path | None) -> list[Row]:
    """Make and export one network, and examine all its engines."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        run = make_run(network, Path(folder), cifar)
        made = time.monotonic()
        bundle, no_int8 = _export(run)
        exported = time.monotonic()
        record = open_run(run)
        dataset = open_dataset(
            "folder", Path(record.data_root), val_fraction=record.val_fraction, seed=record.split_seed
        )
        images, _ = load_images(dataset.test, record.preprocessing, description="test images")
        with open_session(bundle, "pytorch", device="cpu") as session:
            reference = probe_reference(session, bundle.golden()[0], session.run(images))
        rows = []
        for backend, precision in ENGINES:
            if precision == "int8" and no_int8:
                rows.append(_not_run(network, backend, precision, no_int8))
            elif backend != "pytorch":  # that is the reference
                rows.append(engine_row(bundle, network, backend, precision, images, reference))
    lines = [f"\n{network.name}: made in {made - start:.0f} s, exported in {exported - made:.0f} s", *map(_line, rows)]
    print("\n".join(lines), flush=True)  # at once, for other networks print too
    return rows


def _export(run: Path) -> tuple[Bundle, str]:
    """With an INT8 graph, or why the export refuses it."""
    try:
        # Any drop: the limits must hold for whatever a user allows.
        options = ExportOptions(engine="onnxruntime", precision="int8", max_drop=100.0, cam=False)
        return open_bundle(export_run(run, options).bundle), ""
    except ExportError as error:
        return open_bundle(export_run(run, ExportOptions(engine="onnxruntime", cam=False)).bundle), str(error)


def _not_run(network: Network, backend: str, precision: str, reason: str) -> Row:
    return Row(network.name, backend, precision, "", None, 0, None, {}, {}, "", reason, 0.0)


def engine_row(
    bundle: Bundle, network: Network, backend: str, precision: str, images: UInt8Array, reference: ProbeReference
) -> Row:
    """Probes, golden images, consistency and planted faults of one engine."""
    start = time.monotonic()
    try:
        session = open_session(bundle, backend, precision=precision, check=False)
    except (BackendUnavailable, InputError) as error:
        return _not_run(network, backend, precision, str(error))
    with session:
        answers = compare_probes(session, bundle, reference)
        control = FAULTS if network.size == (32, 32) else ()
        faults = {name: _planted(session, bundle, reference, answers, name) for name in control}
        device = session.device
    found = examine(bundle, network.name, backend, precision, images, REPEATS, limit_s=CONSISTENCY_S)
    assert found.consistency is not None  # it was opened just now
    probes = {key: value for key, value in answers.to_json().items() if key != "left_out"}
    outcomes = [check["outcome"] for check in found.consistency["checks"]]
    broken = found.said if "failed" in outcomes else ""
    return Row(
        network=network.name, backend=backend, precision=precision, device=device, probes=probes,
        left_out=len(answers.left_out), golden=found.golden, consistency=dict(Counter(outcomes)),
        faults=faults, accused="; ".join(filter(None, (answers.fault, broken))), not_run="",
        seconds=round(time.monotonic() - start, 1),
    )  # fmt: skip


def _planted(session: Session, bundle: Bundle, reference: ProbeReference, honest: ProbeAnswers, name: str) -> str:
    """What the probes say of a planted fault."""
    fault, probe = FAULTS[name]
    if compare_probes(Planted(session, fault), bundle, reference).fault:
        return "caught"
    if probe in honest.left_out:
        return "probe left out"
    return "network blind to colour" if not probe and "BGR" in honest.blind else "missed"


def _largest(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """For each precision and limit, the honest difference that is closest to it; a missing answer counts as 1."""
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        assert row.probes is not None
        worst = 1.0 if row.probes["worst"] is None else row.probes["worst"]
        key = f"{row.precision}, limit {row.probes['allowed']:g}"
        if worst >= found.get(key, {"worst": 0.0})["worst"]:
            found[key] = {
                **{"worst": worst, "of_limit": worst / row.probes["allowed"]},
                **{"network": row.network, "backend": row.backend, "image": row.probes["worst_image"]},
            }
    return found


def _line(row: Row) -> str:
    start = f"  {row.backend:<11} {row.precision:<4}"
    if row.probes is None:
        return f"{start} not run: {row.not_run[:80]}"
    worst = 1.0 if row.probes["worst"] is None else row.probes["worst"]
    golden = "failed" if row.golden is None else f"{row.golden:.1e}"
    return (
        f"{start} probes {worst:.1e}/{row.probes['allowed']:g} ({row.left_out} left out) golden {golden} "
        f"consistency {row.consistency} faults {', '.join(row.faults.values()) or 'not planted'} "
        f"{row.seconds:.0f} s {'ACCUSED ' + row.accused if row.accused else 'ok'}"
    )


if __name__ == "__main__":
    sys.exit(main())
