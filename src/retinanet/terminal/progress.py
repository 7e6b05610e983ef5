"""Progress of long work: a live bar in a terminal, or a plain line every few seconds elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from retinanet.common.printable import listed, setting_text
from retinanet.terminal.bars import Bars, NotebookBars, TerminalBars
from retinanet.terminal.console import Output, clock, number
from retinanet.terminal.data_lines import class_line, fault_lines, split_lines
from retinanet.terminal.plan_line import plan_line
from retinanet.training import events
from retinanet.training.callbacks import Callback

if TYPE_CHECKING:
    from retinanet.analysis.anchor_fit import Choice
    from retinanet.analysis.doctor import Finding
    from retinanet.data.dataset import DetectionData
    from retinanet.training.initial_weights import Kept

EVERY = 10.0  # seconds between plain lines
KNOWN = 0.02  # of the training; before, the length of a run with a budget cannot be estimated
EXAMPLES = 1  # of each fault of the data
FINDINGS = 5  # faults of the data that are shown before training
TENSORS, CLASSES = 4, 10  # names of a checkpoint's tensors and classes in a line; run.json has all
MB = 10**6
PATIENCE = 2.0  # seconds before a count is shown as plain lines


class Progress(Callback):
    """Shows the events of :func:`retinanet.training.trainer.train`, and counts of other work.

    Use it in a ``with`` block. At its end the bars are removed, so that later text starts on a new line.

    Args:
        every: seconds between plain lines, where there are no bars.
        explain: show each fitted setting with its reason.

    Attributes:
        warnings: the warnings so far, to be repeated at the end.
        images: what the run is evaluated on, in words.
    """

    def __init__(self, output: Output, every: float = EVERY, explain: bool = False) -> None:
        self.output, self.every, self.explain = output, every, explain
        self.warnings: list[str] = []
        self.images = "the validation set"
        self._shown = -float("inf")  # time of the last plain line
        self._ap: float | None = None
        self._choices: Sequence[Choice] = ()
        self._starts: dict[str, float] = {}
        self._bars: Bars | None = None
        if not output.silent:
            if output.notebook:
                self._bars = NotebookBars()
            elif output.progress.is_terminal:
                self._bars = TerminalBars(output.progress)

    @property
    def live(self) -> bool:
        """Whether progress is shown by bars and not by lines."""
        return self._bars is not None

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars is not None:
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
                self._data(data, val)
            case events.FittingSettings():
                self.output.note("choosing settings for the data and this machine: takes some seconds")
            case events.Downloading(name, done, total):
                self.count(f"downloading {name}", done // MB, max(1, (total or 0) // MB), "MB")
            case events.StartChosen(text):
                self.output.note(f"start: {text}")
            case events.SettingsFitted(choices):
                self._choices = choices
                if self.explain:
                    self.output.note(*(f"  {c.setting} {setting_text(c.value)}: {c.reason}" for c in choices))
                for choice in choices:
                    if choice.warning:
                        self.warn(choice.warning)
            case events.AnchorsCover(lost=str(lost), enough=enough):
                self.output.note(f"note: {lost}") if enough else self.warn(lost)
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
                self.warn(text)
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

    def warn(self, text: str, severity: str = "warning") -> None:
        """Show a warning, and keep it for the end of the run."""
        self.output.note(f"{severity}: {text}")
        self.warnings.append(text)

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
        if self._bars is not None:
            self._bars.show(what, done / total, text)
        elif time.monotonic() - self._starts.setdefault(what, time.monotonic()) > PATIENCE:
            self._line(f"{what}: {text}")

    def _end_count(self, what: str) -> None:
        self._starts.pop(what, None)
        if self._bars is not None:
            self._bars.remove(what)

    def _data(self, data: DetectionData, val: DetectionData) -> None:
        self.images = f"split {val.split}" if val.held_out is None else "the held-out images"
        self.output.note(*split_lines(data, val), class_line(data.class_names, data.counts()))
        self.output.note(*fault_lines(data, EXAMPLES), *fault_lines(val, EXAMPLES))

    def _start(self, event: events.Started) -> None:
        reasons = ", with the reasons for the plan in run.json" if self._choices and not self.explain else ""
        self.output.note(plan_line(event, self._choices), f"the run is in {event.output}{reasons}")

    def _findings(self, findings: Sequence[Finding]) -> None:
        bad = [finding for finding in findings if finding.severity != "note"]
        for finding in bad[:FINDINGS]:
            where = f" ({finding.split})" if finding.split else ""
            self.warn(f"{finding.text}; to do: {finding.remedy}", f"{finding.severity}{where}")
        if len(bad) > FINDINGS:
            codes = ", ".join(finding.code for finding in bad[FINDINGS:])
            self.output.note(f"and {len(bad) - FINDINGS} more ({codes}): retinanet data DATA shows them")

    def _step(self, event: events.StepDone) -> None:
        fields = [
            epoch_text(event),
            f"{clock(event.seconds_left)} left",
            f"class {event.class_loss:.3f} box {event.box_loss:.3f}",
            f"{event.images_per_second:.1f} images/s",
        ]
        if self._ap is not None:
            fields.insert(2, f"AP {number(self._ap)}")
        if self._bars is not None:
            self._bars.show("training", event.fraction, " · ".join(fields))
        else:
            of = f"/{event.steps}" if event.steps else ""
            self._line(" · ".join([f"step {event.step}{of}", *fields, f"lr {event.lr:.2g}"]))

    def _line(self, text: str) -> None:
        now = time.monotonic()
        if now - self._shown >= self.every:
            self._shown = now
            self.output.note(text)


def epoch_text(event: events.StepDone) -> str:
    """The number of the epoch and how many there are; "about" with a budget, whose end is estimated."""
    per_step = event.epoch / max(1, event.step)
    if event.steps:
        total, about = event.steps * per_step, ""
    else:
        total, about = event.epoch / max(event.fraction, 1e-9), "about "
    count = max(1, math.ceil(total - 1e-6)) if event.fraction >= KNOWN or event.steps else 0
    # The step that ends an epoch still belongs to it.
    present = max(1, math.ceil(event.epoch - 1e-6))
    return f"epoch {present} of {about}{max(present, count)}" if count else f"epoch {present}"


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
