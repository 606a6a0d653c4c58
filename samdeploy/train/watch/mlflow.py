"""The history in MLflow: an experiment for each recipe, a run for each training, called after its folder.

The extra `mlflow`.  Where it goes says MLflow's own variable MLFLOW_TRACKING_URI.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samdeploy.bundle.names import RECIPE_FILE
from samdeploy.errors import BackendUnavailable, first_line
from samdeploy.train.watch.history import EpochRow, GateRow
from samdeploy.train.watch.loggers import figures_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A training that goes on finds its run by this tag.
_TAG = "samdeploy.run"
# What the server takes in one call.
_METRICS, _PARAMETERS = 1000, 100


def require() -> None:
    """See `samdeploy.train.watch.loggers.Logger`."""
    problem = "training.mlflow = true, but"
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise BackendUnavailable(
            f"{problem} the package mlflow is not installed: pip install 'samdeploy[mlflow]', or --set "
            "training.mlflow=false"
        ) from None
    try:
        MlflowClient().search_experiments(max_results=1)
    except Exception as error:  # of any store or transport
        raise BackendUnavailable(
            f"{problem} MLflow cannot be reached: {first_line(error)}; name its server: "
            "MLFLOW_TRACKING_URI=http://HOST:5000"
        ) from None


def write(
    run: Path, rows: Sequence[EpochRow], gate_rows: Sequence[GateRow], final: Mapping[str, float] | None = None
) -> None:
    """See `samdeploy.train.watch.loggers.Logger`."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient()
    run_id = _run_id(client, run)
    logged = {metric.step for metric in client.get_metric_history(run_id, "train_loss")}
    now = int(1000 * time.time())
    figures = [
        Metric(name, float(value), now, row.epoch)
        for row in rows
        if row.epoch not in logged
        for name, value in figures_of(row, gate_rows).items()
    ]
    figures += [Metric(name, float(value), now, rows[-1].epoch) for name, value in (final or {}).items()]
    for start in range(0, len(figures), _METRICS):
        client.log_batch(run_id, metrics=figures[start : start + _METRICS])
    if final is not None:
        client.set_terminated(run_id)


def _run_id(client: MlflowClient, run: Path) -> str:
    """The MLflow run of this folder's training; creates it if missing."""
    from mlflow.entities import Param

    recipe = tomllib.loads((run / RECIPE_FILE).read_text())
    experiment = client.get_experiment_by_name(recipe["name"])
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(recipe["name"])
    found = client.search_runs([experiment_id], f"tags.`{_TAG}` = '{run.name}'", max_results=1)
    if found:
        return str(found[0].info.run_id)
    made = client.create_run(experiment_id, run_name=run.name, tags={_TAG: run.name})
    values = [Param(name, str(value)) for name, value in _flat(recipe).items()]
    for start in range(0, len(values), _PARAMETERS):
        client.log_batch(made.info.run_id, params=values[start : start + _PARAMETERS])
    return str(made.info.run_id)


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The recipe's keys with their sections: "training.epochs"."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
