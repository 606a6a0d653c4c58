"""The bill of materials of a bundle: CycloneDX 1.6, JSON, with the standard's `modelCard`.

https://cyclonedx.org/docs/1.6/json/ names every field.  The same bundle gives the same bytes: there is no date.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import samdeploy
from samdeploy.bundle.names import set_name
from samdeploy.bundle.spec import ModelSpec
from samdeploy.report.card.facts import Evaluation, Facts
from samdeploy.report.card.markdown import UNKNOWN

Json = dict[str, Any]


def bill_of_materials(facts: Facts) -> Json:
    """The content of bom.cdx.json: the network as a component with its model card, its files, its data set."""
    spec, data = facts.bundle.spec, facts.bundle.data
    model: Json = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": facts.name,
        "description": f"{spec.arch}, {len(spec.classes)} classes; the hash is that of manifest.json, which holds "
        "those of all other files",
        "hashes": [_sha256(facts.manifest_sha256)],
        "modelCard": _model_card(facts),
        "properties": _properties(
            {
                "license of the weights": facts.license or UNKNOWN,
                "temperature of the probabilities": f"{facts.bundle.temperature:g}",
                **{f"provenance:{key}": value for key, value in facts.bundle.provenance.items()},
            }
        ),
    }
    if facts.license is not None:
        model["licenses"] = [{"license": {"name": facts.license}}]
    splits = [
        {
            "type": "dataset",
            "bom-ref": f"data:{split}",
            "name": f"{set_name(data.name)}, {facts.split_name(split)}",
            "contents": {
                "properties": _properties(
                    {
                        "images": str(images),
                        "sha256 of prepared images and labels": data.fingerprints.get(split, UNKNOWN),
                    }
                )
            },
        }
        for split, images in data.counts.items()
    ]
    files = [
        {
            "type": "file",
            "bom-ref": f"file:{file.path}",
            "name": file.path,
            "hashes": [_sha256(file.sha256)],
            "properties": _properties({"role": file.role, "bytes": str(file.bytes), "precision": file.precision}),
        }
        for file in facts.bundle.files
    ]
    data_set: Json = {"type": "data", "bom-ref": "data", "name": set_name(data.name)}
    if splits:
        data_set["data"] = splits
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"samdeploy:{facts.manifest_sha256}").urn,
        "version": 1,
        "metadata": {
            "tools": {
                "components": [{"type": "application", "name": "samdeploy", "version": samdeploy.__version__}],
            },
            "component": model,
        },
        "components": [data_set, *files],
        "dependencies": [
            {"ref": "model", "dependsOn": ["data", *(f"file:{file.path}" for file in facts.bundle.files)]}
        ],
    }


def _model_card(facts: Facts) -> Json:
    spec = facts.bundle.spec
    card: Json = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "image-classification",
            "modelArchitecture": spec.arch,
            "datasets": [{"ref": f"data:{split}"} for split in facts.bundle.data.counts],
            "inputs": [{"format": _tensor(spec, "input")}],
            "outputs": [{"format": _tensor(spec, "output")}],
        },
        "considerations": {
            "useCases": [f"Naming which of {len(spec.classes)} classes an image shows; intended uses: {UNKNOWN}"],
            "technicalLimitations": list(facts.limits()),
        },
        "properties": _properties({f"class {index}": name for index, name in enumerate(spec.classes)}),
    }
    if facts.evaluation is not None:
        card["quantitativeAnalysis"] = {"performanceMetrics": list(_metrics(facts.evaluation))}
    return card


def _tensor(spec: ModelSpec, name: str) -> str:
    tensor = spec.input if name == "input" else spec.output
    return f"{tensor.name}: {tensor.dtype} [{', '.join(map(str, tensor.shape))}]"


def _metrics(found: Evaluation) -> Iterator[Json]:
    """What eval.json says of each engine that answered every test image, and of the network as trained."""
    trained = found.answered[:1]
    tops = [(found.reference, row.reference_top1) for row in trained] + [(row.name, row.top1) for row in found.answered]
    for name, top1 in tops:
        if top1 is not None:
            low, high = found.interval(top1)
            yield {
                "type": "top-1 accuracy, percent",
                "value": str(top1),
                "slice": f"test, {name}",
                "confidenceInterval": {"lowerBound": str(low), "upperBound": str(high)},
            }
    for row in found.answered:
        figures = {
            "balanced accuracy, percent": row.balanced_accuracy,
            "macro F1": row.macro_f1,
            "expected calibration error, points": row.ece,
            "latency of one image, p50, ms": row.latency.p50_ms if row.latency is not None else None,
        }
        yield from (_metric(kind, value, f"test, {row.name}") for kind, value in figures.items() if value is not None)
        for each in row.classes or ():
            if each.top1 is not None:
                yield _metric("recall, percent", each.top1, f"test, {row.name}, class {each.label}")


def _metric(kind: str, value: float, where: str) -> Json:
    return {"type": kind, "value": str(value), "slice": where}


def _sha256(digest: str) -> Json:
    return {"alg": "SHA-256", "content": digest}


def _properties(values: Mapping[str, str | None]) -> list[Json]:
    """Names and values; those of no value are left out."""
    return [{"name": f"samdeploy:{name}", "value": value} for name, value in values.items() if value is not None]
