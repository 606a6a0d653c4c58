"""The device's own clock: what it holds, what it leaves out, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from samdeploy.backends.device.objects import Stream
from samdeploy.backends.device.session import DeviceSession
from samdeploy.errors import BackendUnavailable, InputError
from tests.backends.device.host_cuda import SPEC, Engine, HostCuda, images_of, logits_of, view


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_the_device_clock_holds_the_work_without_copies(
    session: DeviceSession, engine: Engine, cuda: HostCuda, cuda_graph: bool
) -> None:
    session.cuda_graph = cuda_graph
    images = images_of(3)
    session.run(images)
    session.run(images)
    assert [session.device_ms(images) for _ in range(3)] == [1.0, 1.0, 1.0]
    assert ("launch" in cuda.log) == cuda_graph
    np.testing.assert_array_equal(session.run(images), logits_of(images))


def test_the_copy_is_over_before_the_device_clock_starts(
    session: DeviceSession, engine: Engine, cuda: HostCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.cuda_graph = False
    plain, found = engine.enqueue, []
    monkeypatch.setattr(engine, "enqueue", lambda *arguments: (found.append(cuda.now), plain(*arguments)))
    session.device_ms(images_of(2))
    assert found == [100.0]


def test_the_device_clock_works_on_the_images_it_was_given(session: DeviceSession, cuda: HostCuda) -> None:
    session.cuda_graph = False
    images = images_of(2, seed=5)
    session.device_ms(images)
    logits = view(session._memory[1].address, (2, 3), np.float32)
    np.testing.assert_array_equal(logits, logits_of(images))


def test_the_device_clock_refuses_a_batch_that_it_would_have_to_split_or_fill(cuda: HostCuda) -> None:
    opened = DeviceSession("tensorrt", "fp16", SPEC, Engine(cuda, 2, 4), Stream())
    for count in (1, 5):
        with pytest.raises(InputError, match=rf"batch of {count} found, 2 to 4 expected by the engine's profile"):
            opened.device_ms(images_of(count))
    assert opened.device_ms(images_of(4)) == 1.0
    opened.close()


def test_an_engine_that_fails_under_the_device_clock_leaves_the_session_usable(
    session: DeviceSession, engine: Engine
) -> None:
    engine.fails = True
    with pytest.raises(BackendUnavailable, match="the engine failed"):
        session.device_ms(images_of(2))
    engine.fails = False
    images = images_of(2)
    np.testing.assert_array_equal(session.run(images), logits_of(images))
