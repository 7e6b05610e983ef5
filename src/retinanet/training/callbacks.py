"""How progress bars, logs, early stopping and code of the user's attach to a training run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from retinanet.training.events import Ended, EvaluationDone, Event, StepDone

if TYPE_CHECKING:
    from retinanet.inference.detector import Detector
    from retinanet.model.retinanet import RetinaNet
    from retinanet.training.resume_state import Progress
    from retinanet.training.run_folder import RunFolder
    from retinanet.training.validation import Measured


class Run(Protocol):
    """What callbacks see of a :class:`retinanet.training.trainer.Trainer`."""

    model: RetinaNet
    """The network that is trained."""
    detector: Detector
    """What is evaluated and saved: of the averaged weights, where there are some."""
    progress: Progress
    folder: RunFolder
    measured: Measured | None
    """The last evaluation."""

    def finish_early(self, reason: str) -> None:
        """End the run after the current step as if its length were reached."""


class Callback:
    """Subclass it, override some of its methods, and give an instance to :func:`retinanet.train`.

    Its methods are called in the first process only. They must not call collective operations. An exception in one
    ends the run; what was saved before stays.
    """

    def on_event(self, event: Event) -> None:
        """Called with every event (:mod:`retinanet.training.events`), before the methods below."""

    def on_step(self, trainer: Run, event: StepDone) -> None:
        """Called after each optimiser step, as soon as its losses are known."""

    def on_evaluation(self, trainer: Run, event: EvaluationDone) -> None:
        """Called after each evaluation, before the state of the run is saved."""

    def on_end(self, trainer: Run, event: Ended) -> None:
        """Called once the run is finished and its report is written."""


class EarlyStopping(Callback):
    """Ends a run after ``patience`` evaluations without a better AP."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluation(self, trainer: Run, event: EvaluationDone) -> None:
        if trainer.progress.evaluations_since_best >= self.patience:
            trainer.finish_early("patience")


class MetricsLog(Callback):
    """Writes metrics.csv and the files of TensorBoard."""

    def on_step(self, trainer: Run, event: StepDone) -> None:
        trainer.folder.log(event.row())

    def on_evaluation(self, trainer: Run, event: EvaluationDone) -> None:
        trainer.folder.log(event.row())


def notify(callbacks: Iterable[Callback], event: Event, trainer: Run | None = None) -> None:
    """Call what each callback has for the event."""
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
