"""What the tests of planted faults share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from samdeploy.backends import open_session
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle import Bundle
from samdeploy.evaluate.consistency.run import Consistency, check_consistency

Seal = Callable[[Path], Bundle]


def failed(found: Consistency) -> set[str]:
    return {check.name for check in found.failures}


def detail(found: Consistency, name: str) -> str:
    return next(check.detail for check in found.checks if check.name == name)


def consistency_of(session: CheckedSession, bundle: Bundle) -> Consistency:
    """A short form, on the golden images."""
    open_again = partial(open_session, bundle, session.backend, device="cpu", precision=session.precision)
    return check_consistency(open_again, session, bundle.golden()[0], max_batch=3, repeats_wanted=5)
