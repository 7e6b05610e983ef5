"""Callbacks: how progress bars, logs, early stopping and a user's own code attach to a training run.

A run calls ``on_start``, then ``on_step`` and ``on_evaluation``, and ``on_end`` if it gets to its end. It calls
``on_close`` last, also when it was interrupted or failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.training.events import Ended, EvaluationDone, Event, Started, StepDone

if TYPE_CHECKING:
    from retinanet.config.settings import Settings
    from retinanet.data import DetectionData
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
    settings: Settings
    data: DetectionData
    """The training set."""
    val: DetectionData
    """The validation set."""
    progress: Progress
    """Steps and seconds so far, and the best evaluation."""
    folder: RunFolder
    evaluation: Evaluation | None
    """The last evaluation."""

    def finish_early(self, reason: str) -> None:
        """End the run after the current step as if its length were reached."""

    def notify(self, event: Event) -> None:
        """Report an event to all callbacks, such as a :class:`retinanet.training.events.Problem`."""


class Callback:
    """Base class of callbacks. Override its methods, and give an instance to :func:`retinanet.train`.

    The methods are called in the first process only, and must not call collective operations. An exception in a method
    ends the run; its earlier saves stay.
    """

    def on_event(self, event: Event) -> None:
        """Called with every event (:mod:`retinanet.training.events`), before the other methods."""

    def on_start(self, trainer: Run, event: Started) -> None:
        """Called before the first step, of a resumed run too. The run folder exists."""

    def on_step(self, trainer: Run, event: StepDone) -> None:
        """Called after each optimiser step, as soon as its losses are known."""

    def on_evaluation(self, trainer: Run, event: EvaluationDone) -> None:
        """Called after each evaluation, before the state of the run is saved."""

    def on_end(self, trainer: Run, event: Ended) -> None:
        """Called when the run is finished and its report is written."""

    def on_close(self, error: BaseException | None) -> None:
        """Called once at the very end, whatever happened: the place to close files and connections.

        Args:
            error: what ended the run: :class:`retinanet.training.signals.Stopped` after Ctrl-C or SIGTERM, or the
                error with which it failed, perhaps before ``on_start``. None for a run that is finished.
        """


class EarlyStopping(Callback):
    """Ends a run after ``patience`` evaluations without a better AP."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluation(self, trainer: Run, event: EvaluationDone) -> None:
        if trainer.progress.evaluations_since_best >= self.patience:
            trainer.finish_early("patience")


class MetricsLog(Callback):
    """Writes metrics.csv."""

    def on_step(self, trainer: Run, event: StepDone) -> None:
        trainer.folder.log(event.row())

    def on_evaluation(self, trainer: Run, event: EvaluationDone) -> None:
        trainer.folder.log(event.row())


def require_callbacks(callbacks: Any) -> None:
    """
    Raises:
        RequestError: it is no list of callbacks.
    """
    if not isinstance(callbacks, list | tuple):
        raise RequestError(f"callbacks= must be a list of Callback objects, not {shown(callbacks)}")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            hint = ": make one of the class" if isinstance(callback, type) and issubclass(callback, Callback) else ""
            raise RequestError(f"callbacks= must hold objects of subclasses of Callback, not {shown(callback)}{hint}")


def notify(callbacks: Iterable[Callback], event: Event, trainer: Run | None = None) -> None:
    """Call the methods of each callback that belong to the event."""
    for callback in callbacks:
        callback.on_event(event)
        if trainer is None:
            continue
        if isinstance(event, Started):
            callback.on_start(trainer, event)
        elif isinstance(event, StepDone):
            callback.on_step(trainer, event)
        elif isinstance(event, EvaluationDone):
            callback.on_evaluation(trainer, event)
        elif isinstance(event, Ended):
            callback.on_end(trainer, event)


@contextmanager
def closing(callbacks: Sequence[Callback]) -> Iterator[None]:
    """A block after which ``on_close`` of each callback is called, of the last one first.

    If one fails, the others are called all the same. Its error ends the run, unless the run failed before.
    """
    try:
        yield
    except BaseException as error:
        for problem in _close(callbacks, error):
            error.add_note(f"to close a callback failed too: {type(problem).__name__}: {problem}")
        raise
    for problem in _close(callbacks, None):
        raise problem


def _close(callbacks: Sequence[Callback], ended_by: BaseException | None) -> list[Exception]:
    problems = []
    for callback in reversed(callbacks):
        try:
            callback.on_close(ended_by)
        except Exception as error:
            problems.append(error)
    return problems
