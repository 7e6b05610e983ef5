"""Callbacks: how progress bars, logs, early stopping and a user's own code attach to a training run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from retinanet.training.events import Ended, EvaluationDone, Event, StepDone

if TYPE_CHECKING:
    from retinanet.inference.detector import Detector
    from retinanet.model.retinanet import RetinaNet
    from retinanet.training.resume_state import Progress
    from retinanet.training.run_folder import RunFolder
    from retinanet.training.validation import Evaluation


class Run(Protocol):
    """The part of a :class:`retinanet.training.trainer.Trainer` that callbacks may use."""

    model: RetinaNet
    """The network that is trained."""
    detector: Detector
    """The detector that is evaluated and saved; it has the averaged weights if there are any."""
    progress: Progress
    folder: RunFolder
    evaluation: Evaluation | None
    """The last evaluation."""

    def finish_early(self, reason: str) -> None:
        """End the run after the current step as if its length were reached."""


class Callback:
    """Base class of callbacks. Override its methods, and give an instance to :func:`retinanet.train`.

    The methods are called in the first process only, and must not call collective operations. An exception in a method
    ends the run; its earlier saves stay.
    """

    def on_event(self, event: Event) -> None:
        """Called with every event (:mod:`retinanet.training.events`), before the other methods."""

    def on_step(self, trainer: Run, event: StepDone) -> None:
        """Called after each optimiser step, as soon as its losses are known."""

    def on_evaluation(self, trainer: Run, event: EvaluationDone) -> None:
        """Called after each evaluation, before the state of the run is saved."""

    def on_end(self, trainer: Run, event: Ended) -> None:
        """Called when the run is finished and its report is written."""


class EarlyStopping(Callback):
    """Ends a run after ``patience`` evaluations without a better AP."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluation(self, trainer: Run, event: EvaluationDone) -> None:
        if trainer.progress.evaluations_since_best >= self.patience:
            trainer.finish_early("patience")


class MetricsLog(Callback):
    """Writes metrics.csv and TensorBoard's files."""

    def on_step(self, trainer: Run, event: StepDone) -> None:
        trainer.folder.log(event.row())

    def on_evaluation(self, trainer: Run, event: EvaluationDone) -> None:
        trainer.folder.log(event.row())


def notify(callbacks: Iterable[Callback], event: Event, trainer: Run | None = None) -> None:
    """Call the methods of each callback that belong to the event."""
    for callback in callbacks:
        callback.on_event(event)
        if trainer is None:
            continue
        if isinstance(event, StepDone):
            callback.on_step(trainer, event)
        elif isinstance(event, EvaluationDone):
            callback.on_evaluation(trainer, event)
        elif isinstance(event, Ended):
            callback.on_end(trainer, event)
