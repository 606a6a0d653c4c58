"""The calls to TensorRT, against objects that answer as it does; each name they have is one of the real package's."""

from __future__ import annotations

import enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from samdeploy.backends.device.cuda import Device
from samdeploy.backends.tensorrt.runtime_cache import RuntimeCache
from samdeploy.backends.tensorrt.session import TensorrtEngine, engine_tensors
from samdeploy.bundle.spec import ModelSpec, Preprocessing, model_spec
from samdeploy.errors import BackendUnavailable, BundleError

real = pytest.importorskip("tensorrt_rtx", reason="pip install 'samdeploy[tensorrt-rtx]'")

SPEC: ModelSpec = model_spec(
    "sam-resnet18", {"gate": "identity"}, ("cat", "dog", "owl"), Preprocessing(height=8, width=32)
)
A4000 = Device("NVIDIA RTX A4000", "SM86", "13.0")
STREAM: Any = SimpleNamespace(handle=7)


class Validity(enum.Enum):
    VALID = 0
    INVALID = 1


class Diagnostics(enum.IntFlag):
    VERSION_MISMATCH = 1
    UNSUPPORTED_CC = 2


class Context:
    def __init__(self) -> None:
        self.set: dict[str, Any] = {}
        self.ran: list[tuple[int, dict[str, Any]]] = []
        self.fails = ""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.set[f"{name} shape"] = shape
        return self.fails != "shape"

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.set[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.ran.append((stream, dict(self.set)))
        return self.fails != "execute"

    def is_stream_capturable(self, stream: int) -> bool:
        return self.fails != "capture"


class Cache:
    def __init__(self, accepts: bool) -> None:
        self.accepts, self.kernels = accepts, b""

    def deserialize(self, blob: bytes) -> bool:
        if self.accepts:
            self.kernels = blob
        return self.accepts

    def serialize(self) -> bytes:
        return self.kernels or b"compiled"


class Engine:
    num_io_tensors = 2

    def __init__(self, package: Package) -> None:
        self.package = package
        self.contexts: list[Context] = []
        self.cache: Cache | None = None

    def get_tensor_name(self, index: int) -> str:
        return ("logits", "image")[index]  # outputs may come first

    def get_tensor_mode(self, name: str) -> Any:
        return real.TensorIOMode.INPUT if name == "image" else real.TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return real.uint8 if name == "image" else real.float32

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 8, 32, 3) if name == "image" else (-1, 3)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name, profile) == ("image", 0)
        return [(2, 8, 32, 3), (4, 8, 32, 3), (16, 8, 32, 3)]

    def create_runtime_config(self) -> Any:
        self.cache = Cache(self.package.accepts_cache)
        return SimpleNamespace(create_runtime_cache=lambda: self.cache, set_runtime_cache=lambda cache: True)

    def create_execution_context(self, config: Any = None) -> Context | None:
        if self.package.full:
            return None
        self.contexts.append(Context())
        return self.contexts[-1]


class Package:
    """A module like tensorrt_rtx."""

    __name__ = "tensorrt_rtx"
    __version__ = "1.7.1.116"
    uint8, float32, float16 = real.uint8, real.float32, real.float16
    TensorIOMode, IRuntimeCache = real.TensorIOMode, real.IRuntimeCache
    EngineValidity, EngineInvalidityDiagnostics = Validity, Diagnostics
    Severity = real.ILogger.Severity

    def __init__(self) -> None:
        self.validity, self.diagnostics, self.opens = Validity.VALID, 0, True
        self.accepts_cache, self.full = True, False
        self.engine = Engine(self)
        package = self

        class ILogger:
            Severity = real.ILogger.Severity

        class Runtime:
            def __init__(self, log: Any) -> None:
                self.log = log

            def get_engine_validity(self, plan: bytes) -> tuple[Validity, int]:
                return package.validity, package.diagnostics

            def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
                if not package.opens:
                    self.log.log(real.ILogger.Severity.WARNING, "not worth a word")
                    self.log.log(real.ILogger.Severity.ERROR, "The engine  cannot\nrun on this GPU")
                return package.engine if package.opens else None

        self.ILogger, self.Runtime = ILogger, Runtime


@pytest.fixture
def trt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    monkeypatch.setenv("SAMDEPLOY_CACHE", str(tmp_path / "cache"))
    return Package()


def _open(trt: Package, plan_sha256: str = "ab") -> TensorrtEngine:
    return TensorrtEngine(trt, b"plan", "engine.plan", SPEC, RuntimeCache(trt, A4000, plan_sha256))


@pytest.mark.parametrize(
    ("stand_in", "there"),
    [
        (Context, real.IExecutionContext),
        (Engine, real.ICudaEngine),
        (Cache, real.IRuntimeCache),
        (Package().Runtime, real.Runtime),
        (Package, real),
    ],
)
def test_the_real_package_has_these_names(stand_in: type, there: object) -> None:
    missing = [name for name in vars(stand_in) if not name.startswith("_") and not hasattr(there, name)]
    assert [name for name in missing if name != "Severity"] == []
    assert set(Diagnostics.__members__) < set(real.EngineInvalidityDiagnostics.__members__)
    assert {name: int(code) for name, code in real.EngineInvalidityDiagnostics.__members__.items()}[
        "UNSUPPORTED_CC"
    ] == Diagnostics.UNSUPPORTED_CC
    for name in ("create_runtime_cache", "set_runtime_cache"):
        assert hasattr(real.IRuntimeConfig, name)


