"""The learning rate over a run, and when a run is over: plain functions of steps and seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from retinanet.config.settings import TrainSettings, seconds

WRITING = 5.0  # seconds that the last files of a run take, about; of a short budget a twentieth
REPORT_IMAGES = 40  # images that could be evaluated in the time that the report takes
SLACK = 1.3  # a machine may become slower, and a trained detector has more detections to sort
LONGEST_EMA = 0.9998
EMA_SPAN = 5  # the average of the weights reaches over a fifth of the run
DEFAULT_EPOCHS = 12.0  # the paper's 90k steps of 16 images are 12.2 epochs of COCO's 118k images


def scaled_lr(settings: TrainSettings) -> float:
    """The full learning rate: ``lr`` is meant for ``lr_batch`` images a step and grows linearly with them."""
    return settings.lr * (settings.batch_size / settings.lr_batch if settings.lr_batch else 1.0)


def lr_factor(settings: TrainSettings, step: int, progress: float) -> float:
    """Learning rate in units of the full one, for the step after ``step`` done ones at ``progress`` in [0, 1].

    Warm-up is linear and ends after ``warmup`` steps or a tenth of the run, whichever comes first.
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
    """Steps between evaluations that are ``eval_every`` epochs of ``images`` images apart."""
    return max(1, round(eval_every * images / batch))


def ema_decay(steps: float) -> float:
    """Decay of the running average of the weights that suits a run of so many steps."""
    return min(LONGEST_EMA, float(f"{1 - EMA_SPAN / max(steps, 2 * EMA_SPAN):.3g}"))


@dataclass
class Plan:
    """How long a run is: a number of steps, or a wall-clock budget with the final evaluation and the report inside it.

    ``reserve`` is the time in seconds kept for these two. ``begun`` is how much of the budget was gone before the first
    step: opening a large data set takes its time.
    """

    steps: int | None
    budget: float | None = None
    reserve: float = 0.0
    begun: float = 0.0
    report: bool = False

    @classmethod
    def of(cls, settings: TrainSettings, images: int) -> Plan:
        """The plan of ``settings`` for a training set of ``images`` images."""
        if settings.budget is not None:
            plan = cls(None, seconds(settings.budget, "train.budget"), report=settings.report)
            plan.keep(0.0, 0.0)
            return plan
        if settings.steps is not None:
            return cls(settings.steps)
        epochs = DEFAULT_EPOCHS if settings.epochs is None else settings.epochs
        return cls(max(1, math.ceil(epochs * images / settings.batch_size - 1e-9)))

    @property
    def writing(self) -> float:
        """Seconds of a budget that are kept for writing files."""
        return min(WRITING, 0.05 * self.budget) if self.budget is not None else 0.0

    def keep(self, evaluation: float, image: float) -> None:
        """Set ``reserve`` by what was measured.

        Args:
            evaluation: seconds that an evaluation of all images takes.
            image: seconds that it takes for one image in one process; the report evaluates some once more.
        """
        report = REPORT_IMAGES * image if self.report else 0.0
        self.reserve = SLACK * (evaluation + report) + self.writing

    def progress(self, step: int, elapsed: float) -> float:
        """Share of the training that is done, in [0, 1], after ``step`` steps and ``elapsed`` seconds."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.budget is not None
        whole = self.budget - self.reserve - self.begun
        return min(1.0, max(0.0, (elapsed - self.begun) / max(1e-9, whole)))

    def over(self, step: int, elapsed: float, step_seconds: float = 0.0) -> bool:
        """Whether training ends now; with a budget, when another step of ``step_seconds`` would not fit any more."""
        if self.steps is not None:
            return step >= self.steps
        assert self.budget is not None
        return step > 0 and elapsed + step_seconds > self.budget - self.reserve

    def expected(self, step: int, elapsed: float, step_seconds: float) -> float:
        """Steps that the run will have in all; 0 where that cannot be told yet."""
        if self.steps is not None:
            return self.steps
        assert self.budget is not None
        if step_seconds <= 0:
            return 0.0
        return step + max(0.0, self.budget - self.reserve - elapsed) / step_seconds

    def seconds_left(self, step: int, elapsed: float, step_seconds: float) -> float:
        """Estimate of the time until the run is finished, final evaluation included."""
        if self.steps is not None:
            return max(0, self.steps - step) * step_seconds + self.reserve
        assert self.budget is not None
        return max(0.0, self.budget - elapsed)
