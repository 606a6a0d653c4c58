"""Places on a plot: round values, inside the frame, in the right order."""

from __future__ import annotations

import numpy as np
import pytest

from samdeploy.report.plots import Range, headroom_plot, range_plot, risk_plot, sweep_plot
from samdeploy.report.records import BatchRate, EngineRates, HeadroomRecord, TensorRoom
from samdeploy.report.scale import Scale, even_scale, log_scale


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (-1.3, 1.3, "−1 −0.5 0 0.5 1"),  # noqa: RUF001
        (0.0, 100.0, "0 20 40 60 80 100"),
        (0.0, 2_600_000.0, "0 500,000 1,000,000 1,500,000 2,000,000 2,500,000"),
        (0.012, 0.051, "0.02 0.03 0.04 0.05"),
    ],
)
def test_even_ticks_are_round(low: float, high: float, texts: str) -> None:
    found = Scale(low, high, 8, 332).ticks()
    assert " ".join(tick.text for tick in found) == texts
    first = float(texts.split()[0].replace("−", "-"))  # noqa: RUF001
    assert found[0].at == pytest.approx(8 + 324 * (first - low) / (high - low), abs=0.01)


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [(1.0, 60.0, "1 2 5 10 20 50"), (35.0, 70.0, "40 50 60 70"), (0.01, 9000.0, "0.01 0.1 1 10 100 1,000")],
)
def test_log_ticks_are_round(low: float, high: float, texts: str) -> None:
    assert " ".join(tick.text for tick in Scale(low, high, 8, 332, log=True).ticks()) == texts


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_values_all_lies_inside(seed: int) -> None:
    order = np.random.default_rng(seed)
    centre, width = 10.0 ** order.uniform(-3, 5), 10.0 ** order.uniform(-4, 3)
    for scale in (even_scale([centre - width, centre + width], 8, 332), log_scale([centre, centre + width], 8, 332)):
        ticks = scale.ticks()
        assert 1 <= len(ticks) <= 6
        assert all(8 <= tick.at <= 332 for tick in ticks)
        assert len({tick.text for tick in ticks}) == len(ticks)


def test_values_that_are_all_the_same_have_a_plot() -> None:
    for log in (False, True):
        plot = range_plot([Range("a", "1", 1.0, 1.0, 1.0)], axis="x", description="d", log=log)
        assert plot.rows[0].low == plot.rows[0].point == plot.rows[0].high == pytest.approx(170, abs=1)


def test_a_range_and_the_margin() -> None:
    rows = [Range("a", "", -1.0, -0.5, 0.0), Range("b", "", -0.2, 0.1, 0.4, inner=(0.1, 0.2))]
    plot = range_plot(rows, axis="points", description="d", lines=((0.0, "no change"), (-0.5, "margin")))
    first, second = plot.rows
    zero, margin = (line.at for line in plot.lines)
    assert first.low < first.point == margin < first.high == zero < second.point < second.high
    assert second.inner is not None and second.point == second.inner[0] < second.inner[1] < second.high
    assert plot.top < first.y < second.y < plot.bottom < plot.height


def test_the_sweep_rises_with_the_rate() -> None:
    points = tuple(BatchRate(size, rate, 1.0) for size, rate in ((1, 100.0), (2, 150.0), (64, 120.0)))
    plot = sweep_plot([EngineRates("a", "fp32", "cpu", points), EngineRates("b", "fp32", "cpu", points[:1])])
    (one, two, last), (only,) = plot.series[0].points, plot.series[1].points
    assert only == one
    assert one[0] < two[0] < last[0] and two[1] < last[1] < one[1] < plot.bottom  # upwards is a smaller y
    # Equal factors are equal distances: 64 is six doublings, 2 is one.
    assert (last[0] - one[0]) / (two[0] - one[0]) == pytest.approx(6, rel=1e-2)
    assert [tick.text for tick in plot.ticks] == ["1", "2", "64"]
    # From zero on, or differences would look larger than they are.
    assert (plot.side_ticks[0].text, plot.side_ticks[0].at) == ("0", plot.bottom)
    assert plot.series[0].marker != plot.series[1].marker


def test_head_room_below_the_end_hangs_down() -> None:
    rooms = [TensorRoom("stem", 8.0), TensorRoom("layer1.0.conv1", 2.0), TensorRoom("layer2.0.conv1", -1.5)]
    plot = headroom_plot(HeadroomRecord(128, 100.0, {}, tuple(rooms)))
    assert [bar.kind for bar in plot.bars] == ["good", "open", "bad"]
    high, low, hanging = plot.bars
    assert high.y < low.y < plot.zero == hanging.y
    assert high.y + high.height == low.y + low.height == pytest.approx(plot.zero)
    assert hanging.y + hanging.height <= plot.bottom
    assert [stage.text for stage in plot.stages] == ["layer1", "layer2"]
    assert "the least is -1.5 at layer2.0.conv1" in plot.description


def test_risk_is_drawn_over_coverage_with_the_threshold() -> None:
    risk = ((50.0, 0.0), (100.0, 8.0))
    plot = risk_plot([("a fp32", risk), ("b int8", risk)], (75.0, 4.0))
    (low_x, low_y), (high_x, high_y) = plot.series[0].points
    (across,), (along,) = plot.across, plot.along
    assert across.at == pytest.approx((low_x + high_x) / 2, abs=0.01)
    assert along.at == pytest.approx((low_y + high_y) / 2, abs=0.01)
    assert low_y == plot.bottom and high_x == plot.right and plot.top < high_y < along.at
    assert [series.name for series in plot.series] == ["a fp32", "b int8"]
    without = risk_plot([("a", ((100.0, 0.0),))], None)
    assert (without.across, without.along) == ((), ())  # and no error is no division by zero