def test_a_batch_is_queued_with_its_addresses(trt: Package) -> None:
    engine = _open(trt)
    assert (engine.min_batch, engine.max_batch) == (2, 16)
    engine.enqueue(0x1000, 0x2000, 5, STREAM)
    engine.enqueue(0x3000, 0x4000, 6, STREAM)
    shapes = [{"image shape": (5, 8, 32, 3), "image": 0x1000, "logits": 0x2000}]
    shapes += [{"image shape": (6, 8, 32, 3), "image": 0x3000, "logits": 0x4000}]
    assert trt.engine.contexts[0].ran == [(7, shapes[0]), (7, shapes[1])]
    assert [tensor.name for tensor in engine_tensors(trt, trt.engine)] == ["image", "logits"]


def test_a_run_sets_only_what_changed(trt: Package) -> None:
    """In a CUDA graph's capture nothing may be set: it repeats the run before it."""
    engine = _open(trt)
    context = trt.engine.contexts[0]
    engine.enqueue(0x1000, 0x2000, 5, STREAM)
    context.set.clear()
    engine.enqueue(0x1000, 0x2000, 5, STREAM)
    assert context.set == {}
    context.fails = "execute"
    with pytest.raises(BackendUnavailable):
        engine.enqueue(0x1000, 0x2000, 5, STREAM)
    context.fails = ""
    engine.enqueue(0x1000, 0x2000, 5, STREAM)  # after a failure, everything is set again
    assert set(context.set) == {"image shape", "image", "logits"}


@pytest.mark.parametrize("fails", ["shape", "execute"])
def test_a_refused_batch_is_an_error(trt: Package, fails: str) -> None:
    engine = _open(trt)
    assert engine.can_be_captured(STREAM)
    trt.engine.contexts[0].fails = fails
    with pytest.raises(BackendUnavailable, match="TensorRT failed on a batch of 5: it gives no reason"):
        engine.enqueue(0x1000, 0x2000, 5, STREAM)
    trt.engine.contexts[0].fails = "capture"
    assert not engine.can_be_captured(STREAM)


def test_a_plan_that_the_runtime_calls_invalid(trt: Package) -> None:
    trt.validity, trt.diagnostics, trt.opens = Validity.INVALID, 3, False
    with pytest.raises(BackendUnavailable) as caught:
        _open(trt)
    assert str(caught.value) == (
        "TensorRT-RTX 1.7.1.116 refuses engine.plan: VERSION_MISMATCH, UNSUPPORTED_CC: The engine cannot run on this "
        "GPU; build it again here: samdeploy export --engine trt"
    )
    trt.opens = True  # it opens what it calls invalid: still no
    with pytest.raises(
        BackendUnavailable, match=r"refuses engine\.plan: VERSION_MISMATCH, UNSUPPORTED_CC: it gives no"
    ):
        _open(trt)


def test_a_plan_that_cannot_be_opened(trt: Package) -> None:
    trt.opens = False
    with pytest.raises(BackendUnavailable, match=r"refuses engine\.plan: The engine cannot run on this GPU; build it"):
        _open(trt)


def test_a_plan_with_other_tensors(trt: Package) -> None:
    other = model_spec("sam-resnet18", {"gate": "identity"}, ("cat", "dog"), Preprocessing(height=8, width=32))
    with pytest.raises(BundleError, match=r"engine.plan: .*logits float32 \[N, 3\] found, .*logits float32 \[N, 2\]"):
        TensorrtEngine(trt, b"plan", "engine.plan", other, RuntimeCache(trt, A4000, "ab"))


def test_no_memory_for_the_context(trt: Package) -> None:
    trt.full = True
    with pytest.raises(BackendUnavailable, match=r"no execution context can be made: .*use a smaller batch"):
        _open(trt)


def test_what_rtx_compiled_is_there_at_the_next_start(trt: Package) -> None:
    def kernels(plan_sha256: str = "ab") -> bytes:
        engine = _open(trt, plan_sha256)
        assert trt.engine.cache is not None
        loaded = trt.engine.cache.kernels
        engine.close()
        return loaded

    assert [kernels(), kernels(), kernels("cd"), kernels()] == [b"", b"compiled", b"", b"compiled"]
    trt.accepts_cache = False
    cache = RuntimeCache(trt, A4000, "ab")
    cache.execution_context(trt.engine)
    assert cache.note == "runtime cache ignored: TensorRT-RTX refuses it"


def test_tensorrt_itself_has_no_such_cache(tmp_path: Path) -> None:
    proper: Any = SimpleNamespace(__name__="tensorrt", __version__="11.4.0")
    cache = RuntimeCache(proper, A4000, "ab")
    engine = Engine(Package())
    assert isinstance(cache.execution_context(engine), Context)
    cache.keep()
    assert engine.cache is None
