"""An engine against itself: honest runtimes are consistent, and what an inconsistent one does is named."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from samdeploy.backends import availability, open_session
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle import Bundle
from samdeploy.bundle.manifest import BundleFile
from samdeploy.errors import BackendUnavailable, BundleError, InputError
from samdeploy.evaluate.consistency import questions
from samdeploy.evaluate.consistency import run as consistency
from samdeploy.evaluate.consistency.run import (
    TOLERANCE,
    check_consistency,
    different_pictures,
    larger_batches,
    largest_batch,
)
from tests.evaluate.faults import Faulty

NAMES = [
    *("kept answers", "equal images", "batch sizes", "positions", "shuffled order"),
    *("two sessions", "repeats", "two threads"),
]
# Where honest engines are, in FP32: two decades below what they are allowed.
HONEST_FP32 = 1e-6


class Linear:
    """A session that needs no runtime: one matrix; `spoil(batch, logits)` may change its answers."""

    backend, device, precision = "onnxruntime", "cpu", "fp32"

    def __init__(self, spoil: Callable[[np.ndarray, np.ndarray], np.ndarray] = lambda batch, logits: logits) -> None:
        self._spoil = spoil
        self._weights = np.random.default_rng(0).normal(size=(8 * 8 * 3, 10)).astype(np.float32)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self._spoil(batch, batch.reshape(len(batch), -1).astype(np.float32) @ self._weights)

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """uint8 [40, 8, 8, 3]"""
    return np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(params=["pytorch", "onnxruntime", "openvino"])
def session(request: pytest.FixtureRequest, digits_bundle: Bundle) -> Iterator[CheckedSession]:
    reason = availability(request.param)
    if reason:
        pytest.skip(reason)
    with open_session(digits_bundle, request.param, device="cpu") as opened:
        yield opened


def test_honest_engines_are_consistent(session: CheckedSession, digits_bundle: Bundle) -> None:
    """On the golden pictures alone: neither a data set nor, for the runtimes, PyTorch is needed."""
    pictures, _ = digits_bundle.golden()
    found = check_consistency(
        lambda: open_session(digits_bundle, session.backend, device="cpu"),
        session,
        pictures,
        max_batch=6,
        repeats_wanted=40,
    )
    assert [check.name for check in found.checks] == NAMES
    assert found.passed, found.checks
    assert max(check.worst for check in found.checks) < 10 * HONEST_FP32
    assert found.verdict.startswith(
        ("consistent: 8 checks, batch sizes 1-7, within ", "consistent: 8 checks, batch sizes 1-7, equal answers")
    )
    runs = {check.name: check.runs for check in found.checks}
    assert (runs["repeats"], runs["equal images"], runs["batch sizes"]) == (40, 6, 7 + 6 + 7)


def test_bf16_is_consistent_within_its_tolerance(digits_bundle: Bundle) -> None:
    def open_again() -> CheckedSession:
        return open_session(digits_bundle, "openvino", precision="bf16")

    try:
        session = open_again()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    with session:
        found = check_consistency(open_again, session, digits_bundle.golden()[0], max_batch=3, repeats_wanted=10)
    assert found.passed, found.checks
    assert max(check.worst for check in found.checks) < TOLERANCE["bf16"] / 3


@pytest.mark.parametrize("largest", [1, 2, 3, 5])
def test_small_profiles(images: np.ndarray, largest: int) -> None:
    seen = set()

    def watch(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        seen.add(len(batch))
        return logits

    found = check_consistency(Linear, Linear(watch), images, max_batch=largest, repeats_wanted=5)
    assert found.passed, found.checks
    assert seen == set(range(1, largest + 2))  # one beyond the profile: it is cut in pieces


@pytest.mark.parametrize(
    ("is_wrong", "text"),
    [
        (lambda batch: np.full(len(batch), len(batch) == 32), "wrong at batch size 32, in every row; worst at "),
        (lambda batch: np.full(len(batch), len(batch) > 50), "wrong at batch size 64, 128, in every row; worst at "),
        (lambda batch: np.arange(len(batch)) == 20, "wrong at batch size 24, 32, 64, 128, in 4 of 248 rows; worst at "),
        (lambda batch: np.arange(len(batch)) > 100, "wrong at batch size 128, in 27 of 128 rows; worst at "),
    ],
    ids=["one size", "all above 50", "row 20", "rows above 100"],
)
def test_wrong_in_large_batches_alone(images: np.ndarray, is_wrong: Callable[..., np.ndarray], text: str) -> None:
    def spoil(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return logits + np.where(is_wrong(batch)[:, None], np.float32(1e-2 * np.ptp(logits)), np.float32(0))

    found = check_consistency(lambda: Linear(spoil), Linear(spoil), images, large=(24, 32, 64, 128), repeats_wanted=5)
    assert [check.name for check in found.failures] == ["large batches"], found.checks
    assert found.failures[0].detail.startswith(text)
    assert found.batch_sizes == (*range(1, 18), 24, 32, 64, 128)


def test_batches_beyond_memory_are_not_asked() -> None:
    assert larger_batches(np.zeros((1, 32, 32, 3), np.uint8), 16) == (24, 32, 48, 64, 96, 128)
    assert larger_batches(np.zeros((1, 448, 448, 3), np.uint8), 16) == (24, 32, 48, 64)
    assert larger_batches(np.zeros((1, 32, 32, 3), np.uint8), 8) == ()


def test_every_size_and_position_is_asked(images: np.ndarray) -> None:
    """Counted where the engine stands: each position of the largest batch sees seven pictures."""
    shown: dict[int, set[bytes]] = {}

    def watch(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        for position, picture in enumerate(batch):
            shown.setdefault(position, set()).add(picture.tobytes())
        return logits

    examined = questions.Examined(Linear(watch), different_pictures(images, questions.pictures_for(16)), 16)
    probe = questions.sizes_and_positions(examined, math.inf)
    assert {row.size for row in probe.answers.departures().rows} == set(range(1, 18))
    assert min(len(shown[position]) for position in range(16)) >= 7


@pytest.mark.parametrize("size", [1, 2, 9, 15, 16, 17])
def test_a_batch_size_is_named(images: np.ndarray, size: int) -> None:
    def spoil(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return logits * np.float32(1.001) if len(batch) == size else logits

    found = check_consistency(lambda: Linear(spoil), Linear(spoil), images, repeats_wanted=5)
    (failed,) = found.failures
    assert failed.name == "batch sizes"
    assert failed.detail.startswith(f"wrong at batch size {size}, in every row; worst at batch size {size}, position ")
    assert 3e-4 < failed.worst < 2e-3
    assert found.verdict.startswith("NOT CONSISTENT: batch sizes: wrong at batch size")
    assert not found.passed and not found.to_json()["passed"]


@pytest.mark.parametrize("position", [1, 7, 14])
def test_a_position_is_named(images: np.ndarray, position: int) -> None:
    def spoil(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        logits[position : position + 1] *= np.float32(1.001)
        return logits

    found = check_consistency(lambda: Linear(spoil), Linear(spoil), images, repeats_wanted=5)
    failed = {check.name: check for check in found.failures}
    assert set(failed) == {"equal images", "positions", "shuffled order"}
    assert failed["positions"].detail.startswith(f"wrong at position {position}; worst at batch size ")
    assert failed["positions"].detail.endswith(f", position {position}")


def test_an_answer_that_is_written_again_is_wrong_however_little(images: np.ndarray) -> None:
    """No rounding excuses it: the last bit of the answer before is changed."""
    given: list[np.ndarray] = []

    def spoil(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        for before in given:
            before[:] = np.nextafter(before, np.inf, dtype=np.float32)
        given[:] = [logits]
        return logits

    found = check_consistency(Linear, Linear(spoil), images, repeats_wanted=5)
    assert [(check.name, check.allowed) for check in found.failures] == [("kept answers", 0.0)]
    assert 0 < found.failures[0].worst < 1e-6


def test_a_time_limit_leaves_checks_unfinished_and_says_which(images: np.ndarray, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Each run takes a second on a clock of its own; nothing that was left out counts as passed."""
    now = [0.0]
    monkeypatch.setattr(questions.time, "monotonic", lambda: now[0])

    def slow(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        now[0] += 1.0
        return logits

    found = check_consistency(Linear, Linear(slow), images, limit_s=30.0)
    assert not found.passed and not found.failures
    assert 30 <= found.seconds < 60  # a check ends with the run it is in
    left = {check.name: check.detail for check in found.unfinished}
    assert set(left) == set(NAMES) - {"kept answers", "two sessions"}  # the second session is not a slow one
    assert re.fullmatch(r"\d+ of 16 runs not made, of batch sizes [\d, -]+", left["equal images"])
    assert "of 200 repeats not made" in left["repeats"]
    assert found.verdict.startswith("not all tried: equal images: ")
    rows = {check["name"]: check["outcome"] for check in found.to_json()["checks"]}
    assert rows["kept answers"] == "passed" and rows["repeats"] == "not finished"


def test_a_fault_found_before_the_time_is_up_is_a_fault(images: np.ndarray) -> None:
    def spoil(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return logits * np.float32(np.nan if len(batch) == 16 else 1)

    found = check_consistency(Linear, Linear(spoil), images, limit_s=0.0)
    outcomes = {check.name: check.outcome for check in found.checks}
    # The first run of each check is made in any case; that of "equal images" is the largest batch.
    assert outcomes["equal images"] == outcomes["two threads"] == "failed"
    assert outcomes["batch sizes"] == outcomes["repeats"] == "not finished"
    (equal,) = (check for check in found.failures if check.name == "equal images")
    assert equal.worst == math.inf
    assert equal.detail.startswith("wrong at batch size 16, in every row; worst at batch size 16, position 0; 15 of 16")
    assert found.verdict.startswith("NOT CONSISTENT: ")


def test_the_ends_come_first() -> None:
    examined = questions.Examined(Linear(), np.zeros((0, 8, 8, 3), np.uint8), 16)
    assert examined.sizes()[:3] == [1, 16, 17]
    assert sorted(examined.sizes()) == list(range(1, 18))


def test_answers_that_do_not_tell_pictures_apart_prove_nothing(images: np.ndarray) -> None:
    def forget(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return np.tile(np.arange(10, dtype=np.float32), (len(batch), 1))

    found = check_consistency(lambda: Linear(forget), Linear(forget), images, repeats_wanted=5)
    assert not found.passed and not found.failures
    assert "the pictures' answers differ by 0.0e+00 of their range" in found.unfinished[0].detail


def test_a_second_session_that_cannot_be_opened(images: np.ndarray) -> None:
    def no_memory() -> Linear:
        raise BackendUnavailable("no memory for a second one")

    found = check_consistency(no_memory, Linear(), images, repeats_wanted=5)
    (check,) = found.unfinished
    assert (check.name, check.detail) == (
        "two sessions",
        "no second session could be opened: no memory for a second one",
    )

    def wrong() -> Linear:
        raise BundleError("the golden images give other logits")

    found = check_consistency(wrong, Linear(), images, repeats_wanted=5)
    (check,) = found.failures
    assert check.detail == "a second session cannot be opened: the golden images give other logits"


def test_second_sessions_are_closed(images: np.ndarray) -> None:
    closed = []

    class Counted(Faulty):
        def close(self) -> None:
            closed.append(self)

    check_consistency(lambda: Counted(Linear()), Linear(), images, repeats_wanted=5)
    assert len(closed) == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"max_batch": 0}, "max_batch 0 found, 1 or more"),
        ({"repeats_wanted": 0}, "repeats_wanted 0 found, 1 or more"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "no pictures found, at least 1 expected"),
    ],
)
def test_what_cannot_be_asked_is_refused(images: np.ndarray, change: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        check_consistency(Linear, Linear(), **{"images": images, **change})  # type: ignore[arg-type]


def test_json(images: np.ndarray) -> None:
    def spoil(batch: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return logits * np.float32(np.inf if len(batch) == 3 else 1)

    found = check_consistency(lambda: Linear(spoil), Linear(spoil), images, repeats_wanted=5)
    values = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert list(values) == ["passed", "batch_sizes", "bit_equal", "seconds", "checks"]
    assert list(values["checks"][0]) == ["name", "outcome", "worst", "allowed", "runs", "detail"]
    by_name = {check["name"]: check for check in values["checks"]}
    assert by_name["batch sizes"]["worst"] is None and by_name["batch sizes"]["outcome"] == "failed"
    assert by_name["repeats"] == by_name["repeats"] | {"outcome": "passed", "runs": 5, "detail": ""}
    assert by_name["batch sizes"]["detail"].startswith("wrong at batch size 3, in every row;")


# --- the pictures and the profile -------------------------------------------------------------------------------------


def test_few_pictures_become_many_different_ones(images: np.ndarray) -> None:
    made = different_pictures(images[:2], 34)
    assert made.shape == (34, 8, 8, 3) and made.dtype == np.uint8
    assert len({picture.tobytes() for picture in made}) == 34
    assert {picture.tobytes() for picture in images[:2]} <= {picture.tobytes() for picture in made}
    for picture in made:  # moved pixels only: no value that the picture did not have
        assert any(np.array_equal(np.sort(picture, axis=None), np.sort(other, axis=None)) for other in images[:2])


def test_many_pictures_are_spread_and_equal_ones_used_once(images: np.ndarray) -> None:
    np.testing.assert_array_equal(different_pictures(images, 3), images[[0, 20, 39]])
    doubled = np.repeat(images[:4], 2, axis=0)
    assert len({picture.tobytes() for picture in different_pictures(doubled, 8)}) == 8


def test_pictures_of_one_colour_are_repeated() -> None:
    assert different_pictures(np.full((1, 4, 4, 3), 7, np.uint8), 5).tolist() == [[[[7] * 3] * 4] * 4] * 5


def test_the_largest_batch_is_that_of_the_profile(digits_bundle: Bundle) -> None:
    assert largest_batch(digits_bundle, "onnxruntime", "fp32") == 16
    engine = BundleFile("engine", "a.plan", "0" * 64, 1, "tensorrt", "fp16", {"batch": "1,8,32"})
    bundle = dataclasses.replace(digits_bundle, files=(engine,))
    assert largest_batch(bundle, "tensorrt", "fp16") == 32
    assert largest_batch(bundle, "tensorrt", "fp32") == 16
    no_batch = dataclasses.replace(engine, built_for={})
    assert largest_batch(dataclasses.replace(bundle, files=(no_batch,)), "tensorrt", "fp16") == 16


def test_every_precision_has_a_tolerance() -> None:
    from samdeploy.bundle.spec import PRECISIONS

    assert set(TOLERANCE) == set(PRECISIONS)
    assert consistency.DEFAULT_MAX_BATCH == 16


def test_the_parts_that_judge_load_no_torch() -> None:
    for module in ("answers", "probes", "checks", "run"):
        text = (Path(consistency.__file__).parent / f"{module}.py").read_text()
        assert "torch" not in text.replace("PyTorch", "")
