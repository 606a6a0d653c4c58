"""What every `Session` promises, checked in the same way for each backend."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from samdeploy.backends import BACKENDS, availability, open_session
from samdeploy.backends.device.cuda import cuda_devices
from samdeploy.backends.golden import GOLDEN_TOLERANCE
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle import Bundle
from samdeploy.errors import InputError

_DEVICES, _WHY = cuda_devices()
_GPU = (pytest.mark.gpu, pytest.mark.skipif(not _DEVICES, reason=f"no CUDA device: {_WHY}"))
_CASES = [pytest.param(name, marks=_GPU if name == "tensorrt" else ()) for name in BACKENDS]

# One engine on one machine gives the same logits for a row, whatever stands beside it, but for the order of sums,
# which may change with the batch size.
_ROW_TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3}


@pytest.fixture(scope="module", params=_CASES)
def session(request: pytest.FixtureRequest, digits_bundle: Bundle) -> Iterator[CheckedSession]:
    reason = availability(request.param)
    if reason:
        pytest.skip(reason)
    bundle = request.getfixturevalue("engine_bundle") if request.param == "tensorrt" else digits_bundle
    with open_session(bundle, request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def images(digits_bundle: Bundle) -> np.ndarray:
    """uint8 [7, H, W, 3]"""
    height, width = digits_bundle.spec.preprocessing.height, digits_bundle.spec.preprocessing.width
    return np.random.default_rng(7).integers(0, 256, (7, height, width, 3), dtype=np.uint8)


def test_names_are_set(session: CheckedSession) -> None:
    assert session.backend in BACKENDS
    assert session.device in ("cpu", "cuda")
    assert session.precision == ("fp16" if session.backend == "tensorrt" else "fp32")


@pytest.mark.parametrize("count", [1, 2, 7])
def test_logits_are_float32_writable_and_the_same_rows_for_every_batch(
    session: CheckedSession, images: np.ndarray, count: int, digits_bundle: Bundle
) -> None:
    logits = session.run(images[:count])
    assert logits.dtype == np.float32
    assert logits.shape == (count, len(digits_bundle.spec.classes))
    assert logits.flags.writeable and logits.flags.c_contiguous
    alone = np.concatenate([session.run(images[i : i + 1]) for i in range(count)])
    tolerance = _ROW_TOLERANCE[session.precision] * np.ptp(alone)
    np.testing.assert_allclose(logits, alone, rtol=0, atol=tolerance)


def test_logits_belong_to_the_caller(session: CheckedSession, images: np.ndarray) -> None:
    first = session.run(images[:2])
    kept = first.copy()
    second = session.run(images[2:4])
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kept)
    first[:] = -1
    np.testing.assert_array_equal(session.run(images[2:4]), second)


def test_the_batch_is_not_changed_and_may_be_read_only_or_strided(session: CheckedSession, images: np.ndarray) -> None:
    frozen = images.copy()
    frozen.flags.writeable = False
    expected = session.run(frozen)
    np.testing.assert_array_equal(frozen, images)
    mirrored_twice = np.ascontiguousarray(images[:, :, ::-1])[:, :, ::-1]
    assert not mirrored_twice.flags.c_contiguous
    np.testing.assert_array_equal(session.run(mirrored_twice), expected)


def test_golden_logits_are_met(session: CheckedSession, digits_bundle: Bundle) -> None:
    images, logits = digits_bundle.golden()
    allowed = GOLDEN_TOLERANCE[session.precision] * np.ptp(logits)
    np.testing.assert_allclose(session.run(images), logits, rtol=0, atol=allowed)


def test_threads_may_share_a_session(session: CheckedSession, images: np.ndarray) -> None:
    alone = [session.run(images[i : i + 2]) for i in range(5)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: session.run(images[i % 5 : i % 5 + 2]), range(20)))
    for i, logits in enumerate(together):
        np.testing.assert_allclose(logits, alone[i % 5], rtol=0, atol=1e-5 * float(np.ptp(alone[i % 5])))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda x: x.astype(np.float32), r"float32 \[7, 32, 32, 3\] found"),
        (lambda x: x[0], r"uint8 \[32, 32, 3\] found"),
        (lambda x: x.transpose(0, 3, 1, 2), r"uint8 \[7, 3, 32, 32\] found"),
        (lambda x: x[:, :31], r"uint8 \[7, 31, 32, 3\] found"),
        (lambda x: x[:0], r"uint8 \[0, 32, 32, 3\] found"),
        (lambda x: x.tolist(), "list found"),
    ],
)
def test_a_wrong_batch_is_refused(session: CheckedSession, images: np.ndarray, change, found: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=f"batch: {found}.*" + r"uint8 \[N, 32, 32, 3\] with N >= 1 is expected"):
        session.run(change(images))


@pytest.mark.parametrize("backend", _CASES)
def test_a_closed_session_says_so(backend: str, request: pytest.FixtureRequest, images: np.ndarray) -> None:
    reason = availability(backend)
    if reason:
        pytest.skip(reason)
    bundle = request.getfixturevalue("engine_bundle" if backend == "tensorrt" else "digits_bundle")
    session = open_session(bundle, backend, check=False)
    session.run(images)
    session.close()
    session.close()
    with pytest.raises(InputError, match=f"this {backend} session is closed"):
        session.run(images)
