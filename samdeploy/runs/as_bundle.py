"""A run that was never exported, as the bundle of its weights alone: the backend pytorch runs on nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

from samdeploy.bundle import Bundle
from samdeploy.bundle.manifest import BundleFile, DataRecord
from samdeploy.bundle.names import WEIGHTS_FILE
from samdeploy.bundle.spec import model_spec
from samdeploy.errors import BundleError
from samdeploy.runs.record import RunRecord, open_run


def bundle_of_weights(run_dir: Path) -> Bundle:
    """The weights of a run as a bundle that lies nowhere: without graphs, engines or golden images.

    Raises:
        BundleError: no run, a damaged one, or one without weights.
    """
    record, path = open_run(run_dir), run_dir / WEIGHTS_FILE
    if not path.is_file():
        raise BundleError(f"run {run_dir}: it has no {WEIGHTS_FILE}; train it: samdeploy train --resume {run_dir}")
    with path.open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if record.weights_sha256 not in ("", digest):
        raise BundleError(
            f"run {run_dir}: {WEIGHTS_FILE} is not the file that its run.json names; put it back, or go on with: "
            f"samdeploy train --resume {run_dir}"
        )
    spec = model_spec(record.arch, record.options, record.classes, record.preprocessing, record.license)
    file = BundleFile("weights", WEIGHTS_FILE, digest, path.stat().st_size)
    provenance = {"run": run_dir.resolve().name, "run_status": record.status}
    return Bundle(run_dir, spec, (file,), data_record(record), provenance)


def data_record(record: RunRecord) -> DataRecord:
    """What a bundle says of the images that its run used."""
    return DataRecord(
        name=record.dataset,
        options=record.data_options,
        val_fraction=record.val_fraction,
        split_seed=record.split_seed,
        counts=record.counts,
        fingerprints=record.fingerprints,
    )
