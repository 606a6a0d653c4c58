"""Names, files and golden images: what `open_session` refuses, and in which words."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys

import numpy as np
import pytest

from samdeploy.backends import BACKENDS, availability, open_session
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, BundleError, InputError, WeightsError


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"backend": "onnx"}, "unknown backend 'onnx'; did you mean 'onnxruntime'"),
        ({"backend": "onnxruntime", "device": "gpu"}, "unknown device 'gpu'"),
        ({"backend": "onnxruntime", "precision": "half"}, "unknown precision 'half'"),
        ({"backend": "pytorch", "precision": "fp16"}, "backend 'pytorch' runs fp32, not 'fp16'"),
        ({"backend": "openvino", "device": "cuda"}, "backend 'openvino' runs on cpu, not on 'cuda'"),
        ({"backend": "tensorrt", "device": "cpu"}, "backend 'tensorrt' runs on cuda, not on 'cpu'"),
    ],
)
def test_wrong_names(digits_bundle: Bundle, arguments: dict[str, str], text: str) -> None:
    with pytest.raises(InputError) as caught:
        open_session(digits_bundle, **arguments)
    assert text in str(caught.value)


def test_availability_of_an_unknown_backend() -> None:
    with pytest.raises(InputError, match="did you mean 'tensorrt'"):
        availability("tensorr")


def test_a_missing_package_is_named_with_its_cure(digits_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "samdeploy.backends.openvino.session", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)  # Python's own way to say "not installed"
    cure = r"needs the package 'openvino', which is not installed; pip install 'samdeploy\[openvino\]'"
    with pytest.raises(BackendUnavailable, match=cure):
        open_session(digits_bundle, "openvino")
    assert "pip install" in str(availability("openvino"))


def test_another_models_golden_logits_are_found(with_file, digits_bundle: Bundle) -> None:  # type: ignore[no-untyped-def]
    _, logits = digits_bundle.golden()
    off = logits.copy()
    own = np.ptp(logits, axis=1)
    off[-1, -1] += 2e-4 * max(own[-1], np.median(own))
    bundle = with_file("golden_logits", _npy(off))
    with pytest.raises(BundleError, match=r"differ by (1\.9|2\.0)\de-04 of their range, at most 1e-04 is allowed"):
        open_session(bundle, "onnxruntime", device="cpu")
    open_session(bundle, "onnxruntime", device="cpu", check=False).close()


def test_logits_that_are_not_finite_are_found(digits_bundle: Bundle) -> None:
    from samdeploy.backends.golden import check_golden

    images, logits = digits_bundle.golden()

    class Overflowing:
        backend, device, precision = "tensorrt", "cuda", "fp16"

        def run(self, batch: np.ndarray) -> np.ndarray:
            return np.where(logits == logits.max(), np.float32(np.nan), logits)

        def close(self) -> None: ...

    with pytest.raises(BundleError, match=rf"1 of {logits.size} golden logits are not finite"):
        check_golden(Overflowing(), images, logits)


def test_a_missing_precision_lists_what_is_there(digits_bundle: Bundle) -> None:
    files = tuple(file for file in digits_bundle.files if (file.role, file.precision) != ("graph", "fp32"))
    bundle = dataclasses.replace(digits_bundle, files=files)
    with pytest.raises(BackendUnavailable, match=r"no graph in fp32 that onnxruntime can run \(found: fp16\)"):
        open_session(bundle, "onnxruntime")


def test_a_graph_of_another_model_is_refused(with_file, digits_bundle: Bundle) -> None:  # type: ignore[no-untyped-def]
    graph = digits_bundle.read(next(f for f in digits_bundle.files if (f.role, f.precision) == ("graph", "fp32")))
    spec = dataclasses.replace(
        digits_bundle.spec, input=dataclasses.replace(digits_bundle.spec.input, shape=("N", 48, 48, 3))
    )
    bundle = dataclasses.replace(with_file("graph", graph, precision="fp32"), spec=spec)
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(BundleError, match=r"image uint8 \[N, 32, 32, 3\].* found, image uint8 \[N, 48, 48, 3\]"):
            open_session(bundle, backend, device="cpu")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_damaged_graph_with_a_right_hash_is_refused(with_file, backend: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BackendUnavailable, match="graph"):
        open_session(with_file("graph", b"no graph at all", precision="fp32"), backend, device="cpu")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "pytorch"])
def test_a_changed_file_never_reaches_the_runtime(with_file, digits_bundle: Bundle, backend: str) -> None:  # type: ignore[no-untyped-def]
    role = "weights" if backend == "pytorch" else "graph"
    file = next(f for f in digits_bundle.files if f.role == role and f.precision in ("fp32", None))
    content = digits_bundle.read(file)
    bundle = with_file(role, content, precision=file.precision)
    changed = bytearray(content)
    changed[-1] ^= 1
    (bundle.root / f"{role}.bin").write_bytes(changed)
    with pytest.raises(BundleError, match="SHA-256"):
        open_session(bundle, backend, device="cpu")


def test_weights_that_are_no_weights(with_file) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(WeightsError, match="truncated, or not a safetensors file"):
        open_session(with_file("weights", b"no weights"), "pytorch")


def test_looking_at_the_backends_imports_no_runtime() -> None:
    code = (
        "import sys; before = {*sys.modules}; "  # packages may load a module in every process
        "import samdeploy.backends, samdeploy.backends.device.cuda as cuda; cuda.cuda_devices(); "
        "runtimes = 'torch onnxruntime openvino tensorrt tensorrt_rtx cuda'.split(); "
        "print([name for name in runtimes if name in {*sys.modules} - before])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert list(BACKENDS) == ["pytorch", "onnxruntime", "openvino", "tensorrt"]
