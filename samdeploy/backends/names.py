"""Backends, devices and precisions: which there are, which go together, and the one place that refuses the others.

Imports no runtime, and neither numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from samdeploy.bundle.spec import DEVICES, PRECISIONS
from samdeploy.errors import BackendUnavailable, InputError, check_name


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """What is known of a backend without its runtime.

    Attributes:
        module: that keeps the promise of `samdeploy.backends.session.Backend`.
        extra: what ``pip install 'samdeploy[...]'`` must name to get the runtime.
        devices: where it can run.
        precisions: that it has on some machine; the first is what ``precision=None`` means.
        maps_in: precisions in which it computes class activation maps.
    """

    module: str
    extra: str
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    maps_in: tuple[str, ...] = ()


BACKENDS: Mapping[str, BackendFacts] = MappingProxyType(
    {
        "pytorch": BackendFacts("samdeploy.backends.pytorch", "train", ("cpu", "cuda"), ("fp32",), maps_in=("fp32",)),
        "onnxruntime": BackendFacts(
            "samdeploy.backends.onnxruntime.session",
            "onnxruntime",
            devices=("cpu", "cuda"),
            precisions=("fp32", "fp16", "int8"),
            maps_in=("fp32",),
        ),
        # OpenVINO applies bf16 to the FP32 graph of maps by itself; fp16 would need one that is scaled for it.
        "openvino": BackendFacts(
            "samdeploy.backends.openvino.session",
            "openvino",
            devices=("cpu",),
            precisions=("fp32", "bf16", "fp16", "int8"),
            maps_in=("fp32", "bf16"),
        ),
        # FP16 is what TensorRT is there for.
        "tensorrt": BackendFacts(
            "samdeploy.backends.tensorrt.session",
            "tensorrt",
            devices=("cuda",),
            precisions=("fp16", "fp32", "bf16", "int8"),
        ),
    }
)
# What "auto" tries, in this order: a GPU engine, then the CPU runtimes, then the reference.
PREFERENCE = ("tensorrt", "onnxruntime", "openvino", "pytorch")
MAP_BACKENDS = tuple(name for name in PREFERENCE if BACKENDS[name].maps_in)


def check_names(backend: str, device: str, precision: str | None, *, also: str | None = None) -> None:
    """Refuse names that do not exist.

    Args:
        precision: None is fine.
        also: another name that is valid for the backend, such as "auto" or "all".

    Raises:
        InputError: with the nearest names.
    """
    check_name("backend", backend, BACKENDS if also is None else (*BACKENDS, also))
    check_name("device", device, DEVICES)
    if precision is not None:
        check_name("precision", precision, PRECISIONS)


def check_supported(backend: str, device: str, precision: str, *, maps: bool = False) -> None:
    """Refuse what a backend never has, on no machine.

    Args:
        backend, device, precision: names that exist.
        maps: class activation maps are wanted.

    Raises:
        InputError: naming what it has instead.
        BackendUnavailable: it computes no maps at all.
    """
    facts = BACKENDS[backend]
    if maps and not facts.maps_in:
        raise BackendUnavailable(
            f"backend {backend!r} computes no class activation maps; use {', '.join(MAP_BACKENDS)}"
        )
    if device not in ("auto", *facts.devices):
        raise InputError(f"backend {backend!r} runs on {' and '.join(facts.devices)}, not on {device!r}")
    if precision not in facts.precisions:
        raise InputError(f"backend {backend!r} runs {', '.join(facts.precisions)}, not {precision!r}")
    if maps and precision not in facts.maps_in:
        raise InputError(
            f"backend {backend!r} computes class activation maps in {', '.join(facts.maps_in)}, not in {precision!r}"
        )
