"""The verdict: engines against the trained network, on the test set.  Never imports torch by itself."""

from __future__ import annotations

from samdeploy.evaluate.pipeline import ALL, EvalOptions, evaluate_bundle
from samdeploy.evaluate.report import Report, Result, table, verdict

__all__ = ["ALL", "EvalOptions", "Report", "Result", "evaluate_bundle", "table", "verdict"]
