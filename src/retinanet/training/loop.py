"""Training: the loop, from an empty run folder or from where a run stopped.

Lightning Fabric brings devices, processes and precision; what a step is (:mod:`retinanet.training.step`) and how steps
follow each other is here.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from retinanet import checkpoints
from retinanet.config import Settings, from_plain, seconds, to_plain
from retinanet.data import DetectionData, open_data
from retinanet.data.doctor import examine
from retinanet.data.fit import Choice, lost_boxes
from retinanet.data.loading import TrainingSteps, Transform, choose_workers, train_batches
from retinanet.detector import Detector
from retinanet.errors import DivergedError, RequestError, first_line
from retinanet.model import RetinaNet
from retinanet.precision import Precision
from retinanet.training import start
from retinanet.training import state as resume_file
from retinanet.training.clock import Clock
from retinanet.training.curves import draw_curves
from retinanet.training.devices import first_process, make_fabric
from retinanet.training.ema import Ema
from retinanet.training.interrupt import Interrupt
from retinanet.training.optim import make_optimizer, set_lr
from retinanet.training.report import write_report
from retinanet.training.run_folder import RunFolder
from retinanet.training.schedule import Plan, lr_factor, scaled_lr
from retinanet.training.step import Learner, backward
from retinanet.training.validation import Measured, Validation

Event = dict[str, Any]
LOOK_EVERY = 20  # steps whose losses stay on a GPU before they are looked at; looking makes the processor wait


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What a run computes on."""

    device: torch.device
    precision: Precision
    processes: int
    workers: int


Fit = Callable[[DetectionData, DetectionData, Surroundings], tuple[Settings, list[Choice]]]
"""(what is learnt from, what is measured on, where) -> the settings to run with, and why these."""


@dataclasses.dataclass
class Progress:
    """How far a run is; with weights and optimiser all that a resumed run needs to know."""

    step: int = 0
    elapsed: float = 0.0  # seconds, over all sessions of the run
    begun: float = 0.0  # of these, seconds that went by before the first step
    best: float = -math.inf
    best_step: int = 0
    evaluations_since_best: int = 0
    seconds_in: dict[str, float] = dataclasses.field(default_factory=dict)  # of data, forward, backward, ...


