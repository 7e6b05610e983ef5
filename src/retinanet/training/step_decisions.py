"""When a run saves, evaluates and ends: what its first process decides at each meeting, by numbers alone."""

from __future__ import annotations

import math
import sys
from collections import deque
from dataclasses import dataclass, field
from statistics import median

from retinanet.training.collectives import Decision
from retinanet.training.schedule import Plan

MEETING = 1.0  # seconds between meetings of several processes, about; a signal waits for the next one
MOST_STEPS = 50  # between two meetings
PACE = 9  # measurements of which the median is the time of a step: the first steps are slow
TRIAL_SHARE = 0.05  # of the time so far that trials of an evaluation may take, and of a budget between two of them
TRIALS = 3  # of which the median counts, or the last if it is slower: the machine may turn slower or faster
FEWEST_EVALUATIONS = 4  # in a budget, the last one included
SHARE = 0.15  # of a budget that evaluations may take, the last one aside


ANY = sys.maxsize  # an interval that nobody asked for


@dataclass
class Decider:
    """Knows the plan, the pace, and what happened when.

    With a budget the interval between evaluations follows the steps that fit into it, as measured: it gets shorter
    where the run would end with fewer than four evaluations, and longer where they would take too much of the time.
    With ``interval`` ANY it is a quarter of the steps, also where they are more than was planned.
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
    _tried: float | None = None
    """Seconds since the run began, when an evaluation or a trial of one ended."""
    _trial_seconds: float = 0.0
    _files: float = 0.0
    """Seconds of an evaluation that do not depend on the number of images."""
    _images: deque[float] = field(default_factory=lambda: deque(maxlen=TRIALS))
    _pace: deque[float] = field(default_factory=lambda: deque(maxlen=PACE))

    @property
    def step_seconds(self) -> float:
        """0 until it is measured."""
        return median(self._pace) if self._pace else 0.0

    def stepped(self, seconds: float) -> None:
        """A step took ``seconds``, on average since the last call."""
        self._pace.append(seconds)

    def trial_due(self, step: int, elapsed: float) -> bool:
        """Whether to time an evaluation by some images now: at first, at intervals, and before the training ends.

        What a budget keeps for the last evaluation follows a machine that turns slower or faster in this way.
        """
        if self.plan.budget is None or self.step_seconds <= 0:
            return False
        if self._tried is None:
            return True
        since, cost = elapsed - self._tried, self._trial_seconds
        if since >= max(cost / TRIAL_SHARE, TRIAL_SHARE * self.plan.budget):
            return True
        # What is kept may be far too much, above all where the first trial fell into a slow second.
        least = 4 * cost if since >= 4 * cost > 0 else math.inf
        if len(self._images) < TRIALS:
            least = min(least, 4 * TRIALS * cost)
        return self.plan.reserve - self.plan.writing > least and self.plan.over(step, elapsed, self.step_seconds)

    def tried(
        self, image: float, some: int, all_images: int, processes: int, elapsed: float = 0.0, took: float = 0.0
    ) -> None:
        """An image took ``image`` seconds in this process; evaluations take ``some`` images, the last one all.

        Args:
            elapsed: seconds since the run began, at the end of the trial. took: seconds of the whole trial.
        """
        self._images.append(image)
        self._tried, self._trial_seconds = elapsed, took
        usual = max(median(self._images), image)  # a machine that has just turned slower may stay so
        self.evaluation_seconds = usual * some / processes + self._files
        self.plan.keep(usual * all_images / processes + self._files, usual)

    def evaluation_took(
        self,
        seconds: float,
        images: int,
        all_images: int,
        processes: int,
        elapsed: float = 0.0,
        files: float = 0.0,
    ) -> None:
        """An evaluation of ``images`` images took ``seconds``, of these ``files`` for writing its files."""
        self._files = files
        self._images.clear()  # it says more than trials do
        image = (seconds - files) * processes / images
        self.tried(image, images, all_images, processes, elapsed, self._trial_seconds)

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
        return Decision(steps, save, evaluate, over, elapsed, pace, plan.reserve, expected)

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
