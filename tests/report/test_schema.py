"""eval.json is as its schema says, and the schema is strict enough to say anything."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from samdeploy.bundle import Bundle
from samdeploy.evaluate import EvalOptions, evaluate_bundle, write_eval
from samdeploy.evaluate.map_agreement import CamAgreement
from samdeploy.evaluate.result import NotMeasured, Report
from samdeploy.report.schema import eval_schema

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def errors() -> Callable[[Any], list[str]]:
    """`errors(evaluation)`: where it is not as the schema says."""
    schema = eval_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    return lambda found: [error.json_path for error in validator.iter_errors(found)]


def test_every_key_has_a_meaning() -> None:
    def properties(part: Any) -> list[dict[str, Any]]:
        if isinstance(part, dict):
            inner = [found for value in part.values() for found in properties(value)]
            return [*part.get("properties", {}).values(), *inner]
        return [found for value in part for found in properties(value)] if isinstance(part, list) else []

    found = properties(eval_schema())
    assert len(found) > 100
    assert all(entry.get("description") for entry in found)


def test_a_real_evaluation(
    digits_bundle: Bundle, errors: Callable[[Any], list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("samdeploy.evaluate.latency.measure.RUNS", 30)
    monkeypatch.setattr("samdeploy.evaluate.latency.measure.LEAST_S", 0.0)
    monkeypatch.setattr("samdeploy.evaluate.latency.measure.WARM_UP_LIMIT_S", 0.0)
    write_eval(
        tmp_path, evaluate_bundle(digits_bundle, EvalOptions(backend="onnxruntime", device="cpu", consistency_s=1.0))
    )
    content = json.loads((tmp_path / "eval.json").read_text())
    assert content["results"][0]["ran"] and content["results"][0]["latency"]["runs"] == 30
    assert errors(content) == []


def test_every_fate_of_an_engine(everything: Report, written: Path, errors: Callable[[Any], list[str]]) -> None:
    content = json.loads((written / "report.json").read_text())
    shown = content.pop("report")
    assert {row["verdict"] for row in content["results"]} == {"holds", "fails", "cannot tell", None}
    assert errors(content) == []
    assert content == json.loads(json.dumps(everything.to_json()))
    assert shown["command"] == "samdeploy eval --report out"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda found: found.pop("margin"), "$"),
        (lambda found: found.update(extra=1), "$"),
        (lambda found: found.update(confidence=95), "$.confidence"),
        (lambda found: found.update(manifest_sha256="x"), "$.manifest_sha256"),
        (lambda found: found["results"][0].pop("ece"), "$.results[0]"),
        (lambda found: found["results"][0].update(top1=101), "$.results[0].top1"),
        (lambda found: found["results"][0].update(verdict="maybe"), "$.results[0].verdict"),
        (lambda found: found["results"][0].update(surprise={}), "$.results[0]"),
        (lambda found: found["results"][0]["latency"].update(p50_ms=None), "$.results[0].latency"),
        (lambda found: found["results"][0]["consistency"]["checks"][0].pop("worst"), "$.results[0].consistency.checks"),
        (lambda found: found["leaks"]["overlaps"][0].update(exact=-1), "$.leaks"),
    ],
)
def test_the_schema_can_refuse(
    everything: Report, errors: Callable[[Any], list[str]], change: Callable[[Any], Any], where: str
) -> None:
    content = copy.deepcopy(json.loads(json.dumps(everything.to_json())))
    assert errors(content) == []
    change(content)
    found = errors(content)
    assert found and all(path.startswith(where) for path in found)


def test_parts_that_only_some_engines_have(everything: Report, errors: Callable[[Any], list[str]]) -> None:
    for maps in (CamAgreement(64, 0, (1, 1), None, None), NotMeasured("too old")):
        row = replace(everything.results[0], parts={"cam": maps})
        assert errors(json.loads(json.dumps(replace(everything, results=(row,)).to_json()))) == []
