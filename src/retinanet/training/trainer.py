"""The training loop: one run, from its first step or its last save to its report.

Lightning Fabric provides devices, processes and precision. Other modules do the rest: ``preparation`` what comes before
the first step, ``step`` the loss and its gradient, ``step_decisions`` when a run evaluates, saves and ends.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.fabric import Fabric

from retinanet.common.precision import Precision
from retinanet.config.convert import to_plain
from retinanet.config.settings import Settings
from retinanet.data.loader import Transform, train_batches
from retinanet.inference.detector import Detector
from retinanet.losses.own_losses import BoxLossFunction, ClassLoss
from retinanet.ops.own_matching import Matcher
from retinanet.training import divergence, events, resume_state
from retinanet.training.callbacks import Callback, EarlyStopping, MetricsLog, closing, notify, require_callbacks
from retinanet.training.collectives import Decision, agree, broadcast_from_first, end_together, run_in_first
from retinanet.training.ema import Ema
from retinanet.training.fabric import launch, make_fabric, quiet, seed
from retinanet.training.loggers import make_loggers
from retinanet.training.optimizer import set_lr
from retinanet.training.own_parts import OptimizerFunction, OwnParts, name_of
from retinanet.training.preparation import Fit, Prepared, Summary, open_folder, prepare
from retinanet.training.resume_state import Progress, Resumable
from retinanet.training.run_folder import RunFolder
from retinanet.training.run_report import write_report
from retinanet.training.schedule import Plan, ema_decay, lr_factor
from retinanet.training.signals import Interrupt, Stopped
from retinanet.training.step import Learner, backward
from retinanet.training.step_decisions import Decider
from retinanet.training.step_timer import StepTimer
from retinanet.training.unread_losses import UnreadLosses
from retinanet.training.validation import Evaluation, Validation


def train(
    data_root: str | Path,
    settings: Settings,
    output: str | Path,
    *,
    resume: bool = False,
    fit: Fit | None = None,
    transform: Transform | None = None,
    loss: ClassLoss | None = None,
    box_loss: BoxLossFunction | None = None,
    matcher: Matcher | None = None,
    optimizer: OptimizerFunction | None = None,
    callbacks: Sequence[Callback] = (),
    log: str | Callback | Sequence[str | Callback] = (),
    since: float | None = None,
) -> Summary:
    """Train a detector, evaluate it, and return the :data:`summary <retinanet.training.preparation.Summary>`.

    If a finished run is resumed and no longer length is given, nothing changes and its summary is returned.

    Args:
        data_root: the data set, see :func:`retinanet.data.open_data`.
        settings: all settings of the run. A resumed run may change its length.
        output: the run folder, see :mod:`retinanet.training.run_folder`. It has to be new or empty, unless ``resume``
            is set, or torchrun or SLURM restarted this job and its first try saved nothing.
        resume: continue from the last save in ``output``.
        fit: called with the opened data; returns the settings to train with, see
            :mod:`retinanet.training.fitted_defaults`. Its settings for data, devices and precision are ignored.
        transform: called on each training image, see :func:`retinanet.data.loader.train_batches`.
        loss, box_loss, matcher: functions in place of the class loss, the box loss and the rule that assigns anchors to
            boxes, see :class:`retinanet.losses.Criterion`. A resumed run needs the same functions again.
        optimizer: makes the optimizer from the parameters, see :mod:`retinanet.training.own_parts`.
        callbacks: see :mod:`retinanet.training.callbacks`.
        log: "tensorboard", "wandb", "mlflow", or several of them, see :mod:`retinanet.training.loggers`.
        since: ``time.monotonic()`` when the budget starts to count; the time of this call by default.

    Raises:
        RequestError: the settings, the data or the folder cannot be used.
        WorkError: training failed: a loss is not finite, an image cannot be read any more, the disk is full.
        Stopped: (a KeyboardInterrupt) any process received Ctrl-C or SIGTERM. The run is saved and can be resumed.
    """
    begin = time.monotonic() if since is None else since
    own = OwnParts(loss, box_loss, matcher, optimizer, transform)
    require_callbacks(callbacks)
    listeners = (*callbacks, *make_loggers(log))
    fabric, precision = make_fabric(settings.train)
    with end_together(fabric):
        launch(fabric)
        listeners = listeners if fabric.is_global_zero else ()
        with closing(listeners):
            folder = RunFolder(Path(fabric.broadcast(str(output))))
            if resume:
                own.require_as_in(folder)
            tell, root = partial(notify, listeners), Path(data_root)
            prepared = prepare(fabric, precision, root, settings, folder, resume, fit, tell)
            if isinstance(prepared, dict):
                return prepared
            return Trainer(fabric, precision, prepared, listeners, own, begin).run(root)


class Trainer:
    """One run, in one of its processes.

    Attributes:
        model: the network that is trained.
        detector: the detector that is evaluated and saved; it has the averaged weights if there are any.
        progress: steps and seconds so far, and the best evaluation.
        evaluation: the last evaluation.
    """

    def __init__(
        self,
        fabric: Fabric,
        precision: Precision,
        run: Prepared,
        callbacks: Sequence[Callback] = (),
        own: OwnParts | None = None,
        begin: float = 0.0,
    ) -> None:
        self.fabric, self.precision, self.own = fabric, precision, own or OwnParts()
        self.main, self.several = fabric.is_global_zero, fabric.world_size > 1
        self.prepared, self.settings, self.folder = run, run.settings, run.folder
        self.data, self.val, self.model = run.data, run.val, run.model
        train = self.settings.train
        stopping = [EarlyStopping(train.patience)] if train.patience is not None else []
        self.callbacks = [MetricsLog(), *stopping, *callbacks] if self.main else []
        self.progress = Progress()
        self.average = Ema(self.model, train.ema) if train.ema is not None else None
        self.learner: Any = Learner(self.model, self.own.criterion(self.settings, self.data.class_names))
        optimizer, self._full_lr = self.own.make_optimizer(self.model, self.settings)
        with quiet():
            self.learner, self.optimizer = fabric.setup(self.learner, optimizer)
        if self.average is not None:
            self.average.model.to(fabric.device)
        if run.saved is not None:
            self.progress = self._state().restore(run.saved, self.folder.resume)
            run.saved = None  # frees the memory of a second model and optimizer state
        self.detector = Detector(self.average.model if self.average else self.model, self.data.class_names, precision)

        self.began = begin - self.progress.elapsed  # a budget includes the time to open the data
        self.plan = Plan.of(train, len(self.data))
        self.plan.begun = self.progress.begun
        self.decider = Decider.of(self.plan, train, len(self.data), run.chosen, self.several)
        self.decider.last_evaluation, self.decider.last_save = self.progress.evaluated, self.elapsed()
        self._adapt_average = self.plan.budget is not None and run.chosen.get("train.ema") == train.ema
        self.validation = Validation(fabric, self.val, train.eval_images, run.workers)
        self.timer = StepTimer(fabric.device, self.progress.seconds_in)
        self.evaluation: Evaluation | None = None
        self.interrupt = Interrupt(several=self.several)
        self.losses = UnreadLosses()
        self._early = ""

    def elapsed(self) -> float:
        """Seconds since the run began, over all its sessions."""
        return time.monotonic() - self.began

    def notify(self, event: events.Event) -> None:
        notify(self.callbacks, event, self)

    def finish_early(self, reason: str) -> None:
        """End the run after the current step, as if its length were reached. Callbacks may call this.

        Args:
            reason: "stopped" in the summary, such as "patience".
        """
        self._early = reason

    def run(self, data_root: Path) -> Summary:
        """Train to the end and return the summary."""
        functions = {"own": self.own.names(), "callbacks": [name_of(callback) for callback in self.callbacks]}
        run_in_first(self.fabric, lambda: open_folder(self.prepared, data_root, self.progress.step, functions))
        self.notify(
            events.Started(
                step=self.progress.step,
                steps=self.plan.steps,
                budget=self.plan.budget,
                images=len(self.data),
                processes=self.fabric.world_size,
                device=str(self.fabric.device),
                precision=self.precision,
                output=self.folder.path,
                settings=self.settings,
            )
        )
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
            transform=self.own.transform,
        )
        if not self.prepared.resumed:
            self.save()  # a run that is killed early can resume, and a full disk is reported now
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
            for ahead in range(decision.steps):  # all processes use the same time, extrapolated from the decision
                self.step(decision.elapsed + ahead * decision.step_seconds)

    def _decide(self) -> Decision:
        """Agree with all processes on what to do next. They read the losses since the last agreement, too."""
        step = self.progress.step
        while self.main and not self._early and self.decider.trial_due(step, self.elapsed()):
            self._time_evaluation()
        wanted = self.decider.decide(step, self.elapsed())
        if self._early:
            wanted = dataclasses.replace(wanted, over=True, evaluate=False, save=False)
        decision = agree(self.fabric, wanted, self.interrupt.signal)
        self.plan.reserve = decision.reserve
        if self.average is not None and self._adapt_average and decision.expected > 0:
            self.average.decay = ema_decay(decision.expected)
        if step == 0:
            self.plan.begun = self.progress.begun = decision.elapsed
        if self.several:
            self.read_losses()
        return decision

    def step(self, now: float) -> None:
        """Take one optimizer step.

        Args:
            now: seconds since the run began. It has to be the same number in all processes.
        """
        train, progress = self.settings.train, self.progress
        lr = self._full_lr * lr_factor(train, progress.step, self.plan.progress(progress.step, now))
        set_lr(self.optimizer, lr)
        with self.timer.time("data", on_device=False):
            chunks = next(self.batches)
        # Dropout depends on the step only, so that a resumed run draws the same numbers.
        seed(self.fabric.device, hash((train.seed, progress.step, self.fabric.global_rank)) % (1 << 62))
        losses = backward(self.fabric, self.learner, chunks, self.timer)
        with self.timer.time("optimiser"):
            if train.clip is not None:
                self.fabric.clip_gradients(self.learner, self.optimizer, max_norm=train.clip, error_if_nonfinite=False)
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.average is not None:
                self.average.update(self.model, progress.step)
        progress.step += 1
        self.losses.add(progress.step, lr, losses)
        if not self.several and self.losses.due(self.fabric.device, self.decider.step_seconds > 0):
            self.read_losses()

    def read_losses(self) -> None:
        """Report the steps since the last call. Every process must call this at the same step.

        Raises:
            DivergedError: a loss is not finite.
        """
        losses, step_seconds = self.losses.read()
        if losses:
            self.decider.stepped(step_seconds)
        plan, batch, now = self.plan, self.settings.train.batch_size, self.elapsed()
        for step, lr, class_loss, box_loss in losses:
            if not math.isfinite(class_loss + box_loss):
                where = self.data, self.settings, self.folder
                raise divergence.of_loss(step, (class_loss, box_loss), *where, self.own.hint())
            self.notify(
                events.StepDone(
                    step=step,
                    epoch=step * batch / len(self.data),
                    seconds=now,
                    lr=lr,
                    class_loss=class_loss,
                    box_loss=box_loss,
                    images_per_second=batch / max(step_seconds, 1e-9),
                    steps=plan.steps,
                    fraction=plan.progress(step, now),
                    seconds_left=plan.seconds_left(step, now, step_seconds),
                )
            )

    def save(self) -> None:
        """Write resume.pt. Every process must call this at the same step."""
        self.read_losses()
        self.progress.elapsed = self.decider.last_save = self.elapsed()
        divergence.require_finite(self.model, self.progress.step, self.folder)
        run_in_first(self.fabric, self._write_state)

    def evaluate(self, final: bool = False) -> None:
        """Evaluate the detector and write its checkpoints. Every process must call this at the same step.

        Args:
            final: use all images of the validation set, whatever ``train.eval_images`` says.
        """
        self.read_losses()
        start = time.monotonic()
        divergence.require_finite(self.detector.model, self.progress.step, self.folder)
        self.detector.model.eval()
        if self.several:  # each process has its own batch statistics; those of the first one are saved
            for buffer in self.detector.model.buffers():
                torch.distributed.broadcast(buffer, src=0)
        with self.timer.time("evaluation", on_device=False):
            self.evaluation = self.validation.evaluate(
                self.detector,
                final,
                lambda done, total: self.notify(events.EvaluationProgress(done, total)),
                lambda: self.interrupt.requested,
            )
        detected = time.monotonic()
        self.model.train()
        if self.evaluation is None:
            self._stop(agree(self.fabric, Decision(), self.interrupt.signal).signal)
        best = self.progress.add_evaluation(self.evaluation.comparable)
        self.decider.last_evaluation = self.progress.step
        run_in_first(self.fabric, lambda: self._write_evaluation(best))
        images = len(self.val) if final else len(self.validation.subset)
        now = time.monotonic()
        self.decider.evaluation_took(
            now - start, images, len(self.val), self.fabric.world_size, self.elapsed(), now - detected
        )
        self.losses.restart()

    def _time_evaluation(self) -> None:
        """Time a few images, by which the first process estimates how much of a budget an evaluation needs."""
        begun = time.monotonic()
        self.detector.model.eval()
        image_seconds = self.validation.time_image(self.detector)
        self.model.train()
        took = time.monotonic() - begun
        subset, processes = len(self.validation.subset), self.fabric.world_size
        self.decider.timed(image_seconds, subset, len(self.val), processes, self.elapsed(), took)
        self.losses.exclude(took)

    def _stop(self, number: int) -> NoReturn:
        """Save, and end because of a signal."""
        self.save()
        raise Stopped(f"step {self.progress.step} is saved; go on with --resume {self.folder.path}", number)

    def _finish(self) -> Summary:
        """Evaluate for the last time, save, and write the report."""
        self.read_losses()
        reserved, trained = self.plan.reserve, self.elapsed()
        progress = self.progress
        complete = len(self.validation.subset) == len(self.val)
        if self.evaluation is None or progress.evaluated != progress.step or not complete:
            self.evaluate(final=True)
        progress.finished = broadcast_from_first(self.fabric, lambda: self._early or "finished")
        self.save()
        if self.settings.train.report:
            images = len(self.val) / self.fabric.world_size
            brief = self.own.loss is not None or self.decider.report_is_brief(images, self.elapsed())
            run_in_first(self.fabric, lambda: write_report(self, self.timer.seconds(), brief))
        return progress.summary(self.folder.path, self.evaluation.stats if self.evaluation else {}) | {
            "budget": self.plan.budget,
            "reserved": reserved if self.plan.budget is not None else None,
            "evaluation": progress.elapsed - trained,
        }

    def _state(self) -> Resumable:
        average = None if self.average is None else self.average.model
        return Resumable(self.model, self.optimizer, self.fabric.strategy.precision, average)

    def _write_state(self) -> None:
        self.progress.seconds_in = self.timer.seconds()
        state = self._state().collect(self.progress) | {
            "settings": to_plain(self.settings),
            "classes": list(self.data.class_names),
            "images": len(self.data),
            "held_out": self.val.held_out,
        }
        resume_state.save(self.folder.resume, state)
        self.notify(events.StateSaved(self.folder.resume, self.progress.step))

    def _write_evaluation(self, best: bool) -> None:
        evaluation, step = self.evaluation, self.progress.step
        assert evaluation is not None
        self.validation.write(self.folder, step, evaluation, self.detector, best)
        epoch = step * self.settings.train.batch_size / len(self.data)
        self.notify(events.EvaluationDone(step, epoch, self.elapsed(), best, evaluation.stats))
