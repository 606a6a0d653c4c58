"""The same models over gRPC, by messages of the protocol."""

from __future__ import annotations

import http.client
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samdeploy.bundle import Bundle
from tests.serve.server import Served, serving

grpc = pytest.importorskip("grpc", reason="pip install 'samdeploy[serve]'")


@pytest.fixture(scope="module")
def served(digits_bundle: Bundle, environment: dict[str, str]) -> Iterator[Served]:
    with serving(environment, f"digits={digits_bundle.root}", "--max-bytes", "300000") as server:
        yield server


def call(served: Served, method: str, host: str = "127.0.0.1", seconds: float = 60, **fields: Any) -> Any:
    from samdeploy.serve.messages import METHODS, SERVICE

    asked, answered = METHODS[method]
    with grpc.insecure_channel(f"{host}:{served.grpc_port}") as channel:
        send = channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answered.FromString,
        )
        return send(asked(**fields), timeout=seconds)


def infer(served: Served, content: bytes | None, datatype: str, shape: Sequence[int], **fields: Any) -> Any:
    tensor = {"name": "image", "datatype": datatype, "shape": shape} | fields.pop("tensor", {})
    raw = [] if content is None else [content]
    return call(
        served, "ModelInfer", **{"model_name": "digits", "inputs": [tensor], "raw_input_contents": raw} | fields
    )


def test_the_descriptor_is_of_the_protocol_s_file() -> None:
    protoc = pytest.importorskip("grpc_tools.protoc", reason="pip install grpcio-tools")
    import samdeploy.serve

    folder = Path(samdeploy.serve.__file__).parent
    made = folder / "open_inference.binpb"
    before = made.read_bytes()
    arguments = ["protoc", f"-I{folder}", f"--descriptor_set_out={made}", "open_inference.proto"]
    assert protoc.main(arguments) == 0
    assert made.read_bytes() == before


def test_health_and_metadata(served: Served) -> None:
    assert call(served, "ServerLive").live and call(served, "ServerReady").ready
    assert call(served, "ModelReady", name="digits").ready
    assert call(served, "ServerMetadata").name == "samdeploy"
    model = call(served, "ModelMetadata", name="digits", version="1")
    assert (model.inputs[0].name, model.inputs[0].datatype, model.outputs[0].shape[1]) == ("image", "UINT8", 10)


def test_requests_are_counted_by_model_and_version(served: Served) -> None:
    def counted(method: str, model: str, version: str) -> float:
        labels = (f'endpoint="grpc {method}"', f'model="{model}"', f'version="{version}"')
        return served.metric("samdeploy_requests_total", *labels)

    for method, model, version in (("ModelReady", "digits", ""), ("ModelMetadata", "digits", "1")):
        before = counted(method, "digits", "1")
        call(served, method, name=model, version=version)
        assert counted(method, "digits", "1") == before + 1
    before = counted("ModelInfer", "digits", "1")
    for fields in ({"model_name": "digits"}, {"model_name": "digits", "model_version": "2"}, {"model_name": "none"}):
        with pytest.raises(grpc.RpcError):
            call(served, "ModelInfer", **fields)
    assert counted("ModelInfer", "digits", "1") == before + 1
    assert counted("ModelInfer", "", "") >= 2


def test_golden_images_have_their_logits(served: Served, digits_bundle: Bundle) -> None:
    images, logits = digits_bundle.golden()
    answer = infer(served, images.tobytes(), "UINT8", images.shape, id="7")
    assert (answer.id, answer.model_name, [one.name for one in answer.outputs]) == (
        "7",
        "digits",
        ["logits", "classes"],
    )
    found = np.frombuffer(answer.raw_output_contents[0], "<f4").reshape(answer.outputs[0].shape)
    assert np.allclose(found, logits, atol=1e-3)
    tensor = {"contents": {"uint_contents": images[:1].ravel().tolist()}}
    other = infer(served, None, "UINT8", images[:1].shape, tensor=tensor)
    assert np.allclose(np.frombuffer(other.raw_output_contents[0], "<f4"), logits[0], atol=1e-3)


