"""One form for each kind of number, and one word for each verdict."""

from __future__ import annotations

import math

import pytest

from samdeploy.terminal import wording
from samdeploy.terminal.wording import VERDICTS, engine_name, engine_outcome


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("count", 1797, "1,797"),
        ("percent", 97.5, "97.50"),
        ("percent", 100.0, "100.00"),
        ("floored", 99.986, "99.9"),
        ("points", 0.2785, "+0.28"),
        ("points", -1.2, "-1.20"),
        ("points", -0.001, "0.00"),
        ("points", 0.0, "0.00"),
        ("milliseconds", 0.3714, "0.371"),
        ("milliseconds", 5.394, "5.39"),
        ("milliseconds", 26.94, "26.9"),
        ("milliseconds", 12345.6, "12,346"),
        ("rate", 85.25, "85.2"),
        ("rate", 1303.4, "1,303"),
        ("ratio", 1.126, "1.13"),
        ("ratio", 23.46, "23.5"),
        ("ratio", 303.6, "304"),
        ("difference", 9.4e-7, "9.4e-07"),
        ("difference", 0.0, "0"),
        ("difference", math.inf, "not finite"),
        ("difference", math.nan, "not finite"),
        ("difference", None, "not finite"),
        ("magnitude", 4.07, "4.070"),
        ("magnitude", 65504.0, "6.550e+04"),
        ("magnitude", math.inf, "not finite"),
        ("bits", 13.84, "13.8"),
        ("correlation", 0.99984, "0.9998"),
        ("p_value", 0.0174, "0.017"),
        ("p_value", 1e-12, "<0.001"),
        ("megabytes", 47_512_345, "47.5"),
    ],
)
def test_numbers(kind: str, value: float | None, text: str) -> None:
    assert getattr(wording, kind)(value) == text


@pytest.mark.parametrize("kind", ["count", "percent", "points", "milliseconds", "rate", "bits", "correlation"])
def test_what_was_not_measured_is_a_dash(kind: str) -> None:
    assert getattr(wording, kind)(None) == "-"


@pytest.mark.parametrize(
    ("ran", "verdict", "passed", "word"),
    [
        (False, None, False, "not run"),
        (True, None, False, "stopped"),
        (True, "holds", True, "passed"),
        (True, "holds", False, "failed"),  # by another promise than the gate
        (True, "fails", False, "failed"),
        (True, "cannot tell", False, "inconclusive"),
    ],
)
def test_outcome_of_an_engine(ran: bool, verdict: str | None, passed: bool, word: str) -> None:
    assert engine_outcome(ran=ran, verdict=verdict, passed=passed).word == word


def test_a_span_is_written_as_its_ends_are() -> None:
    assert wording.span(-2.64, 0.0, wording.points) == "-2.64 to 0.00"
    assert wording.span(None, None, wording.points) == "-"


def test_outcomes_can_be_told_apart_without_colour() -> None:
    assert len({(found.word, found.sign) for found in VERDICTS.values()}) == 3
    assert len({found.sign for found in VERDICTS.values()}) == 3


def test_engine_names() -> None:
    assert engine_name("openvino", "int8") == engine_name("openvino", "int8", "cpu") == "openvino int8"
    assert engine_name("tensorrt", "fp16", "cuda") == "tensorrt fp16 (cuda)"
