"""When a run saves, evaluates and ends: what its first process decides at each meeting, by numbers alone."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median

from retinanet.training.agreement import Decision
from retinanet.training.schedule import Plan

MEETING = 1.0  # seconds between meetings of several processes, about; a signal waits for the next one
MOST_STEPS = 50  # between two meetings
PACE = 9  # measurements of which the median is the time of a step: the first steps are slow
FEWEST_EVALUATIONS = 4  # in a budget, the last one included
SHARE = 0.15  # of a budget that evaluations may take, the last one aside


@dataclass
class Decider:
    """Knows the plan, the pace, and what happened when.

    With a budget the interval between evaluations follows the steps that fit into it, as measured: it gets shorter
    where the run would end with fewer than four evaluations, and longer where they would take too much of the time.
    """

    plan: Plan
    save_every: float
    """Seconds."""
    interval: int
    """Steps between evaluations; 0: none but the last."""
    several: bool
    """Whether there are several processes, for which to meet takes time."""
    evaluated: int = 0
    """Step of the last evaluation."""
    saved: float = 0.0
    """Seconds since the run began, at the last save."""
    evaluation_seconds: float = 0.0
    """Of an evaluation while training; 0: not measured yet."""
    _pace: deque[float] = field(default_factory=lambda: deque(maxlen=PACE))

    @property
    def step_seconds(self) -> float:
        """0 until it is measured."""
        return median(self._pace) if self._pace else 0.0

    def stepped(self, seconds: float) -> None:
        """A step took ``seconds``, on average since the last call."""
        self._pace.append(seconds)

    def tried(self, picture: float, some: int, all_pictures: int, processes: int) -> None:
        """An image took ``picture`` seconds in this process; evaluations take ``some`` images, the last one all."""
        self.evaluation_seconds = picture * some / processes
        self.plan.keep(picture * all_pictures / processes, picture)

    def evaluation_took(self, seconds: float, pictures: int, all_pictures: int, processes: int) -> None:
        """An evaluation of ``pictures`` images took ``seconds``, its files included."""
        self.evaluation_seconds = seconds
        self.plan.keep(seconds * all_pictures / pictures, seconds * processes / pictures)

    def decide(self, step: int, elapsed: float) -> Decision:
        """What to do after ``step`` steps and ``elapsed`` seconds."""
        plan, pace = self.plan, self.step_seconds
        expected = plan.expected(step, elapsed, pace)
        interval = self._interval(expected)
        over = plan.over(step, elapsed, pace)
        due = interval > 0 and step - self.evaluated >= interval
        # With a budget an evaluation takes its time from the training: none shortly before the last one.
        evaluate = due and not over and not plan.over(step, elapsed + 4 * plan.reserve, pace)
        save = not over and not evaluate and elapsed - self.saved > self.save_every
        steps = self._steps(step, elapsed, interval)
        return Decision(steps, save, evaluate, over, elapsed, pace, plan.reserve)

    def _interval(self, expected: float) -> int:
        if self.plan.budget is None or self.interval == 0 or self.step_seconds <= 0:
            return self.interval
        few = max(1, math.floor(expected / FEWEST_EVALUATIONS))
        costly = math.ceil(self.evaluation_seconds * (1 / SHARE - 1) / self.step_seconds)
        return max(min(self.interval, few), costly)

    def _steps(self, step: int, elapsed: float, interval: int) -> int:
        if not self.several or self.step_seconds <= 0:
            return 1
        limits = [MOST_STEPS, min(MEETING, self.save_every) / self.step_seconds]
        if self.plan.steps is not None:
            limits.append(self.plan.steps - step)
        elif self.plan.budget is not None:
            limits.append((self.plan.budget - self.plan.reserve - elapsed) / self.step_seconds)
        if interval > 0 and step < self.evaluated + interval:
            limits.append(self.evaluated + interval - step)
        return max(1, math.floor(min(limits)))
