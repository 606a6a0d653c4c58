"""KServe's own clients, over HTTP and gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samdeploy.bundle import Bundle
from tests.serve.server import Served, serving

kserve = pytest.importorskip("kserve", reason="pip install kserve")
NAME = "digits"


@pytest.fixture(scope="module")
def served(digits_bundle: Bundle, environment: dict[str, str]) -> Iterator[Served]:
    with serving(environment, f"{NAME}={digits_bundle.root}") as server:
        yield server


def pixels(images: np.ndarray, *, binary: bool) -> Any:
    tensor = kserve.InferInput("image", list(images.shape), "UINT8")
    tensor.set_data_from_numpy(images, binary_data=binary)
    return kserve.InferRequest(NAME, [tensor], parameters={"binary_data_output": binary})


def logits_of(answer: Any) -> np.ndarray:
    assert answer.model_name == NAME
    return np.asarray(next(one for one in answer.outputs if one.name == "logits").as_numpy())


def over_http(served: Served, request: Any) -> Any:
    async def ask() -> Any:
        async with kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2")) as client:
            base = f"http://127.0.0.1:{served.port}"
            assert await client.is_server_live(base)
            assert await client.is_server_ready(base)
            assert await client.is_model_ready(base, NAME)
            assert not await client.is_model_ready(base, "none")
            return await client.infer(base, request, model_name=NAME)

    return asyncio.run(ask())


def over_grpc(served: Served, request: Any) -> Any:
    async def ask() -> Any:
        async with kserve.InferenceGRPCClient(f"127.0.0.1:{served.grpc_port}") as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready(NAME)
            return await client.infer(request)

    return asyncio.run(ask())


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_golden_images_have_their_logits(served: Served, digits_bundle: Bundle, binary: bool) -> None:
    images, logits = digits_bundle.golden()
    found = logits_of(over_http(served, pixels(images, binary=binary)))
    assert np.allclose(found, logits, atol=1e-3)


def test_golden_images_have_their_logits_over_grpc(served: Served, digits_bundle: Bundle) -> None:
    images, logits = digits_bundle.golden()
    found = logits_of(over_grpc(served, pixels(images, binary=True)))
    assert np.allclose(found, logits, atol=1e-3)


def test_encoded_images_get_their_classes(served: Served, digit_files: Sequence[Path]) -> None:
    tensor = kserve.InferInput("image", [len(digit_files)], "BYTES")
    tensor.set_data_from_numpy(np.array([path.read_bytes() for path in digit_files], np.object_))
    answer = over_http(served, kserve.InferRequest(NAME, [tensor]))
    classes = next(one for one in answer.outputs if one.name == "classes")
    assert [str(one) for one in classes.data] == [str(digit) for digit in range(len(digit_files))]
