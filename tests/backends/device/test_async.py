"""Order between streams: `DeviceSession.run_async` on arrays of the caller, on the stream of the caller."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from samdeploy.backends.device.objects import Stream
from samdeploy.backends.device.session import DeviceSession
from samdeploy.errors import InputError
from tests.backends.device.host_cuda import SPEC, Engine, HostCuda, OnDevice, images_of, logits_of, to_device, view


class TestAsync:
    """Arrays of the caller, on the caller's stream."""

    @pytest.fixture
    def session(self, cuda: HostCuda, engine: Engine) -> Iterator[DeviceSession]:
        opened = DeviceSession("tensorrt", "fp16", SPEC, engine, Stream())
        yield opened
        opened.close()

    @pytest.mark.parametrize("cuda_graph", [True, False])
    def test_it_starts_after_the_callers_work_and_before_what_follows(
        self, cuda: HostCuda, session: DeviceSession, cuda_graph: bool
    ) -> None:
        session.cuda_graph = cuda_graph
        _, mine = cuda.cudaStreamCreateWithFlags(0)
        for repeat in range(4):
            images = images_of(4, repeat)
            source, target = to_device(cuda, np.zeros_like(images))
            after = np.zeros((4, 3), np.float32)
            cuda.queue(mine, lambda s=source, i=images: view(s.address, i.shape, np.uint8).__setitem__(..., i))
            session.run_async(source, target, mine)
            cuda.queue(mine, lambda t=target, a=after: a.__setitem__(..., view(t.address, a.shape, np.float32)))
            assert not after.any()  # nothing waited
            cuda.finish(mine)
            np.testing.assert_array_equal(after, logits_of(images))

    @pytest.mark.parametrize("stream", [None, 0, 1])
    def test_no_stream_is_the_default_stream(self, cuda: HostCuda, session: DeviceSession, stream: int | None) -> None:
        images = images_of(2)
        source, target = to_device(cuda, images)
        session.run_async(source, target, stream)
        cuda.finish(1)
        np.testing.assert_array_equal(view(target.address, (2, 3), np.float32), logits_of(images))

    def test_streams_that_the_arrays_name_are_waited_for(self, cuda: HostCuda, session: DeviceSession) -> None:
        _, mine = cuda.cudaStreamCreateWithFlags(0)
        _, producer = cuda.cudaStreamCreateWithFlags(0)
        images = images_of(4)
        source, target = to_device(cuda, np.zeros_like(images))
        cuda.queue(producer, lambda: view(source.address, images.shape, np.uint8).__setitem__(..., images))
        source.stream = producer
        session.run_async(source, target, mine)
        cuda.finish(mine)
        np.testing.assert_array_equal(view(target.address, (4, 3), np.float32), logits_of(images))

    @pytest.mark.parametrize("cuda_graph", [True, False])
    @pytest.mark.parametrize(("count", "offset"), [(1, 0), (4, 0), (11, 0), (4, 4)])
    def test_pieces_small_batches_and_odd_addresses(
        self, cuda: HostCuda, count: int, offset: int, cuda_graph: bool
    ) -> None:
        session = DeviceSession("tensorrt", "fp16", SPEC, Engine(cuda, 2, 4), Stream(), cuda_graph=cuda_graph)
        for repeat in range(3):
            images = images_of(count, repeat)
            source, target = to_device(cuda, images, offset)
            session.run_async(source, target)
            cuda.finish(1)
            np.testing.assert_array_equal(view(target.address, (count, 3), np.float32), logits_of(images))
        session.close()

    @pytest.mark.parametrize(
        ("images", "logits", "text"),
        [
            ({"typestr": "<f4"}, {}, r"images: float32 \[2, 8, 32, 3\] found, uint8 \[N, 8, 32, 3\], C-contiguous"),
            ({"shape": (8, 32, 3)}, {}, r"images: uint8 \[8, 32, 3\] found"),
            ({"shape": (2, 3, 8, 32)}, {}, r"images: uint8 \[2, 3, 8, 32\] found"),
            ({"shape": (0, 8, 32, 3)}, {}, r"images: uint8 \[0, 8, 32, 3\] found"),
            ({"strides": (768, 3, 24, 1)}, {}, r"images: strides \(768, 3, 24, 1\) found.*make a contiguous copy"),
            ({"version": 1}, {}, "images: __cuda_array_interface__ version 1 found, 2 or 3 expected"),
            ({"stream": 0}, {}, "images: stream 0 found in its __cuda_array_interface__"),
            ({"mask": object()}, {}, "images: a masked array found"),
            ({"data": (0, False)}, {}, "images: address 0 found"),
            ({"data": None}, {}, "images: its __cuda_array_interface__ is damaged"),
            ({"typestr": "zebra"}, {}, "images: its __cuda_array_interface__ is damaged"),
            ({}, {"typestr": "<f2"}, r"logits: float16 \[2, 3\] found, float32 \[N, 3\]"),
            ({}, {"typestr": ">f4"}, r"logits: >f4 \[2, 3\] found, float32 \[N, 3\]"),
            ({}, {"shape": (2, 4)}, r"logits: float32 \[2, 4\] found"),
            ({}, {"shape": (3, 3)}, "logits: 3 rows found, 2 expected: one for each image"),
        ],
    )
    def test_wrong_arrays(
        self, cuda: HostCuda, session: DeviceSession, images: dict[str, Any], logits: dict[str, Any], text: str
    ) -> None:
        source, target = to_device(cuda, images_of(2))
        source.changes, target.changes = images, logits
        with pytest.raises(InputError, match=text):
            session.run_async(source, target)

    def test_a_read_only_target(self, cuda: HostCuda, session: DeviceSession) -> None:
        source, target = to_device(cuda, images_of(2))
        source.changes = {"data": (source.address, True)}  # allowed: it is only read
        session.run_async(source, target)
        target.changes = {"data": (target.address, True)}
        with pytest.raises(InputError, match="logits: a read-only array found"):
            session.run_async(source, target)

    def test_strides_of_axes_of_length_one_do_not_matter(self, cuda: HostCuda, session: DeviceSession) -> None:
        images = images_of(1)
        source, target = to_device(cuda, images)
        source.changes = {"strides": (7, 96, 3, 1)}
        session.run_async(source, target)
        cuda.finish(1)
        np.testing.assert_array_equal(view(target.address, (1, 3), np.float32), logits_of(images))

    def test_host_arrays_and_other_devices(self, cuda: HostCuda, session: DeviceSession) -> None:
        source, target = to_device(cuda, images_of(2))
        with pytest.raises(InputError, match=r"images: ndarray without __cuda_array_interface__.*go to run\(\)"):
            session.run_async(images_of(2), target)
        host = np.zeros((2, 3), np.float32)
        with pytest.raises(InputError, match=r"logits: the address 0x[0-9a-f]+ is not in device memory"):
            session.run_async(source, OnDevice(host.ctypes.data, (2, 3), "<f4"))
        cuda.device_of[source.address] = 1
        with pytest.raises(InputError, match=r"images: it lies on device 1, .*CUDA_VISIBLE_DEVICES"):
            session.run_async(source, target)

    @pytest.mark.parametrize("stream", ["main", 1.5j, -1, True, object()])
    def test_wrong_streams(self, cuda: HostCuda, session: DeviceSession, stream: object) -> None:
        source, target = to_device(cuda, images_of(2))
        with pytest.raises(InputError, match=r"stream: \w+ found; an int, or a stream of PyTorch, CuPy, PyCUDA"):
            session.run_async(source, target, stream)

    @pytest.mark.parametrize("kind", ["cuda_stream", "ptr", "handle", "ctypes", "protocol"])
    def test_streams_of_other_packages(self, cuda: HostCuda, session: DeviceSession, kind: str) -> None:
        _, handle = cuda.cudaStreamCreateWithFlags(0)
        stream: Any = SimpleNamespace(**{kind: handle})
        if kind == "ctypes":
            stream = SimpleNamespace(handle=ctypes.c_void_p(handle))
        if kind == "protocol":
            stream = type("Stream", (), {"__cuda_stream__": lambda self: (0, handle)})()
        images = images_of(2)
        source, target = to_device(cuda, images)
        session.run_async(source, target, stream)
        cuda.finish(handle)
        np.testing.assert_array_equal(view(target.address, (2, 3), np.float32), logits_of(images))

    def test_a_stream_that_is_being_captured(self, cuda: HostCuda, session: DeviceSession) -> None:
        source, target = to_device(cuda, images_of(2))
        _, mine = cuda.cudaStreamCreateWithFlags(0)
        cuda.cudaStreamBeginCapture(mine, None)
        with pytest.raises(InputError, match="it is being captured"):
            session.run_async(source, target, mine)

    def test_a_closed_session(self, cuda: HostCuda, session: DeviceSession) -> None:
        source, target = to_device(cuda, images_of(2))
        session.close()
        session.close()
        with pytest.raises(InputError, match="this tensorrt session is closed"):
            session.run_async(source, target)
