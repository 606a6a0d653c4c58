"""Buffers, pieces, errors and CUDA graphs of `DeviceSession.run`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from samdeploy.backends.device import session as device_session
from samdeploy.backends.device.objects import Stream
from samdeploy.backends.device.session import GRAPH_LIMIT, DeviceSession
from samdeploy.errors import BackendUnavailable
from tests.backends.device.host_cuda import SPEC, Engine, HostCuda, images_of, logits_of


@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 11])
def test_any_batch_size_runs_in_pieces_that_fit(cuda: HostCuda, count: int, cuda_graph: bool) -> None:
    engine = Engine(cuda, 2, 4)
    session = DeviceSession("tensorrt", "fp16", SPEC, engine, Stream(), cuda_graph=cuda_graph)
    for repeat in range(4):
        images = images_of(count, repeat)
        np.testing.assert_array_equal(session.run(images), logits_of(images))
    session.close()
    assert engine.closed == 1 and not cuda.arrays


def test_a_graph_is_recorded_on_the_second_run_and_replayed_from_then_on(
    cuda: HostCuda, engine: Engine, session: DeviceSession
) -> None:
    for repeat in range(5):
        images = images_of(3, repeat)
        np.testing.assert_array_equal(session.run(images), logits_of(images))
    assert [line for line in cuda.log if "malloc" not in line] == ["graph", *["launch"] * 4]  # one to check it
    assert engine.batches == [3, 3, 3]  # run; run again and recorded


def test_graphs_follow_when_the_buffers_grow(cuda: HostCuda, engine: Engine, session: DeviceSession) -> None:
    for count in (2, 2, 2, 5, 2, 2, 2, 5, 5, 5):
        images = images_of(count, count)
        np.testing.assert_array_equal(session.run(images), logits_of(images))
    assert cuda.log.count("graph") == 3  # 2, and after the buffers moved 2 and 5


def test_graphs_can_be_switched_off_and_on(cuda: HostCuda, engine: Engine, session: DeviceSession) -> None:
    images = images_of(2)
    session.cuda_graph = False
    for _ in range(3):
        session.run(images)
    assert "launch" not in cuda.log and engine.batches == [2, 2, 2]
    session.cuda_graph = True
    for _ in range(3):
        np.testing.assert_array_equal(session.run(images), logits_of(images))
    assert cuda.log.count("launch") == 2  # one to check it


def test_only_so_many_graphs_are_kept(cuda: HostCuda, session: DeviceSession) -> None:
    session.run(images_of(40))
    for count in range(1, 40):
        for _ in range(2):
            session.run(images_of(count))
    assert cuda.log.count("graph") == 39
    assert len(cuda.graphs) == GRAPH_LIMIT


def test_a_runtime_that_cannot_be_recorded_runs_without(engine: Engine, session: DeviceSession) -> None:
    engine.recordable = False
    for repeat in range(4):
        images = images_of(2, repeat)
        np.testing.assert_array_equal(session.run(images), logits_of(images))
    assert not session.cuda_graph
    assert session.cuda_graph_note == "off since a batch of 2: the engine failed"


def test_a_graph_that_gives_other_logits_is_not_used(engine: Engine, session: DeviceSession) -> None:
    engine.elsewhere = True
    for repeat in range(4):
        images = images_of(2, repeat)
        np.testing.assert_array_equal(session.run(images), logits_of(images))
    assert not session.cuda_graph
    assert session.cuda_graph_note == (
        "off since a batch of 2: the recorded work of tensorrt gives other logits than the work itself"
    )


def test_large_batches_do_not_lock_memory(
    cuda: HostCuda, session: DeviceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_session, "PINNED_LIMIT", 5 * 8 * 32 * 3)
    for count in (6, 5, 6, 1):
        images = images_of(count)
        np.testing.assert_array_equal(session.run(images), logits_of(images))


def test_threads_take_turns(session: DeviceSession) -> None:
    batches = [images_of(1 + seed % 4, seed) for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for images, logits in zip(batches, pool.map(session.run, batches), strict=True):
            np.testing.assert_array_equal(logits, logits_of(images))


def test_too_little_memory_is_an_error_and_the_session_goes_on(cuda: HostCuda, session: DeviceSession) -> None:
    images = images_of(2)
    session.run(images)
    cuda.free_bytes = 100 * 768
    with pytest.raises(
        BackendUnavailable, match=r"cudaMalloc failed: cudaErrorMemoryAllocation \(2\).*use a smaller batch"
    ):
        session.run(images_of(101))
    np.testing.assert_array_equal(session.run(images), logits_of(images))


def test_an_error_of_the_engine_leaves_a_usable_session(engine: Engine, session: DeviceSession) -> None:
    engine.fails = True
    with pytest.raises(BackendUnavailable, match="the engine failed"):
        session.run(images_of(2))
    engine.fails = False
    images = images_of(2, 1)
    np.testing.assert_array_equal(session.run(images), logits_of(images))


def test_the_callers_device_is_left_as_it_was(cuda: HostCuda, session: DeviceSession) -> None:
    cuda.device = 3
    session.run(images_of(1))
    assert cuda.device == 3
    cuda.device = 0
