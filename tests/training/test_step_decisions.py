"""When a run saves, evaluates and ends, by numbers alone: no device, no clock."""

from __future__ import annotations

import pytest

from retinanet.config.settings import TrainSettings
from retinanet.training.collectives import Decision
from retinanet.training.ema import Ema
from retinanet.training.schedule import Plan, lr_factor
from retinanet.training.step_decisions import Decider


def decider(interval: int = 0, save_every: float = 300.0, several: bool = False, **settings: object) -> Decider:
    return Decider(
        Plan.of(TrainSettings(**settings), 1000),  # type: ignore[arg-type]
        save_every,
        interval,
        several,
    )


def simulate(decider: Decider, step_seconds: float, evaluation: float, read_every: int = 1) -> list[tuple[int, str]]:
    """What happens in a run whose steps and evaluations take so long; times are measured as on a GPU, now and then."""
    step, elapsed, happened, last_read = 0, 0.0, [], 0
    timed = False
    while True:
        if not timed and decider.step_seconds > 0:
            elapsed += evaluation / 20
            decider.timed(evaluation / 100, 100, 100, 1)
            timed = True
        decision = decider.decide(step, elapsed)
        if decision.evaluate:
            happened.append((step, "evaluate"))
            elapsed += evaluation
            decider.evaluation_took(evaluation, 100, 100, 1)
            decider.last_evaluation = step
            continue
        if decision.save:
            happened.append((step, "save"))
            decider.last_save = elapsed
        if decision.over:
            return [*happened, (step, f"over after {elapsed + evaluation:.0f} s")]
        step += decision.steps
        elapsed += decision.steps * step_seconds
        if step - last_read >= (read_every if decider.step_seconds > 0 else 3):
            decider.stepped(step_seconds)
            last_read = step


@pytest.mark.parametrize("read_every", [1, 20])
@pytest.mark.parametrize("step_seconds", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("report", [True, False])
def test_a_budget_holds_the_last_evaluation(read_every: int, step_seconds: float, report: bool) -> None:
    """Losses are read every 20 steps on a GPU; the time of a step is unknown before, not nothing."""
    run = decider(budget="3m", report=report)
    end = simulate(run, step_seconds, 44.0, read_every)[-1][1]
    assert 44 < run.plan.reserve < 100
    assert 100 < float(end.split()[-2]) <= 180


def test_nothing_is_known_before_it_is_measured() -> None:
    run = decider(budget="3m")
    first = run.decide(0, 10.0)
    assert (first.step_seconds, first.over) == (0, False)
    assert 0 < first.reserve < 0.1 * 180
    for seconds in (30.0, 1.0, 1.0):  # the first step is slow: it says nothing about the others
        run.stepped(seconds)
    assert run.decide(3, 42.0).step_seconds == 1.0


def test_evaluations_of_a_run_by_steps_are_at_multiples() -> None:
    assert simulate(decider(10, steps=35), 1.0, 5.0) == [
        (10, "evaluate"),
        (20, "evaluate"),
        (30, "evaluate"),
        (35, "over after 55 s"),
    ]
    late = decider(10, steps=35)
    late.last_evaluation = 20  # resumed after step 25
    assert [late.decide(step, 0.0).evaluate for step in (25, 29, 30, 35)] == [False, False, True, False]


def test_fewer_steps_than_planned_still_have_evaluations() -> None:
    """One epoch is 400 steps; on a machine so slow that some 150 come, three evaluations are made all the same."""
    run = simulate(decider(400, budget="10m"), 3.5, 8.0)
    assert 2 <= [what for _, what in run].count("evaluate") <= 4
    assert float(run[-1][1].split()[-2]) <= 600
    # Where they would eat the budget they are fewer than asked for.
    costly = simulate(decider(4, budget="10m"), 1.0, 60.0)
    assert 60 * [what for _, what in costly].count("evaluate") <= 0.15 * 600 + 60
    assert float(costly[-1][1].split()[-2]) <= 600
    none = simulate(decider(0, budget="10m"), 3.5, 8.0)
    assert "evaluate" not in [what for _, what in none], "eval_every 0 evaluates at the end alone"


def test_the_schedule_follows_the_time_where_steps_are_fewer() -> None:
    """Warm-up ends after a tenth of the time, the learning rate falls, and the average forgets its start."""
    import torch

    settings = TrainSettings(budget="10m", warmup=500, schedule="cosine")
    run = decider(budget="10m")
    factors = [
        lr_factor(settings, step, run.plan.progress(step, elapsed)) for step, elapsed in ((0, 0), (9, 90), (59, 594))
    ]
    assert factors[0] == pytest.approx(1 / 3)
    assert factors[1] > 0.9
    assert factors[2] < 0.01
    net = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(1.0)
        average = Ema(net, 0.998)  # meant for 2500 steps
        net.weight.fill_(0.0)
        for step in range(60):
            average.update(net, step)
    assert float(average.model.weight) < 1e-3


def test_meetings_of_several_processes() -> None:
    run = decider(40, several=True, steps=1000)
    assert run.decide(0, 0.0).steps == 1, "the time of a step is not known yet"
    run.stepped(0.1)
    assert [run.decide(step, 0.1 * step).steps for step in (1, 35, 39)] == [10, 5, 1]
    run.last_evaluation = 960
    assert [run.decide(step, 100.0).steps for step in (985, 995, 999)] == [10, 5, 1]
    assert decider(several=False, steps=1000).decide(5, 0.0).steps == 1
    often = decider(several=True, save_every=0.3, steps=1000)
    often.stepped(0.1)
    assert often.decide(1, 0.0).steps == 2, "saves are not late by more than they are apart"
    budget = decider(several=True, budget="100s", report=False)
    budget.stepped(0.1)
    budget.timed(0.1, 10, 10, 1)
    left = 100 - budget.plan.reserve
    assert budget.decide(900, left - 0.35).steps == 3
    assert budget.decide(903, left - 0.05).over


def test_saves_on_the_clock() -> None:
    run = decider(save_every=10.0, steps=30)
    assert [step for step, what in simulate(run, 1.0, 0.0) if what == "save"] == [11, 22]


def test_a_decision_is_numbers() -> None:
    """It travels as one vector."""
    assert {type(value) for value in vars(Decision()).values()} <= {int, float, bool}
