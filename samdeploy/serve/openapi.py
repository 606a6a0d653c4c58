"""The server's addresses as an OpenAPI 3.1 document, for clients that are generated from it and for tests."""

from __future__ import annotations

from typing import Any

import samdeploy
from samdeploy.serve.infer_request import CLASSES
from samdeploy.serve.models import Models
from samdeploy.serve.protocol import HEADER_LENGTH
from samdeploy.serve.served import ServedModel

_JSON = "application/json"
_ERROR = {"$ref": "#/components/schemas/error"}
_TEXTS = {
    400: "the request is wrong", 401: "the key is missing or wrong", 404: "no such model or version",
    408: "the body was not there in time", 413: "too long", 415: "compressed", 422: "the answer is not finite",
    500: "the engine failed", 501: "the bundle has no maps", 503: "not ready, or the queue is full", 504: "too late",
}  # fmt: skip


def openapi(models: Models) -> dict[str, Any]:
    """The document, with the tensors and classes of these models."""
    paths: dict[str, Any] = {
        "/v2": {"get": _operation("name, version and extensions", {"type": "object"}, 401)},
        "/v2/models": {"get": _operation("the models", {"type": "object"}, 401)},
        "/v2/health/live": {"get": _operation("whether the server runs", _flag("live"))},
        "/v2/health/ready": {"get": _operation("whether all models are ready", _flag("ready"), 503)},
        "/metrics": {"get": _operation("for Prometheus", {"type": "string"}, 401, kind="text/plain")},
    }
    for model in models.all:
        paths |= _of_model(f"/v2/models/{model.name}/versions/{model.version}", model)
    for name in models.names:
        paths |= _of_model(f"/v2/models/{name}", models.find(name))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "samdeploy",
            "version": samdeploy.__version__,
            "description": "Image classifiers by the Open Inference Protocol (KServe v2); docs/serving.md says more.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                "error": {
                    "type": "object", "required": ["error"], "properties": {"error": {"type": "string"}},
                },
                "prediction": _prediction(),
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }  # fmt: skip


def _of_model(root: str, model: ServedModel) -> dict[str, Any]:
    top = _parameter("top", {"type": "integer", "minimum": 1}, "how many classes are answered, at most all")
    timeout = _parameter("timeout", {"type": "integer", "minimum": 1}, "microseconds that the request may wait")
    shown = _parameter("class", {"enum": list(model.spec.classes)}, "whose map; the likeliest one's if left out")
    layer = _parameter("layer", {"enum": ["map", "image"]}, "the map alone, or the decoded image")
    image = {"content": {"application/octet-stream": {}, "image/jpeg": {}, "image/png": {}}, "required": True}
    form = {"multipart/form-data": {"schema": {"type": "object", "additionalProperties": {"type": "string"}}}}
    images = {"content": {**image["content"], **form}, "required": True}  # type: ignore[dict-item]
    prediction = {"$ref": "#/components/schemas/prediction"}
    many = {"type": "object", "properties": {"predictions": {"type": "array", "items": prediction}}}
    failures = 400, 401, 404, 408, 413, 415, 422, 500, 503, 504
    return {
        root: {"get": _operation("its tensors", {"type": "object"}, 401, 404)},
        root + "/config": {"get": _operation("its tensors, as Triton says it", {"type": "object"}, 401, 404)},
        root + "/ready": {"get": _operation("whether its golden images passed", _flag("ready"), 401, 404, 503)},
        root + "/infer": {
            "post": _operation("tensors in and out", _inferred(), *failures)
            | {
                "requestBody": {
                    "content": {_JSON: {"schema": _infer(model)}, "application/octet-stream": {}},
                    "required": True,
                }
            }
            | {"parameters": [_parameter(HEADER_LENGTH, {"type": "integer"}, "of the JSON before tensors", "header")]}
        },
        root + "/predict": {
            "post": _operation("images in, classes out", {"anyOf": [prediction, many]}, *failures)
            | {"requestBody": images, "parameters": [top, timeout]}
        },
        root + "/explain": {
            "post": _operation("a map over the image", {"type": "string"}, *failures, 501, kind="image/png")
            | {"requestBody": image, "parameters": [shown, layer]}
        },
    }


def _infer(model: ServedModel) -> dict[str, Any]:
    size, spec = model.spec.preprocessing, model.spec
    pixels = size.height * size.width * 3
    output = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"enum": [spec.output.name, CLASSES]},
            "parameters": {
                "type": "object",
                "properties": {
                    "binary_data": {"type": "boolean"},
                    "classification": {"type": "integer", "minimum": 0, "maximum": len(spec.classes)},
                },
            },
        },
    }
    image = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"const": spec.input.name},
            "datatype": {"enum": ["UINT8", "BYTES"]},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}},
            "data": {"type": "array", "description": f"{pixels} numbers from 0 to 255 per image, or texts of base64"},
            "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer", "minimum": 0}}},
        },
    }
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {
                "type": "object",
                "properties": {
                    "binary_data_output": {"type": "boolean"},
                    "timeout": {"type": "integer", "minimum": 1},
                },
            },
            "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": image},
            "outputs": {"type": "array", "items": output},
        },
    }


def _inferred() -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "id": {"type": "string"},
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "outputs": {"type": "array", "items": {"type": "object", "required": ["name", "datatype", "shape"]}},
        },
    }


def _prediction() -> dict[str, Any]:
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    one = {"type": "object", "properties": {"label": {"type": "string"}, "probability": probability}}
    return {
        "type": "object",
        "required": ["label", "index", "probability", "rejected", "top"],
        "properties": {
            "label": {"type": "string"},
            "index": {"type": "integer"},
            "probability": probability,
            "rejected": {"type": "boolean"},
            "top": {"type": "array", "items": one},
        },
    }


def _operation(summary: str, schema: dict[str, Any], *failures: int, kind: str = _JSON) -> dict[str, Any]:
    answers: dict[str, Any] = {"200": {"description": "OK", "content": {kind: {"schema": schema}}}}
    for status in failures:
        # Probes answer 503 with their own JSON.
        answers[str(status)] = {
            "description": _TEXTS[status],
            "content": {_JSON: {"schema": {"anyOf": [_ERROR, schema]}}},
        }
    return {"summary": summary, "responses": answers}


def _flag(name: str) -> dict[str, Any]:
    return {"type": "object", "required": [name], "properties": {name: {"type": "boolean"}}}


def _parameter(name: str, schema: dict[str, Any], text: str, place: str = "query") -> dict[str, Any]:
    return {"name": name, "in": place, "schema": schema, "description": text, "required": False}
