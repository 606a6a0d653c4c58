"""The verdict: engines against the trained network, on the test set.  Never imports torch by itself."""

from __future__ import annotations

from samdeploy.evaluate.eval_file import write_eval
from samdeploy.evaluate.options import ALL, EvalOptions
from samdeploy.evaluate.pipeline import evaluate_bundle
from samdeploy.evaluate.report import Report, Result
from samdeploy.evaluate.table import table, verdict

__all__ = [
    "ALL",
    "EvalOptions",
    "Report",
    "Result",
    "evaluate_bundle",
    "table",
    "verdict",
    "write_eval",
]
