"""Figures as JSON, which has neither infinity nor NaN."""

from __future__ import annotations

import math
from typing import Any

from samdeploy.bundle.fields import to_json


def finite_json(value: Any) -> Any:
    """`to_json`, with null for each number that is not finite."""
    return _finite(to_json(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
