"""The learning rate during a run, and when the run is over: functions of steps and seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from retinanet.config.settings import TrainSettings, seconds

WRITING = 5.0  # seconds to write the last files of a run, but at most 5 % of the budget
REPORT_IMAGES = 40  # the report takes about as long as the evaluation of so many images
SLACK = 1.3  # a machine may become slower, and a trained detector gives more detections
LONGEST_EMA = 0.9998
EMA_SPAN = 5  # the average covers about the last fifth of the run
DEFAULT_EPOCHS = 12.0  # the paper's 90k steps of 16 images are 12.2 epochs of COCO's 118k images


def scaled_lr(settings: TrainSettings) -> float:
    """The full learning rate. ``lr`` is meant for ``lr_batch`` images a step, and scales linearly with the batch."""
    return settings.lr * (settings.batch_size / settings.lr_batch if settings.lr_batch else 1.0)


def lr_factor(settings: TrainSettings, step: int, progress: float) -> float:
    """The learning rate as a fraction of the full one.

    Warm-up is linear. It ends after ``warmup`` steps or a tenth of the run, whichever comes first.

    Args:
        step: number of steps done. progress: the fraction of the run that is done, in [0, 1].
    """
    warm = max(step / settings.warmup if settings.warmup > 0 else 1.0, progress / 0.1)
    start = settings.warmup_start
    factor = start + (1 - start) * warm if warm < 1 else 1.0
    if settings.schedule == "steps":
        return factor * 0.1 ** sum(progress >= milestone for milestone in settings.milestones)
    if settings.schedule == "cosine":
        return factor * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return factor


def interval(eval_every: float, images: int, batch: int) -> int:
    """Steps in ``eval_every`` epochs of ``images`` images; at least 1."""
    return max(1, round(eval_every * images / batch))


def ema_decay(steps: float) -> float:
    """A decay for the moving average of the weights that suits a run of so many steps."""
    return min(LONGEST_EMA, float(f"{1 - EMA_SPAN / max(steps, 2 * EMA_SPAN):.3g}"))


@dataclass
class Plan:
    """The length of a run: a number of steps, or a budget of wall-clock time."""

    steps: int | None
    budget: float | None = None
    """Seconds, with the final evaluation and the report."""
    reserve: float = 0.0
    """Seconds of the budget for the final evaluation and the report."""
    begun: float = 0.0
    """Seconds spent before the first step, to open the data and to choose settings."""
    report: bool = False

    @classmethod
    def of(cls, settings: TrainSettings, images: int) -> Plan:
        """The plan that ``settings`` give for a training set of ``images`` images."""
        if settings.budget is not None:
            plan = cls(None, seconds(settings.budget, "train.budget"), report=settings.report)
            plan.set_reserve(0.0, 0.0)
            return plan
        if settings.steps is not None:
            return cls(settings.steps)
        epochs = DEFAULT_EPOCHS if settings.epochs is None else settings.epochs
        return cls(max(1, math.ceil(epochs * images / settings.batch_size - 1e-9)))

    @property
    def writing(self) -> float:
        """Seconds of the budget that are reserved for writing files."""
        return min(WRITING, 0.05 * self.budget) if self.budget is not None else 0.0

    def set_reserve(self, evaluation: float, image: float) -> None:
        """Set ``reserve`` from measured times.

        Args:
            evaluation: seconds for an evaluation of all images.
            image: seconds for one image in one process. The report evaluates some images again.
        """
        report = REPORT_IMAGES * image if self.report else 0.0
        self.reserve = SLACK * (evaluation + report) + self.writing

    def progress(self, step: int, elapsed: float) -> float:
        """The fraction of the training that is done after ``step`` steps and ``elapsed`` seconds, in [0, 1]."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.budget is not None
        whole = self.budget - self.reserve - self.begun
        return min(1.0, max(0.0, (elapsed - self.begun) / max(1e-9, whole)))

    def over(self, step: int, elapsed: float, step_seconds: float = 0.0) -> bool:
        """Whether training ends now. A budget ends it when another step of ``step_seconds`` would not fit."""
        if self.steps is not None:
            return step >= self.steps
        assert self.budget is not None
        return step > 0 and elapsed + step_seconds > self.budget - self.reserve

    def expected(self, step: int, elapsed: float, step_seconds: float) -> float:
        """The number of steps that the whole run will have; 0 while that is unknown."""
        if self.steps is not None:
            return self.steps
        assert self.budget is not None
        if step_seconds <= 0:
            return 0.0
        return step + max(0.0, self.budget - self.reserve - elapsed) / step_seconds

    def seconds_left(self, step: int, elapsed: float, step_seconds: float) -> float:
        """The estimated seconds until the run is finished, with the final evaluation."""
        if self.steps is not None:
            return max(0, self.steps - step) * step_seconds + self.reserve
        assert self.budget is not None
        return max(0.0, self.budget - elapsed)
