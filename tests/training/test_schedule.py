"""Learning rates at exact steps, and when a run is over."""

from __future__ import annotations

import math

import pytest

from retinanet.config.settings import TrainSettings
from retinanet.training.schedule import Plan, lr_factor, scaled_lr


def rate(settings: TrainSettings, step: int, elapsed: float = 0.0, images: int = 1000) -> float:
    """Learning rate of the step after ``step`` done ones."""
    plan = Plan.of(settings, images)
    return scaled_lr(settings) * lr_factor(settings, step, plan.progress(step, elapsed))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.01 / 3),
        (250, 0.01 * 2 / 3),
        (499, 0.01 * (1 / 3 + 2 / 3 * 499 / 500)),
        (500, 0.01),
        (59_999, 0.01),
        (60_000, 0.001),
        (79_999, 0.001),
        (80_000, 0.0001),
        (89_999, 0.0001),
    ],
)
def test_the_papers_schedule(step: int, expected: float) -> None:
    """90 000 steps of 16 images, lr 0.01, a tenth at 60 000 and again at 80 000."""
    assert rate(TrainSettings(steps=90_000), step) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("batch", "base", "expected"), [(16, 16, 0.01), (2, 16, 0.00125), (64, 16, 0.04), (2, 0, 0.01)]
)
def test_rate_grows_with_the_batch(batch: int, base: int, expected: float) -> None:
    assert scaled_lr(TrainSettings(batch_size=batch, lr_batch=base)) == pytest.approx(expected)


def test_warmup_of_a_short_run_is_a_tenth_of_it() -> None:
    settings = TrainSettings(steps=100, schedule="constant", warmup_start=0.0)
    assert [rate(settings, step) for step in (0, 5, 9, 10, 99)] == pytest.approx([0, 0.005, 0.009, 0.01, 0.01])


def test_no_warmup() -> None:
    assert rate(TrainSettings(steps=100, schedule="constant", warmup=0), 0) == pytest.approx(0.01)


def test_cosine() -> None:
    settings = TrainSettings(steps=1000, schedule="cosine", warmup=10)
    for step in (100, 250, 500, 999):
        assert rate(settings, step) == pytest.approx(0.005 * (1 + math.cos(math.pi * step / 1000)))
    assert rate(settings, 1000) == pytest.approx(0, abs=1e-12)
    assert rate(settings, 0) == pytest.approx(0.01 / 3)


def test_milestones() -> None:
    settings = TrainSettings(steps=10, warmup=0, milestones=(0.2, 0.5, 0.5))
    rates = [rate(settings, step) for step in range(10)]
    assert rates == pytest.approx([0.01, 0.01] + [1e-3] * 3 + [1e-5] * 5)


def test_a_budget_follows_the_clock() -> None:
    """15 minutes with one kept for the evaluation: milestones at 2/3 and 8/9 of 14 minutes."""
    settings = TrainSettings(budget="15m", warmup=20)
    plan = Plan.of(settings, 1000)
    plan.reserve = 60.0

    def at(step: int, elapsed: float) -> float:
        return lr_factor(settings, step, plan.progress(step, elapsed))

    assert at(0, 0) == pytest.approx(1 / 3)
    assert at(10, 3) == pytest.approx(2 / 3)  # half of 20 steps
    assert at(1, 42) == pytest.approx(2 / 3)  # slow steps: half of a tenth of 840 s
    assert at(20, 3) == 1
    assert at(500, 559) == 1
    assert at(500, 560) == pytest.approx(0.1)
    assert at(900, 747) == pytest.approx(0.01)
    assert plan.progress(900, 5000) == 1.0


def test_length_of_a_run() -> None:
    assert Plan.of(TrainSettings(steps=7), 1000).steps == 7
    assert Plan.of(TrainSettings(epochs=2, batch_size=16), 1000).steps == 125
    assert Plan.of(TrainSettings(epochs=1, batch_size=16), 1001).steps == 63
    assert Plan.of(TrainSettings(epochs=0.001, batch_size=16), 5).steps == 1
    assert Plan.of(TrainSettings(epochs=0.1, batch_size=3), 90).steps == 3  # 0.1 * 90 is above 9 in floats
    assert Plan.of(TrainSettings(batch_size=16), 118_287).steps == 88_716  # 12 epochs of COCO, about the paper's 90k


def test_end_by_steps() -> None:
    plan = Plan.of(TrainSettings(steps=3), 10)
    assert [plan.over(step, 1e9) for step in range(5)] == [False, False, False, True, True]
    assert plan.seconds_left(1, 0, 2.0) == 4.0
    plan.reserve = 5.0
    assert plan.seconds_left(1, 0, 2.0) == 9.0
    assert plan.seconds_left(9, 0, 2.0) == 5.0


def test_end_by_the_clock() -> None:
    plan = Plan.of(TrainSettings(budget="90s"), 10)
    plan.reserve = 10.0
    assert plan.budget == 90
    assert not plan.over(5, 79.0, 1.0)
    assert plan.over(5, 79.5, 1.0)  # another second would reach into the evaluation's time
    assert plan.over(5, 85.0)
    assert not plan.over(0, 1000.0)  # one step at least
    assert plan.seconds_left(3, 30.0, 1.0) == 60
    assert plan.seconds_left(3, 100.0, 1.0) == 0
    plan.reserve = 200.0  # the evaluation alone takes longer than the budget
    assert plan.progress(1, 0.1) == 1.0
    assert plan.over(1, 0.1)
