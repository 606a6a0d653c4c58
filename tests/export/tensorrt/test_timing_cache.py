"""Timings of a build are kept for the next one of the same TensorRT and GPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from samdeploy.backends.device.cuda import Device
from samdeploy.backends.user_cache import cache_path, write_cache
from samdeploy.export.tensorrt.timing_cache import TimingCache

H100 = Device("NVIDIA H100 80GB HBM3", "SM90", "13.0")
A4000 = Device("NVIDIA RTX A4000", "SM86", "13.0")


class Config:
    """The timing-cache functions of TensorRT's builder config; a cache knows whether it was made for this GPU."""

    def __init__(self, *, accepts: bool = True) -> None:
        self.accepts = accepts
        self.cache = b""

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache and not self.accepts:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.cache + b"+1")


def _proper(version: str = "11.4.0.106") -> Any:
    return SimpleNamespace(__name__="tensorrt", __version__=version)


@pytest.fixture
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMDEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_timings_are_kept_for_the_next_build(cache_home: Path) -> None:
    for expected in (b"", b"+1", b"+1+1"):
        cache, config = TimingCache(_proper(), A4000), Config()
        cache.load_into(config)
        assert config.cache == expected
        cache.keep(config)
        assert cache.note == ""
    for other in (TimingCache(_proper("11.5.0"), A4000), TimingCache(_proper(), H100)):
        config = Config()
        other.load_into(config)
        assert config.cache == b""


def test_timings_that_tensorrt_refuses_are_replaced(cache_home: Path) -> None:
    first = TimingCache(_proper(), A4000)
    config = Config()
    first.load_into(config)
    first.keep(config)
    second, refusing = TimingCache(_proper(), A4000), Config(accepts=False)
    second.load_into(refusing)
    assert (refusing.cache, second.note) == (b"", "timing cache ignored: TensorRT refuses it")


@pytest.mark.parametrize("content", [b"broken", b""])
def test_a_cache_that_tensorrt_does_not_make_is_named(cache_home: Path, content: bytes) -> None:
    class Null(Config):
        """TensorRT gives null for a cache that it cannot make, which pybind11 hands over as None."""

        def create_timing_cache(self, content: bytes) -> Any:
            return None if content == broken else content

        def get_timing_cache(self) -> Any:
            return SimpleNamespace(serialize=lambda: None)

    broken = content
    cache, config = TimingCache(_proper(), A4000), Null()
    write_cache("timing", cache._key, b"broken")
    cache.load_into(config)
    cache.keep(config)
    assert cache.note == ("timing cache ignored: TensorRT refuses it" if content else "")


def test_rtx_has_no_timings_to_keep(cache_home: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")
    cache = TimingCache(trt, A4000)
    cache.load_into(None)
    cache.keep(None)
    assert not cache_home.exists()


def test_the_note_of_a_cache_that_cannot_be_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAMDEPLOY_CACHE", str(tmp_path / "file" / "cache"))
    assert "timing cache not kept: " in write_cache("timing", {"gpu": "x"}, b"data")
    assert cache_path("timing", {}).parent == tmp_path / "file" / "cache"
