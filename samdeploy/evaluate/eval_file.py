"""`eval.json` in the bundle: the newest row of every engine, also where each was evaluated by itself.

An earlier row stays if it is about the very same thing: bundle, test images, margin, confidence and minimums.  A row
measured anew takes the place of the same engine's on the same device.  A row that says "could not run here" takes no
place of one that ran, on this machine or another: each says where and when it was measured.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samdeploy.bundle.fields import read
from samdeploy.bundle.signature import SIGNATURE_FILE, sign_again
from samdeploy.errors import BundleError
from samdeploy.evaluate.accuracy.gate import Verdict
from samdeploy.evaluate.result import Report, overall_verdict
from samdeploy.files import json_bytes, read_json, write_atomic

# Beside the manifest, which does not list it: no runtime reads it.
EVAL_FILE = "eval.json"
_SAME = ("manifest_sha256", "test_fingerprint", "margin", "confidence", "min_top1", "min_class_recall")


@dataclass(frozen=True, slots=True)
class EvalRow:
    """What other commands want to know of an engine's row; see `samdeploy.evaluate.result.Result`."""

    backend: str
    precision: str
    device: str
    ran: bool
    passed: bool
    verdict: Verdict | None
    reason: str
    below_minimum: str

    @property
    def engine(self) -> str:
        """What to call it: "openvino int8"."""
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True, slots=True)
class EvalFile:
    """What other commands want to know of eval.json; see `samdeploy.evaluate.result.Report`."""

    verdict: Verdict
    n_images: int
    manifest_sha256: str
    data_root: str | None
    faults: tuple[str, ...]
    test_set_faults: tuple[str, ...]
    results: tuple[EvalRow, ...]


def read_eval(folder: Path) -> EvalFile:
    """The bundle's eval.json.

    Raises:
        BundleError: there is none, or it is damaged or of another version.
    """
    path = folder / EVAL_FILE
    return read(EvalFile, read_json(path, "evaluation"), str(path), BundleError, ignore_other_keys=True)


def write_eval(folder: Path, report: Report) -> None:
    """Put the report into `folder`, together with the earlier rows that stay.

    A report that says nothing of the bundle, because no engine ran or for the test set's faults, replaces none.

    Raises:
        OSError: the folder cannot be written to.
    """
    try:
        earlier = read_json(folder / EVAL_FILE, "earlier evaluation")
    except BundleError:  # none, or not ours: nothing to keep
        earlier = {}
    says_nothing = bool(report.test_set_faults) or not any(result.ran for result in report.results)
    if says_nothing and any(row["ran"] for row in _rows(earlier)):
        print(f"{folder / EVAL_FILE} is unchanged: it keeps the evaluation before this one", file=sys.stderr)
        return
    write_atomic(folder / EVAL_FILE, json_bytes(merged(report, earlier)))
    if (folder / SIGNATURE_FILE).is_file():
        print(f"{EVAL_FILE} is new; {sign_again(folder)}", file=sys.stderr)


def merged(report: Report, earlier: dict[str, Any]) -> dict[str, Any]:
    """A report's JSON with the rows of an earlier one that stay; `passed` and `verdict` speak of all rows together.

    Args:
        report: the new one.
        earlier: the content of an earlier file, whatever it is.
    """
    new = report.to_json()
    measured = {_engine(row) for row in new["results"]}
    is_same = all(new[key] == earlier.get(key) for key in _SAME)
    # A row of another version of samdeploy may lack what readers count on.
    keys = {
        key for row, result in zip(new["results"], report.results, strict=True) for key in row.keys() - result.parts
    }
    kept = [
        row for row in _rows(earlier) if is_same and row["ran"] and _engine(row) not in measured and keys <= row.keys()
    ]
    known = {_engine(row)[:2] for row in kept}
    rows = [*kept, *(row for row in new["results"] if row["ran"] or _engine(row)[:2] not in known)]
    verdict = overall_verdict(
        [(row["ran"], row["passed"], row.get("verdict")) for row in rows], named=report.named, faults=report.faults
    )
    return {**new, "passed": verdict == "holds", "verdict": verdict, "results": rows}


def _engine(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["backend"], row["precision"], row["device"]


def _rows(earlier: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of an earlier file; none if it is damaged."""
    try:
        read(EvalFile, earlier, EVAL_FILE, BundleError, ignore_other_keys=True)
    except BundleError:
        return []
    return list(earlier["results"])
