"""Requests of the Open Inference Protocol, as bytes, and what is said of wrong ones."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from samdeploy.bundle.spec import ModelSpec, Preprocessing, model_spec
from samdeploy.serve import infer_request, json_body, protocol
from samdeploy.serve.answers import write_infer
from samdeploy.serve.errors import RequestError
from samdeploy.serve.infer_request import InferRequest, WantedOutput

SPEC: ModelSpec = model_spec("sam-resnet18", {}, ("cat", "dog", "ükelei"), Preprocessing(2, 3))
MOST = 3  # images
IMAGES = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)


def read_infer(content: bytes, length: str | None) -> InferRequest:
    return protocol.read_infer(content, length, SPEC, MOST)


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "UINT8", "shape": [2, 2, 3, 3], "data": IMAGES.tolist()} | changes


def body(**changes: Any) -> bytes:
    return json.dumps({"inputs": [tensor()]} | changes).encode()


def binary(content: bytes, **changes: Any) -> tuple[bytes, str]:
    given = tensor(parameters={"binary_data_size": len(content)}) | changes
    del given["data"]
    front = json.dumps({"inputs": [given]}).encode()
    return front + content, str(len(front))


@pytest.mark.parametrize("data", [IMAGES.tolist(), IMAGES.ravel().tolist()])
@pytest.mark.parametrize("large", [json_body.LARGE, 1])
def test_pixels_in_json_nested_or_flat(data: list[Any], large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large body in pieces, by functions of Python: only between those other threads have their turn."""
    called: list[str] = []
    monkeypatch.setattr(json_body, "LARGE", large)
    monkeypatch.setattr(infer_request, "_PIECE", 5)
    monkeypatch.setattr(json_body, "_int", lambda text: called.append(text) or int(text))
    request = read_infer(body(inputs=[tensor(data=data)], id="7"), None)
    assert (request.id, request.timeout, "35" in called) == ("7", None, large == 1)
    assert np.array_equal(request.images, IMAGES)
    assert request.outputs == (WantedOutput("logits"), WantedOutput("classes"))


def test_pixels_behind_the_json() -> None:
    request = read_infer(*binary(IMAGES.tobytes()))
    assert np.array_equal(request.images, IMAGES)


def test_encoded_images_both_ways() -> None:
    files = [b"one", b"", b"three" * 100]
    raw = b"".join(struct.pack("<I", len(one)) + one for one in files)
    assert read_infer(*binary(raw, datatype="BYTES", shape=[3])).images == files
    texts = [base64.b64encode(one).decode() for one in files]
    assert read_infer(body(inputs=[tensor(datatype="BYTES", shape=[3], data=texts)]), None).images == files


def test_outputs_and_parameters() -> None:
    outputs = [
        {"name": "logits", "parameters": {"classification": 2}},
        {"name": "logits", "parameters": {"binary_data": False}},
        {"name": "classes"},
    ]
    parameters = {"binary_data_output": True, "timeout": 1500}
    request = read_infer(body(outputs=outputs, parameters=parameters), None)
    assert request.timeout == 0.0015
    assert request.outputs == (
        WantedOutput("logits", True, 2), WantedOutput("logits", False), WantedOutput("classes", True),
    )  # fmt: skip


