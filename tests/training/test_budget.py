"""A budget on a machine whose speed changes, by numbers alone; and what a run says about it at its end."""

from __future__ import annotations

import pytest

from retinanet.config.settings import TrainSettings
from retinanet.terminal.run_ending import budget_lines
from retinanet.training.schedule import Plan, ema_decay
from retinanet.training.step_decisions import ADAPTED, Decider

IMAGES = 60


def simulate(
    budget: float, slow: float, until: float, *, step: float = 2.0, image: float = 0.1
) -> tuple[Decider, int, int, float]:
    """A run on a machine ``slow`` times slower for ``until`` seconds: decider, steps, evaluations, seconds in all."""
    run = Decider(Plan.of(TrainSettings(budget=f"{budget:g}s"), 1000), 300.0, ADAPTED, False)
    elapsed, steps, evaluations = 0.0, 0, 0

    def factor() -> float:
        return slow if elapsed < until else 1.0

    while True:
        while run.trial_due(steps, elapsed):
            source = image * factor()
            elapsed += 5 * source
            run.timed(source, IMAGES, IMAGES, 1, elapsed, 5 * source)
        decision = run.decide(steps, elapsed)
        if decision.evaluate:
            took = image * factor() * IMAGES
            elapsed += took
            run.evaluation_took(took, IMAGES, IMAGES, 1, elapsed)
            run.last_evaluation, evaluations = steps, evaluations + 1
            continue
        if decision.over:
            return run, steps, evaluations, elapsed + image * factor() * IMAGES
        took = step * factor()
        steps, elapsed = steps + 1, elapsed + took
        run.stepped(took)


@pytest.mark.parametrize("budget", [120.0, 600.0])
def test_a_budget_begun_in_a_slow_minute_is_used(budget):
    run, steps, _, end = simulate(budget, 4.0, 0.25 * budget)
    assert 0.8 * budget < end <= budget
    quick, most, _, _ = simulate(budget, 1.0, 0.0)
    assert steps > 0.6 * most
    assert run.plan.reserve < 1.5 * quick.plan.reserve
    assert run.decide(steps, end).expected >= steps


def test_one_slow_step_and_trial_do_not_end_a_run():
    _, steps, _, end = simulate(90.0, 8.0, 17.0)
    assert steps > 15
    assert 70 < end <= 90


def test_a_machine_that_turns_slower_keeps_more():
    run, _, _, _ = simulate(600.0, 0.25, 200.0)  # four times faster at first
    late, _, _, end = simulate(600.0, 1.0, 0.0)
    assert run.plan.reserve == pytest.approx(late.plan.reserve, rel=0.5)
    assert end <= 600


def test_an_interval_that_nobody_asked_for_follows_more_steps_than_planned():
    _, steps, evaluations, _ = simulate(1200.0, 4.0, 300.0)
    assert steps > 300
    assert 2 <= evaluations <= 5


def test_trials_take_little():
    run = Decider(Plan.of(TrainSettings(budget="100s"), 1000), 300.0, 0, False)
    assert not run.trial_due(0, 1.0), "the time of a step is not known"
    run.stepped(1.0)
    assert run.trial_due(1, 2.0)
    run.timed(0.1, 100, 100, 1, 4.0, 2.0)
    assert not run.trial_due(3, 6.0)
    assert run.trial_due(30, 45.0)
    assert not Decider(Plan.of(TrainSettings(steps=9), 1000), 300.0, 0, False, _pace=run._pace).trial_due(1, 9.0)


def test_the_average_reaches_over_a_fifth_of_any_run():
    assert ema_decay(5) == 0.5
    assert 1 / (1 - ema_decay(1000)) == pytest.approx(200)
    assert ema_decay(1e9) < 1


def test_the_end_says_how_much_was_used_and_why():
    summary = {"budget": 120.0, "seconds": 83.0, "reserved": 40.0, "evaluation": 3.0, "stopped": "finished"}
    (line,) = budget_lines(summary)
    assert all(part in line for part in ("69%", "0:40", "0:03"))
    assert "patience" in budget_lines({**summary, "stopped": "patience"})[0]
    assert "0:40" not in budget_lines({**summary, "seconds": 115.0})[0]
    assert budget_lines({**summary, "budget": None}) == []
