"""The verdict: engines against the trained network, on the test set.  Never imports torch by itself."""

from __future__ import annotations

from samdeploy.evaluate.eval_file import write_eval
from samdeploy.evaluate.evaluate import evaluate_bundle
from samdeploy.evaluate.options import ALL, EvalOptions
from samdeploy.evaluate.result import Report, Result

__all__ = [
    "ALL",
    "EvalOptions",
    "Report",
    "Result",
    "evaluate_bundle",
    "write_eval",
]