WRONG = {
    "not JSON": (b"{", "the request is not JSON: "),
    "no UTF-8": (b'{"id": "\xff"}', "the request is not JSON: 'utf-8' codec"),
    "a list": (b"[]", "the request: [] found, an object expected"),
    "deep": (b"[" * 100_000, "the request is nested too deeply"),
    "a long number": (b'{"id": ' + b"1" * 5000 + b"}", "the request is not JSON: Exceeds the limit"),
    "no number": (body().replace(b"17", b"NaN", 1), "the request is not JSON: NaN is not JSON"),
    "no inputs": (b"{}", "inputs: None found, a list expected"),
    "two inputs": (body(inputs=[tensor(), tensor()]), "inputs: 2 found, 1 expected, named 'image'"),
    "another name": (body(inputs=[tensor(name="x")]), "inputs[0].name: 'x' found, 'image' expected"),
    "another type": (body(inputs=[tensor(datatype="FP32")]), "image.datatype: 'FP32' found, 'UINT8'"),
    "another shape": (body(inputs=[tensor(shape=[2, 3, 2, 3])]), "shape [2, 3, 2, 3] found, [N, 2, 3, 3] expected"),
    "no images": (body(inputs=[tensor(shape=[0, 2, 3, 3], data=[])]), "at least 1 image expected"),
    "true images": (body(inputs=[tensor(shape=[True, 2, 3, 3])]), "shape [True, 2, 3, 3] found"),
    "another count": (body(inputs=[tensor(shape=[3, 2, 3, 3])]), "image: 36 numbers found, 54 whole numbers"),
    "ragged": (body(inputs=[tensor(data=[[1], [2, 3]])]), "image: no list of whole numbers found"),
    "fractions": (body(inputs=[tensor(data=[0.5] * 36)]), "image: no list of whole numbers found"),
    "booleans": (body(inputs=[tensor(data=[True] * 36)]), "image: no list of whole numbers found"),
    "out of range": (
        body(inputs=[tensor(data=[256] * 36)]),
        "image: numbers out of range found, 36 whole",
    ),
    "out of int64": (body(inputs=[tensor(data=[10**30] * 36)]), "image: numbers out of range found"),
    # In a numpy array each number would be as long.
    "a long text": (body(inputs=[tensor(data=["x" * 1_000_000] + [1] * 35)]), "image: no list of whole numbers"),
    "too many pixels": (body(inputs=[tensor(shape=[4, 2, 3, 3])]), "4 images found, at most 3 in one request"),
    "too many texts": (
        body(inputs=[tensor(datatype="BYTES", shape=[4], data=[])]),
        "4 images found, at most 3 in one request",
    ),
    "a count without an end": (
        body(inputs=[tensor(shape=[10**4298, 2, 3, 3])]),
        f"1{'0' * 27}...{'0' * 29} images found, at most 3 in one",
    ),
    "too many outputs": (body(outputs=[{"name": "logits"}] * 11), "outputs: 11 found, at most 10 expected"),
    "no list": (body(inputs=[tensor(data=36)]), "image: no list of whole numbers found"),
    "no base64": (body(inputs=[tensor(datatype="BYTES", shape=[1], data=["ä"])]), "image: not base64"),
    "an unknown output": (body(outputs=[{"name": "x"}]), "outputs[0].name: 'x' found, 'logits' or 'classes' expected"),
    "too many classes": (
        body(outputs=[{"name": "logits", "parameters": {"classification": 4}}]),
        "outputs[0].parameters.classification: 4 found, 0 to 3 expected",
    ),
    "a timeout of nothing": (body(parameters={"timeout": 0}), "parameters.timeout: 0 found, microseconds"),
    "an id": (body(id=7), "id: 7 found, a text expected"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests(name: str) -> None:
    content, message = WRONG[name]
    with pytest.raises(RequestError) as caught:
        read_infer(content, None)
    assert caught.value.status == (413 if "at most 3 in one" in message else 400)
    assert message in str(caught.value)


def _nested(element: bytes, count: int) -> bytes:
    return b"[" + b",".join([element] * count) + b"]"


@pytest.mark.parametrize(
    "element",
    [
        _nested(_nested(b"[0,0,0]", 8), 8),
        _nested(b"0,0,0", 8),
        b'"%s"' % (b"A" * 80),
        rb'"%s"' % ((b"A" * 63 + rb"\/") * 50),
    ],
)
def test_large_json_of_pixels_or_images_is_parsed(element: bytes) -> None:
    count = 2 * json_body.LARGE // len(element)
    assert len(json_body.read_json(_nested(element, count))) == count


@pytest.mark.parametrize("silent", [b"[]", b"{}", b'""', b"null", b'{"":[true,false]}', rb'"%s"' % (rb"\n" * 64)])
@pytest.mark.parametrize("numbers", [0, 3 * json_body.LARGE])
def test_large_json_without_numbers_is_not_parsed(silent: bytes, numbers: int) -> None:
    """The parser would keep all other threads waiting: numbers elsewhere do not help."""
    with pytest.raises(RequestError, match="the request's JSON has too many lists, objects, texts or escapes; send"):
        read_infer(b"[" + b"1," * numbers + _nested(silent, json_body.LARGE // len(silent)) + b"]", None)


@pytest.mark.parametrize(
    ("content", "length", "message"),
    [
        (*binary(IMAGES.tobytes()[:-1]), "image: 35 bytes found, 36 expected by its shape"),
        (*binary(IMAGES.tobytes(), parameters={"binary_data_size": 37}), "binary_data_size 37 found, 0 to 36 expected"),
        (*binary(IMAGES.tobytes(), parameters={"binary_data_size": -1}), "binary_data_size -1 found"),
        (binary(IMAGES.tobytes())[0] + b"x", binary(IMAGES.tobytes())[1], "1 bytes found behind the tensors"),
        (b"{}", "3", "Inference-Header-Content-Length: 3 found, at most the body's 2 expected"),
        (b"{}", "-1", "Inference-Header-Content-Length: '-1' found, a number of bytes expected"),
        (*binary(b"\xff\xff\xff\xff", datatype="BYTES", shape=[1]), "image: 4 bytes found that are not 1 elements"),
        (*binary(bytes(16), datatype="BYTES", shape=[4]), "4 images found, at most 3 in one request"),
        (*binary(b"\0\0\0\0\0", datatype="BYTES", shape=[1]), "image: 5 bytes found that are not 1 elements"),
    ],
)
def test_wrong_binary_tensors(content: bytes, length: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_infer(content, length)
    assert message in str(caught.value)


def test_answers() -> None:
    logits = np.array([[0.5, 2.0, -1.0], [3.0, 3.0, 4.0]], np.float32)
    outputs = (WantedOutput("logits", True), WantedOutput("classes"), WantedOutput("logits", False, 2))
    content, front = write_infer("m", "1", InferRequest("7", IMAGES, outputs), logits, SPEC)
    answer = json.loads(content[:front])
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "m", "1")
    assert [one["datatype"] for one in answer["outputs"]] == ["FP32", "BYTES", "BYTES"]
    assert np.array_equal(np.frombuffer(content[front:], "<f4").reshape(2, 3), logits)
    assert answer["outputs"][1]["data"] == ["dog", "ükelei"]
    assert answer["outputs"][2]["data"] == ["2.000000:1:dog", "0.500000:0:cat", "4.000000:2:ükelei", "3.000000:0:cat"]
