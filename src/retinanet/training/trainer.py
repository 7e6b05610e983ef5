"""Training: one run, from its first step or from its last save to its report.

Lightning Fabric brings devices, processes and precision. What a step computes is in :mod:`retinanet.training.step`;
when a run evaluates, saves and ends in :mod:`retinanet.training.step_decisions`; what comes before the first step in
:mod:`retinanet.training.preparation`.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.fabric import Fabric
from torch import Tensor

from retinanet.checkpoints import native
from retinanet.common.errors import first_line
from retinanet.common.precision import Precision
from retinanet.config.settings import Settings, seconds, to_plain
from retinanet.data.dataset import spread
from retinanet.data.loader import Transform, train_batches
from retinanet.inference.detector import Detector
from retinanet.training import divergence, events, resume_state
from retinanet.training.callbacks import Callback, EarlyStopping, MetricsLog, notify
from retinanet.training.collectives import Decision, agree, all_end, all_reduce, first_process, of_first
from retinanet.training.ema import Ema
from retinanet.training.fabric import launch, make_fabric, seed, without_notes
from retinanet.training.optimizer import make_optimizer, set_lr
from retinanet.training.preparation import Fit, Prepared, Summary, prepare
from retinanet.training.resume_state import Progress
from retinanet.training.run_folder import RunFolder
from retinanet.training.run_report import FinishedRun, write_report
from retinanet.training.schedule import REPORT_IMAGES, Plan, ema_decay, interval, lr_factor, scaled_lr
from retinanet.training.signals import Interrupt, Stopped
from retinanet.training.step import Learner, backward
from retinanet.training.step_decisions import ANY, Decider
from retinanet.training.step_timer import Clock
from retinanet.training.validation import Measured, Validation

READ_EVERY = 20
"""Steps whose losses stay on a GPU before they are read, because the CPU has to wait for them."""
READ_FIRST = 3
"""The same before the first step was timed."""
TRIED = 4
"""Validation images by which an evaluation is timed before there was one."""


def train(
    data_root: str | Path,
    settings: Settings,
    output: str | Path,
    *,
    resume: bool = False,
    fit: Fit | None = None,
    transform: Transform | None = None,
    callbacks: Sequence[Callback] = (),
    since: float | None = None,
) -> Summary:
    """Train a detector and evaluate it.

    A finished run that is resumed without a longer length stays as it is; its summary is returned again.

    Args:
        data_root: a data set, see :func:`retinanet.data.open_data`.
        settings: what to train, on which splits, and how; the length of a resumed run may be changed.
        output: the run folder (see :mod:`retinanet.training.run_folder`); new or empty unless ``resume``, or begun by
            the same job, which was restarted before its first save.
        resume: go on from the last save in ``output``.
        fit: called with the opened data; its settings replace ``settings``, except for those about data, devices and
            precision. See :mod:`retinanet.training.fitted_defaults`.
        transform: called on each training image, see :func:`retinanet.data.loader.train_batches`.
        callbacks: see :mod:`retinanet.training.callbacks`.
        since: when a budget began, by ``time.monotonic()``; by default now.

    Returns:
        The summary: output, steps, seconds, the twelve numbers of the last evaluation under "last", "best_step",
        "best_AP", and "stopped": "finished" or "patience"; of a run that was not finished before, "budget" and "kept",
        seconds of the budget and of it for the last evaluation and the report (None without a budget), and
        "evaluation", the seconds that the last one took. "seconds" ends before the report.

    Raises:
        RequestError: settings, data or folder cannot be used.
        WorkError: training failed: a loss that is not finite, an image that cannot be read any more, a full disk.
        Stopped: a KeyboardInterrupt: stopped by Ctrl-C or SIGTERM in any process, after saving; its text says how to
            go on.
    """
    begin = time.monotonic() if since is None else since
    fabric, precision = make_fabric(settings.train)
    with all_end(fabric):
        launch(fabric)
        listeners = tuple(callbacks) if fabric.is_global_zero else ()
        folder = RunFolder(Path(fabric.broadcast(str(output))))
        prepared = prepare(
            fabric, precision, Path(data_root), settings, folder, resume, fit, lambda event: notify(listeners, event)
        )
        if isinstance(prepared, dict):
            return prepared
        return Trainer(fabric, precision, prepared, listeners, transform, begin).run(Path(data_root))


class Trainer:
    """One run in one of its processes.

    Attributes:
        model: the network that is trained. detector: what is evaluated and saved, of the averaged weights if there are.
        progress: steps and seconds so far, and the best evaluation.
        measured: the last evaluation.
    """

    def __init__(
        self,
        fabric: Fabric,
        precision: Precision,
        run: Prepared,
        callbacks: Sequence[Callback] = (),
        transform: Transform | None = None,
        begin: float = 0.0,
    ) -> None:
        self.fabric, self.precision, self.transform = fabric, precision, transform
        self.main, self.several = fabric.is_global_zero, fabric.world_size > 1
        self.prepared, self.settings, self.folder = run, run.settings, run.folder
        self.data, self.val, self.model = run.data, run.val, run.model
        train = self.settings.train
        self.callbacks = [MetricsLog(), *callbacks] if self.main else []
        if self.main and train.patience is not None:
            self.callbacks.insert(1, EarlyStopping(train.patience))

        self.progress = Progress()
        self.average = Ema(self.model, train.ema) if train.ema is not None else None
        self.learner: Any = Learner(self.model, self.settings.loss, self.data.class_names)
        self.optimizer: Any = make_optimizer(self.model, train)
        with without_notes():
            self.learner, self.optimizer = fabric.setup(self.learner, self.optimizer)
        if self.average is not None:
            self.average.model.to(fabric.device)
        self.resumed = run.saved is not None
        if run.saved is not None:
            self._restore(run.saved)
            run.saved = None  # as large as the model and the optimiser's state
        self.detector = Detector(self.average.model if self.average else self.model, self.data.class_names, precision)

        self.began = begin - self.progress.elapsed  # opening the data counts: a budget is the user's time
        self.plan = Plan.of(train, len(self.data))
        self.plan.begun = self.progress.begun
        self._make_decider()
        self.validation = Validation(fabric, self.val, train.eval_images, 8, run.workers)
        self.clock = Clock(fabric.device, self.progress.seconds_in)
        self.measured: Measured | None = None
        self.interrupt = Interrupt(several=self.several)
        self._early = ""
        self._unread: list[tuple[int, float, Tensor]] = []  # step, learning rate, this process's share of the losses
        self._read_at = time.monotonic()

    def elapsed(self) -> float:
        """Seconds since the run began, over all its sessions."""
        return time.monotonic() - self.began

    def notify(self, event: events.Event) -> None:
        notify(self.callbacks, event, self)

    def finish_early(self, reason: str) -> None:
        """End the run after the current step as if its length were reached; for callbacks.

        Args:
            reason: a word for the summary, such as "patience".
        """
        self._early = reason

    def run(self, data_root: Path) -> Summary:
        """Train to the end; the summary."""
        first_process(self.fabric, lambda: self._open_folder(data_root))
        self.notify(self._started())
        try:
            with self.interrupt:
                self._loop()
                summary = self._finish()
        finally:
            if self.main:
                self.folder.close()
        self.notify(events.Ended(summary))
        return summary

    def _loop(self) -> None:
        """Train until the first process decides that it is over."""
        self.batches = train_batches(
            self.data,
            self.settings,
            start_step=self.progress.step,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
            workers=self.prepared.workers,
            transform=self.transform,
        )
        if not self.resumed:
            self.save()  # a run killed in its first minute resumes too; and a full disk is reported now
        self.model.train()
        while True:
            decision = self._decide()
            if decision.signal:
                self._stop(decision.signal)
            if decision.evaluate:
                self.evaluate()
                self.save()
                continue
            if decision.save:
                self.save()
            if decision.over:
                return
            for ahead in range(decision.steps):
                self.step(decision.elapsed + ahead * decision.step_seconds)

    def _decide(self) -> Decision:
        """What all processes do next. They meet here, and read the losses since they last met."""
        step = self.progress.step
        while self.main and not self._early and self.decider.trial_due(step, self.elapsed()):
            self._time_evaluation()
        wanted = self.decider.decide(step, self.elapsed())
        if self._early:
            wanted = dataclasses.replace(wanted, over=True, evaluate=False, save=False)
        decision = agree(self.fabric, wanted, self.interrupt.signal)
        self.plan.reserve = decision.reserve
        if self.average is not None and self._fit_average and decision.expected > 0:
            self.average.decay = ema_decay(decision.expected)
        if step == 0:
            self.plan.begun = self.progress.begun = decision.elapsed
        if self.several:
            self.read_losses()
        return decision

    def step(self, now: float) -> None:
        """Take one optimiser step, ``now`` seconds after the run began: the same number in all processes."""
        train, progress = self.settings.train, self.progress
        lr = scaled_lr(train) * lr_factor(train, progress.step, self.plan.progress(progress.step, now))
        set_lr(self.optimizer, lr)
        with self.clock.part("data", on_device=False):
            chunks = next(self.batches)
        # Dropout and the like are a function of the step, so that a resumed run draws the same numbers.
        seed(self.fabric.device, hash((train.seed, progress.step, self.fabric.global_rank)) % (1 << 62))
        losses = backward(self.fabric, self.learner, chunks, self.settings.matching, self.clock)
        with self.clock.part("optimiser"):
            if train.clip is not None:
                clip = train.clip
                self.fabric.clip_gradients(self.learner, self.optimizer, max_norm=clip, error_if_nonfinite=False)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.average is not None:
                self.average.update(self.model, progress.step)
        progress.step += 1
        self._unread.append((progress.step, lr, losses))
        patient = READ_EVERY if self.decider.step_seconds > 0 else READ_FIRST
        if not self.several and (self.fabric.device.type == "cpu" or len(self._unread) >= patient):
            self.read_losses()

    def read_losses(self) -> None:
        """Report the steps since the last call; every process calls this at the same step.

        Raises:
            DivergedError: a loss is not finite.
        """
        if not self._unread:
            return
        losses = all_reduce(torch.stack([values for _, _, values in self._unread])).tolist()  # waits for the device
        now = time.monotonic()
        step_seconds = (now - self._read_at) / len(self._unread)
        self.decider.stepped(step_seconds)
        self._read_at = now
        batch, seconds_now = self.settings.train.batch_size, now - self.began
        for (step, lr, _), (class_loss, box_loss) in zip(self._unread, losses):
            if not math.isfinite(class_loss + box_loss):
                raise divergence.of_loss(step, class_loss, box_loss, self.data, self.settings, self.folder)
            self.notify(
                events.StepDone(
                    step=step,
                    epoch=step * batch / len(self.data),
                    seconds=seconds_now,
                    lr=lr,
                    class_loss=class_loss,
                    box_loss=box_loss,
                    images_per_second=batch / max(step_seconds, 1e-9),
                    steps=self.plan.steps,
                    fraction=self.plan.progress(step, seconds_now),
                    seconds_left=self.plan.seconds_left(step, seconds_now, step_seconds),
                )
            )
        self._unread.clear()

    def save(self) -> None:
        """Write resume.pt; every process calls this at the same step."""
        self.read_losses()
        self.progress.elapsed = self.decider.saved = self.elapsed()
        divergence.require_finite(self.model, self.progress.step, self.folder)
        first_process(self.fabric, self._write_state)

    def evaluate(self, final: bool = False) -> None:
        """Evaluate the detector and keep it; every process calls this at the same step.

        Args:
            final: on all images of the validation set, also where evaluations during training take some.
        """
        self.read_losses()
        start = time.monotonic()
        divergence.require_finite(self.detector.model, self.progress.step, self.folder)
        self.detector.model.eval()
        if self.several:  # each process has its own batch statistics; those of the first one are saved
            for buffer in self.detector.model.buffers():
                torch.distributed.broadcast(buffer, src=0)
        with self.clock.part("evaluation", on_device=False):
            self.measured = self.validation.measure(
                self.detector,
                final,
                lambda done, total: self.notify(events.EvaluationProgress(done, total)),
                lambda: self.interrupt.requested,
            )
        detected = time.monotonic()
        self.model.train()
        if self.measured is None:
            self._stop(agree(self.fabric, Decision(), self.interrupt.signal).signal)
        progress, better = self.progress, self.measured.comparable > self.progress.best
        if better:
            progress.best, progress.best_step, progress.evaluations_since_best = (
                self.measured.comparable,
                progress.step,
                0,
            )
        else:
            progress.evaluations_since_best += 1
        progress.evaluated = self.decider.evaluated = progress.step
        first_process(self.fabric, lambda: self._write_evaluation(better))
        images = len(self.val) if final else len(self.validation.some)
        now = time.monotonic()
        self.decider.evaluation_took(
            now - start, images, len(self.val), self.fabric.world_size, self.elapsed(), now - detected
        )
        self._read_at = time.monotonic()

    def _time_evaluation(self) -> None:
        """Evaluate some images, by which the first process knows how much of a budget to keep for all of them."""
        begun = time.monotonic()
        self.detector.model.eval()
        indices = spread(len(self.val), TRIED + 1).tolist()
        self.validation.detect(self.detector, indices[:1])  # the first image takes longer
        start = time.monotonic()
        timed = indices[1:] or indices
        self.validation.detect(self.detector, timed)
        seconds_each = (time.monotonic() - start) / len(timed)
        self.model.train()
        took = time.monotonic() - begun
        processes = self.fabric.world_size
        self.decider.tried(seconds_each, len(self.validation.some), len(self.val), processes, self.elapsed(), took)
        self._read_at += took  # steps may be waiting to be read

    def _stop(self, number: int) -> NoReturn:
        """Save and end because of a signal."""
        self.save()
        raise Stopped(f"step {self.progress.step} is saved; go on with --resume {self.folder.path}", number)

    def _finish(self) -> Summary:
        """The last evaluation, save and report."""
        self.read_losses()
        reserved, trained = self.plan.reserve, self.elapsed()
        progress = self.progress
        if self.measured is None or progress.evaluated != progress.step or len(self.validation.some) < len(self.val):
            self.evaluate(final=True)
        progress.finished = of_first(self.fabric, lambda: self._early or "finished")
        self.save()
        if self.settings.train.report:
            first_process(self.fabric, self._write_report)
        return {
            "output": str(self.folder.path),
            "steps": progress.step,
            "seconds": progress.elapsed,
            "budget": self.plan.budget,
            "kept": reserved if self.plan.budget is not None else None,
            "evaluation": progress.elapsed - trained,
            "stopped": progress.finished,
            "last": self.measured.stats if self.measured is not None else {},
            "best_step": progress.best_step,
            "best_AP": progress.best,
        }

    def _started(self) -> events.Started:
        return events.Started(
            step=self.progress.step,
            steps=self.plan.steps,
            budget=self.plan.budget,
            images=len(self.data),
            processes=self.fabric.world_size,
            device=str(self.fabric.device),
            precision=self.precision,
            output=self.folder.path,
        )

    def _make_decider(self) -> None:
        """Intervals and averages that were fitted to a budget follow the steps that fit into it."""
        train, run = self.settings.train, self.prepared
        chosen = of_first(
            self.fabric,
            lambda: self.folder.chosen() if self.resumed else {c.setting: c.value for c in run.choices},
        )
        budgeted = self.plan.budget is not None
        steps = interval(train.eval_every, len(self.data), train.batch_size) if train.eval_every > 0 else 0
        if steps and budgeted and chosen.get("train.eval_every") == train.eval_every:
            steps = ANY
        self._fit_average = budgeted and chosen.get("train.ema") == train.ema
        save_every = seconds(train.save_every)
        evaluated, elapsed = self.progress.evaluated, self.elapsed()
        self.decider = Decider(self.plan, save_every, steps, self.several, evaluated, elapsed)

    def _restore(self, saved: dict[str, Any]) -> None:
        """Continue from the contents of resume.pt."""
        with resume_state.restoring(self.folder.resume):
            self.progress = Progress(**saved["progress"] | {"finished": ""})
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.fabric.strategy.precision.load_state_dict(saved["precision"])
            if self.average is not None:
                self.average.model.load_state_dict(saved["ema"])

    def _open_folder(self, data_root: Path) -> None:
        if self.resumed:
            self.folder.write_settings(self.settings)
            self.folder.write_data(data_root)
        else:
            chosen = [choice.plain() for choice in self.prepared.choices]
            weights = self.prepared.kept.plain() if self.prepared.kept is not None else None
            self.folder.create(self.settings, data_root, self.data.class_names, sys.argv, chosen, weights)
        self.folder.open_logs(self.progress.step)

    def _write_state(self) -> None:
        resume_state.save(
            self.folder.resume,
            {
                "progress": dataclasses.asdict(dataclasses.replace(self.progress, seconds_in=self.clock.seconds())),
                "settings": to_plain(self.settings),
                "classes": list(self.data.class_names),
                "images": len(self.data),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
                "ema": self.average.model.state_dict() if self.average is not None else {},
            },
        )
        self.notify(events.StateSaved(self.folder.resume, self.progress.step))

    def _write_evaluation(self, better: bool) -> None:
        """The checkpoints and evaluation.json; only in the first process."""
        measured, step = self.measured, self.progress.step
        assert measured is not None
        facts = {
            "step": step,
            "metrics": measured.stats,
            "split": self.val.split,
            "threshold": measured.threshold,
        }
        for path in [self.folder.best, self.folder.last] if better else [self.folder.last]:
            native.save(path, self.detector.model.state_dict(), self.model.settings, self.data.class_names, facts)
        self.validation.write(self.folder, step, measured)
        epoch = step * self.settings.train.batch_size / len(self.data)
        self.notify(events.EvaluationDone(step, epoch, self.elapsed(), better, measured.stats))

    def _write_report(self) -> None:
        assert self.measured is not None, "a run ends with an evaluation"
        try:
            left = math.inf if self.plan.budget is None else self.plan.budget - self.elapsed()
            seconds_each = self.decider.evaluation_seconds * self.fabric.world_size / len(self.measured.found)
            run = FinishedRun(
                self.folder,
                self.settings,
                self.data,
                self.val,
                self.detector,
                self.measured,
                self.progress.step,
                self.progress.elapsed,
                self.clock.seconds(),
                brief=left < REPORT_IMAGES * seconds_each,
            )
            write_report(run)
        except Exception as error:  # a run that took hours does not fail for its report
            self.notify(events.Problem(f"{self.folder.report} could not be written: {first_line(error)}"))
