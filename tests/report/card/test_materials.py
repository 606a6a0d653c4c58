"""The bill of materials is CycloneDX 1.6 by the standard's own schema, and its figures are the bundle's."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from samdeploy.bundle import open_bundle
from samdeploy.bundle.names import MANIFEST
from samdeploy.report.card.facts import gather_facts
from samdeploy.report.card.materials import bill_of_materials
from tests.bundle.written import CONTENTS, write_bundle


def materials(root: Path) -> Any:
    return json.loads(json.dumps(bill_of_materials(gather_facts(open_bundle(root)))))


def problem(found: Any) -> str | None:
    """What the schema of the standard finds wrong first."""
    validation = pytest.importorskip("cyclonedx.validation.json", reason="pip install 'samdeploy[dev]'")
    from cyclonedx.schema import SchemaVersion

    error = validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(found))
    return None if error is None else str(error)


def test_it_is_as_the_schema_says(judged: Path, tmp_path: Path) -> None:
    assert problem(materials(judged)) is None
    assert problem(materials(write_bundle(tmp_path / "never evaluated"))) is None


def test_the_schema_can_refuse(judged: Path) -> None:
    found = materials(judged)
    for change in (
        lambda bom: bom["metadata"]["component"]["modelCard"].update(surprise=1),
        lambda bom: bom["metadata"]["component"].update(type="network"),
        lambda bom: bom["components"][1]["hashes"][0].update(content="no hash"),
        lambda bom: bom.update(serialNumber="7"),
    ):
        wrong = copy.deepcopy(found)
        change(wrong)
        assert problem(wrong) is not None


def test_every_file_has_its_hash(judged: Path) -> None:
    found = materials(judged)
    hashes = {part["name"]: part["hashes"][0]["content"] for part in found["components"] if part["type"] == "file"}
    assert hashes == {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    model = found["metadata"]["component"]
    assert model["hashes"][0]["content"] == hashlib.sha256((judged / MANIFEST).read_bytes()).hexdigest()


def test_metrics_carry_their_intervals(judged: Path) -> None:
    card = materials(judged)["metadata"]["component"]["modelCard"]
    top1 = [metric for metric in card["quantitativeAnalysis"]["performanceMetrics"] if "confidenceInterval" in metric]
    assert [(metric["slice"], float(metric["value"])) for metric in top1] == [
        ("test, PyTorch", 95.0), ("test, onnxruntime fp32", 95.0), ("test, onnxruntime int8", 87.5)
    ]  # fmt: skip
    bounds = top1[2]["confidenceInterval"]
    exact = binomtest(175, 200).proportion_ci(0.95, method="exact")
    assert [float(bounds[end]) for end in ("lowerBound", "upperBound")] == pytest.approx([100 * end for end in exact])
    assert any("7.50 points lower" in text for text in card["considerations"]["technicalLimitations"])


def test_splits_have_counts_and_hashes(judged: Path) -> None:
    found = materials(judged)
    (data,) = [part for part in found["components"] if part["type"] == "data"]
    values = {entry["name"]: entry["value"] for entry in data["data"][0]["contents"]["properties"]}
    assert list(values.values()) == ["3", "ab" * 32]
    datasets = found["metadata"]["component"]["modelCard"]["modelParameters"]["datasets"]
    assert datasets == [{"ref": data["data"][0]["bom-ref"]}]