def test_encoded_images_and_the_best_classes(served: Served, digit_files: Sequence[Path]) -> None:
    files = [path.read_bytes() for path in digit_files]
    outputs = [{"name": "logits", "parameters": {"classification": {"int64_param": 1}}}]
    raw = b"".join(struct.pack("<I", len(one)) + one for one in files)
    answer = infer(served, raw, "BYTES", [len(files)], outputs=outputs)
    best = answer.raw_output_contents[0]
    for digit in range(len(files)):
        (length,) = struct.unpack("<I", best[:4])
        assert best[4 : 4 + length].decode().endswith(f":{digit}:{digit}")
        best = best[4 + length :]
    assert not best


def test_ipv6_and_one_connection(digits_bundle: Bundle, environment: dict[str, str]) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("needs IPv6")
    options = ("--host", "::1", "--connections", "1")
    with serving(environment, f"digits={digits_bundle.root}", *options) as served:
        assert call(served, "ServerLive", host="[::1]").live
        connections = [http.client.HTTPConnection("::1", served.port, timeout=60) for _ in range(2)]
        for connection, status in zip(connections, (200, 503), strict=True):
            connection.request("GET", "/v2/health/live")
            assert connection.getresponse().status == status


def test_calls_that_are_cancelled(served: Served, digits_bundle: Bundle) -> None:
    images = np.concatenate([digits_bundle.golden()[0][:8]] * 4)
    with pytest.raises(grpc.RpcError) as caught:
        infer(served, images.tobytes(), "UINT8", images.shape, seconds=0.003)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    deadline = time.monotonic() + 20
    while not served.metric("samdeploy_requests_total", 'code="CANCELLED"') and time.monotonic() < deadline:
        time.sleep(0.05)
    assert served.metric("samdeploy_requests_total", 'code="CANCELLED"') == 1


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        ({"model_name": "none"}, "NOT_FOUND", "no model 'none' is served here"),
        ({"model_version": "2"}, "NOT_FOUND", "no version '2' of 'digits' is served here"),
        ({"inputs": []}, "INVALID_ARGUMENT", "inputs: [] found, 1 expected, named 'image'"),
        ({"raw_input_contents": [b"x"]}, "INVALID_ARGUMENT", "image: 1 bytes found"),
        (
            {"raw_input_contents": [b"x", b"y"]},
            "INVALID_ARGUMENT",
            "image: contents or one raw_input_contents expected",
        ),
        ({"tensor": {"shape": [129, 32, 32, 3]}}, "INVALID_ARGUMENT", "129 images found, at most 128 in one request"),
        (
            {"tensor": {"datatype": "BYTES", "shape": [129]}},
            "INVALID_ARGUMENT",
            "129 images found, at most 128 in one request",
        ),
        ({"tensor": {"datatype": "BYTES", "shape": [1] * 9}}, "INVALID_ARGUMENT", "shape [1, 1, 1, 1, 1] found"),
        (
            {"tensor": {"contents": {"uint_contents": [256] * 3072}}, "raw_input_contents": []},
            "INVALID_ARGUMENT",
            "image: numbers out of range found",
        ),
        ({"outputs": [{"name": "logits"}] * 11}, "INVALID_ARGUMENT", "outputs: 11 found, at most 10 expected"),
        ({"outputs": [{"name": "x"}]}, "INVALID_ARGUMENT", "outputs.name: 'x' found"),
        ({"parameters": {"timeout": {"int64_param": -1}}}, "INVALID_ARGUMENT", "parameters.timeout: -1 found"),
        ({"raw_input_contents": [bytes(300_001)]}, "RESOURCE_EXHAUSTED", "Received message larger than max"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wrong_requests(served: Served, digits_bundle: Bundle, fields: dict[str, Any], code: str, text: str) -> None:
    images = digits_bundle.golden()[0][:1]
    with pytest.raises(grpc.RpcError) as caught:
        infer(served, images.tobytes(), "UINT8", images.shape, **fields)
    assert caught.value.code().name == code
    assert text in caught.value.details()


def test_a_broken_image(served: Served) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        infer(served, struct.pack("<I", 6) + b"broken", "BYTES", [1])
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "not an image that samdeploy reads" in caught.value.details()
