"""The shape of eval.json, for programs that read it."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any


def eval_schema() -> dict[str, Any]:
    """`eval.schema.json`: JSON Schema 2020-12 of `eval.json`, every key with its meaning."""
    text = (importlib.resources.files("samdeploy.report") / "eval.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
