"""Made-up evaluations, as the tests of evaluate use them."""

from tests.evaluate.conftest import comparison, not_run, report, result

__all__ = ["comparison", "not_run", "report", "result"]
