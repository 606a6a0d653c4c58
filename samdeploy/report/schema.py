"""The shapes of eval.json and compare.json, for programs that read them."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any


def eval_schema() -> dict[str, Any]:
    """`eval.schema.json`: JSON Schema 2020-12 of `eval.json`, every key with its meaning."""
    return _schema("eval.schema.json")


def compare_schema() -> dict[str, Any]:
    """`compare.schema.json`: JSON Schema 2020-12 of `compare.json`, every key with its meaning."""
    return _schema("compare.schema.json")


def _schema(name: str) -> dict[str, Any]:
    text = (importlib.resources.files("samdeploy.report") / name).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
