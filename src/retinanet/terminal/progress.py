"""Progress of long work: a live bar in a terminal, or a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from retinanet.common.printable import NAME, listed, printable, setting_text
from retinanet.terminal.console import Output, clock, number
from retinanet.training import events
from retinanet.training.callbacks import Callback

if TYPE_CHECKING:
    from retinanet.analysis.doctor import Finding
    from retinanet.training.initial_weights import Kept

EVERY = 10.0  # seconds between plain lines
FINDINGS = 5  # faults of the data that are shown before training
TENSORS, CLASSES = 4, 10  # names of a checkpoint's tensors and classes in a line; run.json has all
MB = 10**6
PATIENCE = 2.0  # seconds before a count is shown as plain lines


class Progress(Callback):
    """Shows the events of :func:`retinanet.training.trainer.train`, and counts of other work.

    Use it in a ``with`` block. At its end the bar is removed, so that later text starts on a new line.
    """

    def __init__(self, output: Output, every: float = EVERY) -> None:
        self.output = output
        self.every = every
        self.live = output.progress.is_terminal and not output.silent
        self._shown = -float("inf")  # time of the last plain line
        self._ap: float | None = None
        self._task: Any = None
        self._counts: dict[str, Any] = {}
        self._starts: dict[str, float] = {}
        if self.live:
            from rich.progress import BarColumn, TextColumn
            from rich.progress import Progress as Bars

            self._bars = Bars(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=14),
                TextColumn("{task.percentage:3.0f}%"),
                TextColumn("{task.fields[text]}", markup=False),
                console=output.progress,
                transient=True,
            )

    def __enter__(self) -> Self:
        if self.live:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.live:
            self._bars.stop()

    def on_event(self, event: events.Event) -> None:
        """Show one event of a training run."""
        match event:
            case events.CheckingImages(done, total):
                self.count("checking", done, total)
            case events.ComparingImages(done, total):
                self.count("comparing", done, total)
            case events.DataOpened(data, val):
                self._end_count("comparing")
                self._end_count("checking")
                self.output.data(data)
                self.output.data(val, label_map=False)
            case events.FittingSettings():
                self.output.note("choosing settings for the data and this machine: takes some seconds")
            case events.Downloading(name, done, total):
                self.count(f"downloading {name}", done // MB, max(1, (total or 0) // MB), "MB")
            case events.StartChosen(text):
                self.output.note(f"start: {text}")
            case events.SettingsFitted(choices):
                for choice in choices:
                    self.output.note(f"  {choice.setting} {setting_text(choice.value)}: {choice.reason}")
            case events.AnchorsCover(lost=str(lost)):
                self.output.note(f"warning: {lost}")
            case events.WeightsKept(kept):
                self.output.note(*kept_lines(kept))
            case events.DataExamined(findings):
                self._findings(findings)
            case events.NothingToDo(summary):
                self.output.note(
                    f"the run in {summary['output']} is finished, and nothing was changed; to train longer than "
                    f"{summary['steps']} steps or {clock(summary['seconds'])}, give --steps or --budget"
                )
            case events.Problem(text):
                self.output.note(f"warning: {text}")
            case events.Started():
                self._start(event)
            case events.StepDone():
                self._step(event)
            case events.EvaluationProgress(done, total):
                self.count("evaluating", done, total)
            case events.EvaluationDone(step, metrics=metrics, best=best):
                self._end_count("evaluating")
                self._ap = metrics["AP"]
                suffix = ", the best so far" if best else ""
                self.output.note(f"step {step}: AP {number(metrics['AP'])}, AP50 {number(metrics['AP50'])}{suffix}")

    def counter(self, what: str, unit: str = "images") -> Callable[[int, int], None]:
        """A callback that shows (done, total)."""
        return lambda done, total: self.count(what, done, total, unit)

    def timed_counter(self, what: str, unit: str) -> Callable[[int, int], None]:
        """:meth:`counter` with the time that is left. It starts again when ``done`` does not increase."""
        begun = time.monotonic()
        first = last = 0

        def show(done: int, total: int) -> None:
            nonlocal begun, first, last
            now = time.monotonic()
            if not 0 < last < done:
                begun, first = now, done
            last = done
            left = f", {clock((now - begun) * (total - done) / (done - first))} left" if done > first else ""
            self.count(what, done, total, unit + left)

        return show

    def count(self, what: str, done: int, total: int, unit: str = "images") -> None:
        """Show a count; it disappears when it is complete."""
        if done >= total:
            self._end_count(what)
            return
        text = f"{done} of {total} {unit}"
        if self.live:
            if what not in self._counts:
                self._counts[what] = self._bars.add_task(printable(what, NAME), total=total, text="")
            self._bars.update(self._counts[what], completed=done, total=total, text=text)
        elif time.monotonic() - self._starts.setdefault(what, time.monotonic()) > PATIENCE:
            self._line(f"{what}: {text}")

    def _end_count(self, what: str) -> None:
        self._starts.pop(what, None)
        if what in self._counts:
            self._bars.remove_task(self._counts.pop(what))

    def _start(self, event: events.Started) -> None:
        steps = f"{event.steps} step{'s' * (event.steps != 1)}"
        length = steps if event.budget is None else clock(event.budget)
        processes = f", {event.processes} processes" if event.processes > 1 else ""
        resumed = f", from step {event.step}" if event.step else ""
        device = f"{event.device} in {event.precision}{processes}"
        self.output.note(f"training on {event.images} images for {length}{resumed}: {device}, in {event.output}")

    def _findings(self, findings: Sequence[Finding]) -> None:
        bad = [finding for finding in findings if finding.severity != "note"]
        for finding in bad[:FINDINGS]:
            where = f" ({finding.split})" if finding.split else ""
            self.output.note(f"{finding.severity}{where}: {finding.text}; to do: {finding.remedy}")
        if len(bad) > FINDINGS:
            codes = ", ".join(finding.code for finding in bad[FINDINGS:])
            self.output.note(f"and {len(bad) - FINDINGS} more ({codes}): retinanet data DATA shows them")

    def _step(self, event: events.StepDone) -> None:
        of = f"/{event.steps}" if event.steps else ""
        fields = [
            f"class {event.class_loss:.3f} box {event.box_loss:.3f}",
            f"{event.images_per_second:.1f} images/s",
            f"{clock(event.seconds_left)} left",
        ]
        if self._ap is not None:
            fields.append(f"AP {number(self._ap)}")
        if self.live:
            if self._task is None:
                self._task = self._bars.add_task("training", total=1.0, text="")
            text = " · ".join([*fields, f"step {event.step}{of}"])
            self._bars.update(self._task, completed=event.fraction, text=text)
        else:
            self._line(" · ".join([f"step {event.step}{of}", *fields, f"lr {event.lr:.2g}"]))

    def _line(self, text: str) -> None:
        now = time.monotonic()
        if now - self._shown >= self.every:
            self._shown = now
            self.output.note(text)


def kept_lines(kept: Kept) -> list[str]:
    """What a run takes from a checkpoint: a line for the whole, and a line for each kind of difference."""
    origin = f" ({kept.origin})" if kept.origin else ""
    whole = not (kept.classes or kept.new_classes or kept.new or kept.left)
    first = f"weights of {kept.source}{origin}: {'all ' * whole}{kept.kept} tensors kept"
    if kept.classes:
        first += f"; class output kept for {listed(kept.classes, CLASSES)}"
    if kept.new_classes:
        first += f"; class output new for {listed(kept.new_classes, CLASSES)}"
    lines = [first]
    for what, names in (("new", kept.new), ("left out", kept.left)):
        if names:
            lines.append(f"  {what}: {len(names)} tensor{'s' * (len(names) > 1)}, {listed(names, TENSORS)}")
    lines += [
        f"  {name} is {setting_text(here)}, in the checkpoint {setting_text(there)}"
        for name, (there, here) in kept.changed.items()
    ]
    return lines


class StepProgress(Callback):
    """Shows only the steps of a training run; for work that trains many runs."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.StepDone):
            self.progress.on_event(event)
