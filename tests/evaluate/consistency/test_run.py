"""An engine against itself: honest runtimes are consistent; what could not be tried is no success."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from samdeploy.backends import availability, open_session
from samdeploy.backends.session import CheckedSession
from samdeploy.bundle import Bundle
from samdeploy.errors import BackendUnavailable, BundleError, InputError
from samdeploy.evaluate.consistency import questions
from samdeploy.evaluate.consistency import run as consistency
from samdeploy.evaluate.consistency.run import TOLERANCE, check_consistency
from tests.evaluate.consistency.linear import Linear, images
from tests.evaluate.faults import Faulty

__all__ = ["images"]

NAMES = [
    *("kept answers", "equal images", "batch sizes", "positions", "shuffled order"),
    *("two sessions", "repeats", "two threads"),
]
# Where honest engines are, in FP32: two decades below what they are allowed.
HONEST_FP32 = 1e-6


@pytest.fixture(params=["pytorch", "onnxruntime", "openvino"])
def session(request: pytest.FixtureRequest, digits_bundle: Bundle) -> Iterator[CheckedSession]:
    reason = availability(request.param)
    if reason:
        pytest.skip(reason)
    with open_session(digits_bundle, request.param, device="cpu") as opened:
        yield opened


def test_honest_engines_are_consistent(session: CheckedSession, digits_bundle: Bundle) -> None:
    """On the golden images alone: neither a data set nor, for the runtimes, PyTorch is needed."""
    examples, _ = digits_bundle.golden()
    found = check_consistency(
        lambda: open_session(digits_bundle, session.backend, device="cpu"),
        session,
        examples,
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
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "no images found, at least 1 expected"),
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


def test_every_precision_has_a_tolerance() -> None:
    from samdeploy.bundle.spec import PRECISIONS

    assert set(TOLERANCE) == set(PRECISIONS)
    assert consistency.DEFAULT_MAX_BATCH == 16


def test_the_parts_that_judge_load_no_torch() -> None:
    for module in ("answers", "probes", "checks", "run"):
        text = (Path(consistency.__file__).parent / f"{module}.py").read_text()
        assert "torch" not in text.replace("PyTorch", "")
