"""What all loggers of experiments have in common: what they log, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from retinanet.common.errors import WorkError, first_line
from retinanet.config.convert import dotted, to_plain
from retinanet.training.callbacks import Callback, Run
from retinanet.training.events import Ended, EvaluationDone, Event, Problem, Started, StepDone

STEP_VALUES = ("class_loss", "box_loss", "lr", "images_per_second")


class RunLogger(Callback, ABC):
    """Logs losses and learning rate of each step, COCO's numbers of each evaluation, settings and images.

    A service that cannot be started ends the run before its first step. If it fails later, the run goes on without it.
    """

    name: ClassVar[str]
    """As messages write it."""
    package: ClassVar[str]
    """The package to import."""
    help: ClassVar[str] = ""
    """What to do if the service cannot be started."""

    def __init__(self) -> None:
        self._open = False
        self._notify: Callable[[Event], None] = lambda event: None

    def require_usable(self) -> None:
        """Called before any work of the run; the package is installed.

        Raises:
            RequestError: the service cannot be used as it is set up.
        """

    @abstractmethod
    def open(self, run: Run, settings: Mapping[str, Any]) -> None:
        """Start logging, or go on with the log of a resumed run.

        Args:
            settings: by their dotted names, with "data", "classes" and "run_folder".
        """

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers, such as "train/class_loss" and "val/AP"."""

    @abstractmethod
    def end(self, step: int, summary: Mapping[str, Any], images: Path) -> None:
        """Log the run's result and its validation images, when it is finished."""

    @abstractmethod
    def close(self, error: BaseException | None) -> None:
        """Write what is buffered, and mark the run as finished or ended by ``error``, as :meth:`on_close`."""

    def on_start(self, trainer: Run, event: Started) -> None:
        settings: dict[str, Any] = dotted(to_plain(trainer.settings))
        about = {
            "data": str(trainer.data.root),
            "classes": list(trainer.data.class_names),
            "run_folder": str(trainer.folder.path.resolve()),
        }
        try:
            self.open(trainer, settings | about)
        except Exception as error:
            self._abandon(error)
            raise WorkError(
                f"{self.name} could not be started: {first_line(error).rstrip('.')}; {self.help}"
            ) from error
        self._open, self._notify = True, trainer.notify

    def on_step(self, trainer: Run, event: StepDone) -> None:
        row = event.row()
        values = {f"train/{name}": row[name] for name in STEP_VALUES} | {"epoch": event.epoch}
        self._guarded(lambda: self.scalars(event.step, values))

    def on_evaluation(self, trainer: Run, event: EvaluationDone) -> None:
        # COCO's -1 says that there is no object of this size.
        values = {f"val/{name}": value for name, value in event.metrics.items() if value >= 0}
        self._guarded(lambda: self.scalars(event.step, values | {"epoch": event.epoch}))

    def on_end(self, trainer: Run, event: Ended) -> None:
        summary = {name: event.summary[name] for name in ("stopped", "steps", "seconds", "best_AP", "best_step")}
        images = trainer.folder.path / "validation.png"
        self._guarded(lambda: self.end(trainer.progress.step, summary, images))

    def on_close(self, error: BaseException | None) -> None:
        if not self._open:
            return
        self._open = False
        try:
            self.close(error)
        except Exception as problem:
            self._report(problem, "the end of its log is missing")

    def _guarded(self, action: Callable[[], None]) -> None:
        """Run ``action``; if it fails, report that and log no more."""
        if not self._open:
            return
        try:
            action()
        except Exception as error:
            self._open = False
            self._abandon(error)
            self._report(error, "and logs no more")

    def _abandon(self, error: Exception) -> None:
        """Release the threads and processes of a service that failed."""
        with suppress(Exception):
            self.close(error)

    def _report(self, error: Exception, result: str) -> None:
        self._notify(Problem(f"{self.name} failed ({first_line(error)}), {result}; metrics.csv has every number"))
