"""Bundles on a real, local Ray Serve."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray.serve", reason="pip install 'samdeploy[ray]'")

import ray
from ray import serve

from samdeploy.bundle import Bundle
from samdeploy.serve.options import ServeOptions
from samdeploy.serve.ray import app
from tests.serve.test_http import binary_request
from tests.serve.test_triton import free_port


@pytest.fixture(scope="module")
def port(digits_bundle: Bundle) -> Iterator[int]:
    """Two replicas behind Ray's proxy."""
    # More processors than replicas, or what Ray itself runs has no room.
    ray.init(num_cpus=6, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        port = free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        options = ServeOptions(backend="onnxruntime")
        serve.run(app(f"digits={digits_bundle.root}", options=options, replicas=(2, 2)), route_prefix="/")
        yield port
    finally:
        serve.shutdown()
        ray.shutdown()


def replicas() -> list[int]:
    """The process ids of the replicas that live: Ray names its processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().startswith(b"ray::ServeReplica"):
                found.append(int(path.parent.name))
    return found


def test_a_killed_replica_gives_no_wrong_answer(port: int, digits_bundle: Bundle) -> None:
    images, logits = digits_bundle.golden()
    body, headers = binary_request(images[:4], {"name": "logits", "parameters": {"binary_data": True}})
    found: list[str] = []
    ending = threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while not ending.is_set():
            connection.request("POST", "/v2/models/digits/infer", body, headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                found.append(str(answer.status))
                continue
            front = int(answer.headers["Inference-Header-Content-Length"])
            values = np.frombuffer(content[front:], np.float32).reshape(4, -1)
            found.append("right" if np.allclose(values, logits[:4], atol=1e-3) else "wrong")
        connection.close()

    clients = [threading.Thread(target=ask) for _ in range(4)]
    before = replicas()
    assert len(before) == 2
    for client in clients:
        client.start()
    time.sleep(1)
    killed_at = len(found)
    os.kill(before[0], signal.SIGKILL)
    end = time.monotonic() + 90
    while len(after := replicas()) < 2 or before[0] in after:
        assert time.monotonic() < end
        time.sleep(0.2)
    time.sleep(1)
    ending.set()
    for client in clients:
        client.join()
    assert "wrong" not in found
    assert 0 < killed_at < len(found)
    assert sum(answer != "right" for answer in found) <= 4 * 2  # what the dead one held, and what was on its way


def test_the_protocol_is_there(port: int, digits_bundle: Bundle) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for path, status in (("/v2", 200), ("/v2/health/ready", 200), ("/v2/models/digits", 200), ("/v2/models/cats", 404)):
        connection.request("GET", path)
        answer = connection.getresponse()
        assert (answer.status, type(json.loads(answer.read()))) == (status, dict)
    connection.request("POST", "/v2/models/digits/predict", b"no image")
    answer = connection.getresponse()
    assert answer.status == 400 and "not an image" in json.loads(answer.read())["error"]
    connection.close()