def train(
    data_root: str | Path,
    settings: Settings,
    output: str | Path,
    *,
    resume: bool = False,
    fit: Fit | None = None,
    transform: Transform | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> dict[str, Any]:
    """Train a detector and measure it.

    Args:
        data_root: a data set, see :func:`retinanet.data.open_data`.
        settings: what to train, on which splits, and how; the length of a resumed run may be changed.
        output: the run folder (see :mod:`retinanet.training.run_folder`); new or empty unless ``resume``.
        resume: go on from ``output``'s last save.
        fit: called with the opened data; the settings that it gives take the place of ``settings``, but for what says
            which data, devices and precision. See :mod:`retinanet.training.defaults`.
        transform: called on each training picture, see :func:`retinanet.data.loading.train_batches`.
        on_event: told what happens as dicts with the key "event": "checking" (done, total: pictures of a split that is
            opened), "data" (train, val: the opened splits, with their reports), "fitting" and "fitted" (choices: what
            ``fit`` chose, see :class:`retinanet.data.fit.Choice`), "coverage" (share of the training boxes that the
            anchors cover, lost: None or a line about the others), "findings" (findings: of
            :func:`retinanet.data.doctor.examine`), "kept" (kept: what of ``train.weights`` was, see
            :class:`retinanet.training.start.Kept`), "start" (step, steps or None, budget or None, pictures,
            processes, device, precision, output), "step" (steps, fraction, seconds_left and a row
            of metrics.csv), "evaluation_progress" (done, total), "evaluation" (step, best, the twelve numbers),
            "saved" (path, step), "end" (summary). Called in the first process only.

    Returns:
        The summary: output, steps, seconds, the twelve numbers of the last evaluation under "last", "best_step",
        "best_AP", and "stopped": "finished" or "patience".

    Raises:
        RequestError: settings, data or folder cannot be used.
        WorkError: training failed: a loss that is not finite, a picture that cannot be read any more, a full disk.
        KeyboardInterrupt: stopped by a signal, after saving; its text says how to go on.
    """
    begin = time.monotonic()
    fabric, precision = make_fabric(settings.train)
    fabric.launch()
    main = fabric.is_global_zero
    tell: Callable[[Event], None] = on_event if on_event is not None and main else lambda event: None
    folder = RunFolder(Path(fabric.broadcast(str(output))))

    if not resume:
        first_process(fabric, folder.require_empty)  # before anything that takes long
    data, val = _open(data_root, settings, tell)
    workers = _workers(settings, fabric)
    choices: list[Choice] = []
    if fit is not None and not resume:
        tell({"event": "fitting"})
        here = Surroundings(fabric.device, precision, fabric.world_size, workers)
        settings, choices = _fit(fabric, lambda: fit(data, val, here))
        tell({"event": "fitted", "choices": choices})
    tell({"event": "coverage", **_coverage(data, settings)})
    if main:
        opened = {split.split: split for split in (data, val)}
        tell({"event": "findings", "findings": examine(opened, settings.model, read=False)})
    saved = resume_file.load(folder.resume) if resume else None
    with torch.random.fork_rng():
        torch.manual_seed(settings.train.seed)
        if resume:
            model, kept = RetinaNet(settings.model, len(data.class_names), load_weights=False), None
        else:
            model, kept = start.begin(settings, data.class_names)
    if kept is not None:
        tell({"event": "kept", "kept": kept})
    settings = dataclasses.replace(settings, model=model.settings)
    train_settings = settings.train
    progress = Progress()
    if saved is not None:
        with resume_file.restoring(folder.resume):
            progress = _check(saved, settings, data, folder)
            model.load_state_dict(saved["model"])
    averaged = Ema(model, train_settings.ema) if train_settings.ema is not None else None
    learner: Any = Learner(model, settings.loss, data.class_names)
    optimizer: Any = make_optimizer(model, train_settings)
    learner, optimizer = fabric.setup(learner, optimizer)
    if averaged is not None:
        averaged.model.to(fabric.device)
    if saved is not None:
        with resume_file.restoring(folder.resume):
            optimizer.load_state_dict(saved["optimizer"])
            fabric.strategy.precision.load_state_dict(saved["precision"])
            if averaged is not None:
                averaged.model.load_state_dict(saved["ema"])
    detector = Detector(averaged.model if averaged else model, data.class_names, precision)
    del saved

    plan = Plan.of(train_settings, len(data))
    evaluation_steps = max(1, round(train_settings.eval_every * len(data) / train_settings.batch_size))
    validation = Validation(fabric, val, train_settings.eval_pictures, 8, workers)
    began = begin - progress.elapsed  # opening and checking the data counts: a budget is the user's time
    last_save = time.monotonic()
    clock = Clock(fabric.device, progress.seconds_in)
    unseen: list[tuple[int, float, Tensor]] = []  # step, learning rate, losses on the device
    seen_at = time.monotonic()
    step_seconds = 0.0
    measured: Measured | None = None
    stopped = "finished"
    evaluation_timed = False

    def elapsed() -> float:
        nonlocal step_seconds
        now = time.monotonic() - began
        if fabric.world_size > 1 and plan.budget is not None:
            # Clocks and measured times differ between processes, and all have to come to the same decisions.
            now, plan.reserve, step_seconds = fabric.broadcast((now, plan.reserve, step_seconds))
        return now

    def save() -> None:
        nonlocal last_save
        last_save = time.monotonic()
        _require_finite(model, progress.step, folder)
        first_process(fabric, write_resume_file)

    def write_resume_file() -> None:
        contents = {
            "progress": dataclasses.asdict(
                dataclasses.replace(progress, elapsed=time.monotonic() - began, seconds_in=clock.seconds())
            ),
            "settings": to_plain(settings),
            "classes": list(data.class_names),
            "pictures": len(data),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "precision": fabric.strategy.precision.state_dict(),
            "ema": averaged.model.state_dict() if averaged is not None else {},
        }
        resume_file.save(folder.resume, contents)
        tell({"event": "saved", "path": str(folder.resume), "step": progress.step})

    def look() -> None:
        """Report the losses of the steps since the last look, and stop at one that is not finite."""
        nonlocal seen_at, step_seconds
        if not unseen:
            return
        losses = torch.stack([values for _, _, values in unseen]).tolist()  # waits for the device
        now = time.monotonic()
        step_seconds = (now - seen_at) / len(unseen)
        rate = train_settings.batch_size / max(step_seconds, 1e-9)
        seen_at = now
        for (step, lr, _), (class_loss, box_loss) in zip(unseen, losses):
            if not math.isfinite(class_loss + box_loss):
                raise _not_finite(step, class_loss, box_loss, data, settings, folder)
            row: dict[str, float] = {
                "step": step,
                "epoch": step * train_settings.batch_size / len(data),
                "seconds": now - began,
                "lr": lr,
                "class_loss": class_loss,
                "box_loss": box_loss,
                "pictures_per_second": rate,
            }
            if main:
                folder.log(row)
            left = plan.seconds_left(step, now - began, step_seconds)
            fraction = plan.progress(step, now - began)
            tell({"event": "step", "steps": plan.steps, "fraction": fraction, "seconds_left": left, **row})
        unseen.clear()

    def evaluate(final: bool) -> None:
        nonlocal measured, seen_at, evaluation_timed
        start = time.monotonic()
        _require_finite(detector.model, progress.step, folder)
        detector.model.eval()  # the trained model itself where there is no average of it
        if fabric.world_size > 1:  # statistics of batch normalisation differ, and the first process's are saved
            for buffer in detector.model.buffers():
                torch.distributed.broadcast(buffer, src=0)
        with clock.part("evaluation", on_device=False):
            measured = validation.measure(
                detector,
                final,
                lambda done, total: tell({"event": "evaluation_progress", "done": done, "total": total}),
            )
        stats = measured.stats
        model.train()
        better = measured.comparable > progress.best
        if better:
            progress.best, progress.best_step, progress.evaluations_since_best = measured.comparable, progress.step, 0
        else:
            progress.evaluations_since_best += 1

        def write() -> None:
            facts = {
                "step": progress.step,
                "metrics": stats,
                "split": val.split,
                "threshold": measured.threshold,
            }
            for path in [folder.best, folder.last] if better else [folder.last]:
                checkpoints.native.save(path, detector.model.state_dict(), model.settings, data.class_names, facts)
            epoch = progress.step * train_settings.batch_size / len(data)
            folder.log({"step": progress.step, "epoch": epoch, "seconds": time.monotonic() - began, **stats})
            validation.write(folder, progress.step, measured)
            draw_curves(folder.path)

        first_process(fabric, write)
        tell({"event": "evaluation", "step": progress.step, "best": better, **stats})
        took = time.monotonic() - start
        evaluation_timed = True
        plan.reserve = took if final else took * len(val) / len(validation.some) * 1.1 + plan.writing
        seen_at = time.monotonic()

    def report() -> None:
        assert measured is not None, "a run ends with an evaluation"
        try:
            write_report(folder, settings, data, val, detector, measured, progress.step, clock.seconds())
        except Exception as error:  # a run that took hours does not fail for its report
            tell({"event": "problem", "text": f"{folder.report} could not be written: {first_line(error)}"})

    def open_folder() -> None:
        if not resume:
            chosen = [choice.plain() for choice in choices]
            weights = kept.plain() if kept is not None else None
            folder.create(settings, Path(data_root), data.class_names, sys.argv, chosen, weights)
        else:
            folder.write_settings(settings)
        folder.open_logs(progress.step)

    first_process(fabric, open_folder)
    tell(
        {
            "event": "start",
            "steps": plan.steps,
            "budget": plan.budget,
            "pictures": len(data),
            "step": progress.step,
            "processes": fabric.world_size,
            "device": str(fabric.device),
            "precision": precision,
            "output": str(folder.path),
        }
    )
    batches = train_batches(
        data,
        settings,
        start_step=progress.step,
        rank=fabric.global_rank,
        world=fabric.world_size,
        workers=workers,
        transform=transform,
    )
    try:
        with Interrupt(enabled=fabric.world_size == 1) as interrupt:
            if not resume:
                save()  # a run killed in its first minute resumes too; and a disk that is full says so now
            model.train()
            if progress.step == 0:
                progress.begun = elapsed()
            plan.begun = progress.begun
            while not plan.over(progress.step, now := elapsed(), step_seconds):
                done = plan.progress(progress.step, now)
                lr = scaled_lr(train_settings) * lr_factor(train_settings, progress.step, done)
                set_lr(optimizer, lr)
                with clock.part("data", on_device=False):
                    parts = next(batches)
                # Dropout and the like in a backbone: a function of the step, so that a resumed run draws the same.
                torch.manual_seed(hash((train_settings.seed, progress.step, fabric.global_rank)) % (1 << 62))
                losses = backward(fabric, learner, parts, settings.matching, clock)
                with clock.part("optimiser"):
                    if train_settings.clip is not None:
                        clip = train_settings.clip
                        fabric.clip_gradients(learner, optimizer, max_norm=clip, error_if_nonfinite=False)
                    optimizer.step()
                    optimizer.zero_grad()
                    if averaged is not None:
                        averaged.update(model, progress.step)
                progress.step += 1
                unseen.append((progress.step, lr, losses))
                if fabric.device.type == "cpu" or len(unseen) == LOOK_EVERY:
                    look()
                if plan.budget is not None and not evaluation_timed:
                    # A guess; the first steps, which are slow, would make it far too long.
                    guess = 0.5 * step_seconds / train_settings.batch_size * len(val)
                    plan.reserve = min(plan.reserve or guess + plan.writing, guess + plan.writing)
                if interrupt.requested:
                    look()
                    save()
                    raise KeyboardInterrupt(f"step {progress.step} is saved; go on with --resume {folder.path}")
                due = train_settings.eval_every > 0 and progress.step % evaluation_steps == 0
                # With a budget an evaluation takes its time from the training: none shortly before the last one.
                if due and not plan.over(progress.step, elapsed() + 4 * plan.reserve, step_seconds):
                    look()
                    evaluate(final=False)
                    save()
                    patience = train_settings.patience
                    if patience is not None and progress.evaluations_since_best >= patience:
                        stopped = "patience"
                        break
                elif time.monotonic() - last_save > seconds(train_settings.save_every):
                    look()
                    save()
            look()
            if stopped == "finished" or len(validation.some) < len(val):
                evaluate(final=True)
                save()
            if train_settings.report:
                first_process(fabric, report)
    finally:
        if main:
            folder.close()
    summary = {
        "output": str(folder.path),
        "steps": progress.step,
        "seconds": time.monotonic() - began,
        "stopped": stopped,
        "last": measured.stats if measured is not None else {},
        "best_step": progress.best_step,
        "best_AP": progress.best,
    }
    tell({"event": "end", "summary": summary})
    return summary


def _open(
    data_root: str | Path, settings: Settings, tell: Callable[[Event], None]
) -> tuple[DetectionData, DetectionData]:
    """The splits to learn from and to measure on; what was found wrong in them is told."""
    options = settings.data

    def checking(done: int, total: int) -> None:
        tell({"event": "checking", "done": done, "total": total})

    data = open_data(data_root, options.train, strict=options.strict, on_progress=checking)
    val = open_data(data_root, options.val, strict=options.strict, class_names=data.class_names, on_progress=checking)
    tell({"event": "data", "train": data, "val": val})
    return data, val


def _fit(fabric: Fabric, fit: Callable[[], tuple[Settings, list[Choice]]]) -> tuple[Settings, list[Choice]]:
    """What the first process chose: times and free memory differ between processes."""
    result: list[tuple[Settings, list[Choice]]] = []
    first_process(fabric, lambda: result.append(fit()))
    if fabric.world_size > 1:
        result = fabric.broadcast(result)
    return result[0]


def _coverage(data: DetectionData, settings: Settings) -> dict[str, Any]:
    share, lost = lost_boxes(data, settings.model, settings.matching)
    return {"share": share, "lost": lost}


def _workers(settings: Settings, fabric: Fabric) -> int:
    if settings.data.workers >= 0:
        return settings.data.workers
    # A network on the processor uses all of its cores; loaders beside it would only take turns with it.
    return 0 if fabric.device.type == "cpu" else choose_workers(max(1, fabric.world_size // settings.train.nodes))


def _check(saved: dict[str, Any], settings: Settings, data: DetectionData, folder: RunFolder) -> Progress:
    """The progress of a saved run, if it can be gone on with under these settings and this data.

    Raises:
        RequestError: it cannot.
    """
    then = to_plain(from_plain(Settings, saved["settings"]))  # an older version's lack what came since
    now = to_plain(settings)
    fixed = ("model", "matching", "loss")
    changed = [f"{part}.{key}" for part in fixed for key in now[part] if now[part][key] != then[part][key]]
    fixed_train = ("batch_size", "optimizer", "ema", "seed")
    changed += [f"train.{key}" for key in fixed_train if now["train"][key] != then["train"][key]]
    if changed:
        raise RequestError(f"cannot resume {folder.path} with other settings than it began with: {', '.join(changed)}")
    if list(data.class_names) != saved["classes"] or len(data) != saved["pictures"]:
        raise RequestError(
            f"cannot resume {folder.path}: the data set {data.root} has changed, from {saved['pictures']} pictures of "
            f"{len(saved['classes'])} classes to {len(data)} of {len(data.class_names)}; start a new run"
        )
    return Progress(**saved["progress"])


def _require_finite(model: RetinaNet, step: int, folder: RunFolder) -> None:
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise DivergedError(
            f"a weight is not finite any more after step {step}, so nothing was saved; the last good save is "
            f"{folder.resume}: start anew with a smaller train.lr or with train.clip"
        )


def _not_finite(
    step: int, class_loss: float, box_loss: float, data: DetectionData, settings: Settings, folder: RunFolder
) -> DivergedError:
    pictures = [data.path(index).name for _, index in TrainingSteps(data, settings).pictures(step - 1)]
    listed = ", ".join(pictures[:16]) + (f" and {len(pictures) - 16} more" if len(pictures) > 16 else "")
    good = folder.last if folder.last.is_file() else folder.resume
    return DivergedError(
        f"the loss is not finite at step {step} (class {class_loss:.4g}, box {box_loss:.4g}); the last good checkpoint "
        f"is {good}; the pictures of that step are {listed}; try a smaller train.lr, train.clip or train.precision fp32"
    )
