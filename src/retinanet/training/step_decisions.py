"""When a run saves, evaluates and ends: plain arithmetic, done by the first process."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from retinanet.config.settings import TrainSettings, seconds
from retinanet.training.collectives import Decision
from retinanet.training.schedule import REPORT_IMAGES, Plan, interval

SYNC_SECONDS = 1.0  # seconds between two points at which the processes synchronise; a signal waits for the next one
MOST_STEPS = 50  # between two such points
PACE = 9  # the time of a step is the median of so many measurements, because the first steps are slow
TRIAL_SHARE = 0.05  # of the elapsed time, the most that trials take; of a budget, the least between two trials
TRIALS = 3  # the median of so many counts, or the last one if it is slower
FEWEST_EVALUATIONS = 4  # with a budget, the last one included
EVALUATION_SHARE = 0.15  # of a budget that evaluations may take, without the last one

ADAPTED = sys.maxsize
"""An evaluation interval that the user did not set: the decider adapts it to the budget."""


@dataclass(slots=True)
class Decider:
    """Decides from the plan, the measured times, and the last save and evaluation.

    A budget must keep time for the last evaluation. How long that takes is estimated by trials, which evaluate a few
    images. A budget also changes the interval between evaluations: it gets shorter if the run would have fewer than
    four evaluations, and longer if they would take too much of the time. The interval ``ADAPTED`` is a quarter of the
    steps that fit.
    """

    plan: Plan
    save_every: float
    """Seconds."""
    interval: int
    """Steps between evaluations; 0 evaluates only at the end."""
    several: bool
    """Whether there are several processes. To synchronise takes time, so they do it only every few steps."""
    last_evaluation: int = 0
    """Step of the last evaluation."""
    last_save: float = 0.0
    """Seconds since the run began, at the last save."""
    evaluation_seconds: float = 0.0
    """Seconds of an evaluation during training; 0 until it is measured."""
    _timed_at: float | None = None
    """Seconds since the run began, at the end of the last evaluation or trial."""
    _trial_seconds: float = 0.0
    _writing: float = 0.0
    """Seconds of an evaluation that do not depend on the number of images."""
    _image_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=TRIALS))
    _pace: deque[float] = field(default_factory=lambda: deque(maxlen=PACE))

    @classmethod
    def of(cls, plan: Plan, train: TrainSettings, images: int, chosen: Mapping[str, Any], several: bool) -> Decider:
        """The decider of a run.

        Args:
            images: number of training images.
            chosen: the settings that were chosen for the user, by their names.
        """
        steps = interval(train.eval_every, images, train.batch_size) if train.eval_every > 0 else 0
        if steps and plan.budget is not None and chosen.get("train.eval_every") == train.eval_every:
            steps = ADAPTED
        return cls(plan, seconds(train.save_every), steps, several)

    @property
    def step_seconds(self) -> float:
        """Seconds of a step; 0 until it is measured."""
        return median(self._pace) if self._pace else 0.0

    def stepped(self, seconds: float) -> None:
        """Record that each step since the last call took ``seconds`` on average."""
        self._pace.append(seconds)

    def report_is_brief(self, images: float, elapsed: float) -> bool:
        """Whether the rest of the budget is too short for a whole report.

        Args:
            images: how many a process evaluated in the last evaluation.
        """
        if self.plan.budget is None:
            return False
        return self.plan.budget - elapsed < REPORT_IMAGES * self.evaluation_seconds / images

    def trial_due(self, step: int, elapsed: float) -> bool:
        """Whether to time a few images now: at first, at intervals, and before the training ends.

        A machine may become slower or faster. By these trials the reserve for the last evaluation follows it.
        """
        if self.plan.budget is None or self.step_seconds <= 0:
            return False
        if self._timed_at is None:
            return True
        since, cost = elapsed - self._timed_at, self._trial_seconds
        if since >= max(cost / TRIAL_SHARE, TRIAL_SHARE * self.plan.budget):
            return True
        # The reserve may be far too large, for example if the first trial was slow. Before the training ends, another
        # trial is worth its time if the reserve is several times as long.
        worth_measuring = 4 * cost if since >= 4 * cost > 0 else math.inf
        if len(self._image_seconds) < TRIALS:
            worth_measuring = min(worth_measuring, 4 * TRIALS * cost)
        return self.plan.reserve - self.plan.writing > worth_measuring and self.plan.over(
            step, elapsed, self.step_seconds
        )

    def timed(
        self, image_seconds: float, subset: int, total: int, processes: int, elapsed: float = 0.0, took: float = 0.0
    ) -> None:
        """Record the result of a trial.

        Args:
            image_seconds: seconds for one image in one process.
            subset: images of an evaluation during training. total: images of the last evaluation.
            elapsed: seconds since the run began, at the end of the trial. took: seconds of the whole trial.
        """
        self._image_seconds.append(image_seconds)
        self._timed_at, self._trial_seconds = elapsed, took
        assumed_seconds = max(
            median(self._image_seconds), image_seconds
        )  # a machine that has become slower may stay slow
        self.evaluation_seconds = assumed_seconds * subset / processes + self._writing
        self.plan.set_reserve(assumed_seconds * total / processes + self._writing, assumed_seconds)

    def evaluation_took(
        self,
        seconds: float,
        images: int,
        total: int,
        processes: int,
        elapsed: float = 0.0,
        writing: float = 0.0,
    ) -> None:
        """Record that an evaluation of ``images`` images took ``seconds``, of these ``writing`` for its files."""
        self._writing = writing
        self._image_seconds.clear()  # an evaluation is a better measurement than a trial
        self.timed((seconds - writing) * processes / images, images, total, processes, elapsed, self._trial_seconds)

    def decide(self, step: int, elapsed: float) -> Decision:
        """The decision after ``step`` steps and ``elapsed`` seconds."""
        plan, pace = self.plan, self.step_seconds
        expected = plan.expected(step, elapsed, pace)
        interval = self._interval(expected)
        over = plan.over(step, elapsed, pace)
        due = interval > 0 and step - self.last_evaluation >= interval
        # With a budget, an evaluation takes time from the training: skip it shortly before the last one.
        evaluate = due and not over and not plan.over(step, elapsed + 4 * plan.reserve, pace)
        save = not over and not evaluate and elapsed - self.last_save > self.save_every
        steps = self._steps(step, elapsed, interval)
        return Decision(steps, save, evaluate, over, elapsed, pace, plan.reserve, expected)

    def _interval(self, expected: float) -> int:
        """Steps between evaluations in a run of ``expected`` steps."""
        if self.plan.budget is None or self.interval == 0 or self.step_seconds <= 0:
            return self.interval
        longest = max(1, math.floor(expected / FEWEST_EVALUATIONS))
        shortest = math.ceil(self.evaluation_seconds * (1 / EVALUATION_SHARE - 1) / self.step_seconds)
        return max(min(self.interval, longest), shortest)

    def _steps(self, step: int, elapsed: float, interval: int) -> int:
        """Steps until the processes synchronise again: never beyond the next evaluation, save or end."""
        if not self.several or self.step_seconds <= 0:
            return 1
        limits = [MOST_STEPS, min(SYNC_SECONDS, self.save_every) / self.step_seconds]
        if self.plan.steps is not None:
            limits.append(self.plan.steps - step)
        elif self.plan.budget is not None:
            limits.append((self.plan.budget - self.plan.reserve - elapsed) / self.step_seconds)
        if interval > 0 and step < self.last_evaluation + interval:
            limits.append(self.last_evaluation + interval - step)
        return max(1, math.floor(min(limits)))
