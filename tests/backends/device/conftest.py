"""An engine in a session, on CUDA simulated in host memory.

`host_cuda` skips what imports it where cuda-python is missing; a conftest must not be skipped, so it imports it late.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from samdeploy.backends.device.session import DeviceSession

if TYPE_CHECKING:
    from tests.backends.device.host_cuda import Engine, HostCuda


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> HostCuda:
    from tests.backends.device.host_cuda import HostCuda, cuda_bindings

    host = HostCuda()
    monkeypatch.setattr(cuda_bindings, "runtime", host)
    monkeypatch.setattr(host, "device_of", {})
    return host


@pytest.fixture
def engine(cuda: HostCuda) -> Engine:
    from tests.backends.device.host_cuda import Engine

    return Engine(cuda)


@pytest.fixture
def session(cuda: HostCuda, engine: Engine) -> Iterator[DeviceSession]:
    from samdeploy.backends.device.objects import Stream
    from tests.backends.device.host_cuda import SPEC

    opened = DeviceSession("tensorrt", "fp16", SPEC, engine, Stream())
    yield opened
    opened.close()
    assert not cuda.arrays and not cuda.graphs and list(cuda.queues) == [1]  # all that was taken was given back
