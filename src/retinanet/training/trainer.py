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
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from lightning.fabric import Fabric
from torch import Tensor

from retinanet import checkpoints
from retinanet.analysis.anchor_fit import Choice, lost_boxes
from retinanet.analysis.doctor import examine
from retinanet.common.errors import DivergedError, RequestError, first_line
from retinanet.common.precision import Precision
from retinanet.common.printable import NAME, printable
from retinanet.config.settings import LENGTHS, Settings, from_plain, seconds, to_plain
from retinanet.data import DetectionData, open_data
from retinanet.data.dataset import spread
from retinanet.data.loader import TrainingSteps, Transform, choose_workers, train_batches
from retinanet.evaluation import coco_metrics
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet
from retinanet.training import initial_weights
from retinanet.training import resume_state as resume_file
from retinanet.training.collectives import Decision, agree, all_end, all_reduce, every_process, first_process, of_first
from retinanet.training.ema import Ema
from retinanet.training.fabric import launch, make_fabric, seed, without_notes
from retinanet.training.optimizer import make_optimizer, set_lr
from retinanet.training.run_folder import RunFolder
from retinanet.training.run_report import FinishedRun, write_report
from retinanet.training.schedule import REPORT_IMAGES, Plan, ema_decay, interval, lr_factor, scaled_lr
from retinanet.training.signals import Interrupt, Stopped
from retinanet.training.step import Learner, backward
from retinanet.training.step_decisions import ANY, Decider
from retinanet.training.step_timer import Clock
from retinanet.training.validation import Measured, Validation
from retinanet.weight_files import metadata

Event = dict[str, Any]
LOOK_EVERY = 20  # steps whose losses stay on a GPU before they are read, for which the CPU has to wait
FIRST_LOOK = 3  # the same before a step was ever timed
NAMED = 3  # classes named where a data set is not that of the run
TRIED = 4  # validation images by which an evaluation is timed before there was one


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
    evaluated: int = 0  # step of the last evaluation
    finished: str = ""  # "finished" or "patience" once there is nothing left to do
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
    since: float | None = None,
) -> dict[str, Any]:
    """Train a detector and measure it.

    A finished run that is resumed without a longer length stays as it is; its summary is returned again.

    Args:
        data_root: a data set, see :func:`retinanet.data.open_data`.
        settings: what to train, on which splits, and how; the length of a resumed run may be changed.
        output: the run folder (see :mod:`retinanet.training.run_folder`); new or empty unless ``resume``, or begun by
            the same job, which was restarted before its first save.
        resume: go on from ``output``'s last save.
        fit: called with the opened data; the settings that it gives take the place of ``settings``, but for what says
            which data, devices and precision. See :mod:`retinanet.training.fitted_defaults`.
        transform: called on each training image, see :func:`retinanet.data.loader.train_batches`.
        on_event: told what happens as dicts with the key "event": "checking" (done, total: images of a split that is
            opened), "data" (train, val: the opened splits, with their reports), "fitting" and "fitted" (choices: what
            ``fit`` chose, see :class:`retinanet.analysis.anchor_fit.Choice`), "coverage" (share of the training boxes
            that the anchors cover, lost: None or a line about the others), "findings" (findings: of
            :func:`retinanet.analysis.doctor.examine`), "kept" (kept: what of ``train.weights`` was, see
            :class:`retinanet.training.initial_weights.Kept`), "start" (step, steps or None, budget or None, images,
            processes, device, precision, output), "step" (steps, fraction, seconds_left and a row
            of metrics.csv), "evaluation_progress" (done, total), "evaluation" (step, best, the twelve numbers),
            "saved" (path, step), "end" (summary), "finished" (summary: there was nothing to resume). Called in the
            first process only.
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
        return _train(fabric, precision, begin, data_root, settings, output, resume, fit, transform, on_event)


def _train(
    fabric: Fabric,
    precision: Precision,
    begin: float,
    data_root: str | Path,
    settings: Settings,
    output: str | Path,
    resume: bool,
    fit: Fit | None,
    transform: Transform | None,
    on_event: Callable[[Event], None] | None,
) -> dict[str, Any]:
    """:func:`train` in one of its processes."""
    main, several = fabric.is_global_zero, fabric.world_size > 1
    tell: Callable[[Event], None] = on_event if on_event is not None and main else lambda event: None
    folder = RunFolder(Path(fabric.broadcast(str(output))))

    if not resume:
        first_process(fabric, folder.require_empty)  # before anything that takes long
    saved = every_process(fabric, lambda: resume_file.load(folder.resume)) if resume else None
    check = partial(_check_data, saved, folder)
    if saved is not None:
        with resume_file.restoring(folder.resume):
            _check_settings(saved, settings, folder)
            summary = of_first(fabric, partial(_finished, saved, settings, folder))
        if summary is not None:
            if not of_first(
                fabric, partial(folder.trained_on, Path(data_root))
            ):  # another path is believed only once the data is seen to fit
                every_process(fabric, partial(_open, data_root, settings, tell, check))
            tell({"event": "finished", "summary": summary})
            return summary
    if resume:
        every_process(fabric, lambda: _require_data(data_root, folder))
    data, val = every_process(fabric, partial(_open, data_root, settings, tell, check))
    workers = _workers(settings, fabric)
    choices: list[Choice] = []
    if fit is not None and not resume:
        tell({"event": "fitting"})
        here = Surroundings(fabric.device, precision, fabric.world_size, workers)
        settings, choices = of_first(fabric, lambda: fit(data, val, here))
        tell({"event": "fitted", "choices": choices})
    tell({"event": "coverage", **_coverage(data, settings)})
    if main:
        opened = {split.split: split for split in (data, val)}
        tell({"event": "findings", "findings": examine(opened, settings.model, read=False)})
    model, kept = every_process(fabric, lambda: _model(settings, data, resume))
    if kept is not None:
        tell({"event": "kept", "kept": kept})
    settings = dataclasses.replace(settings, model=model.settings)
    train_settings = settings.train
    progress = Progress()
    if saved is not None:
        with resume_file.restoring(folder.resume):
            progress = Progress(**saved["progress"] | {"finished": ""})
            model.load_state_dict(saved["model"])
    averaged = Ema(model, train_settings.ema) if train_settings.ema is not None else None
    learner: Any = Learner(model, settings.loss, data.class_names)
    optimizer: Any = make_optimizer(model, train_settings)
    with without_notes():
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
    del saved, check

    plan = Plan.of(train_settings, len(data))
    plan.begun = progress.begun  # of a run that is resumed
    chosen = of_first(fabric, lambda: folder.chosen() if resume else {c.setting: c.value for c in choices})
    evaluation_steps = interval(train_settings.eval_every, len(data), train_settings.batch_size)
    if plan.budget is not None and chosen.get("train.eval_every") == train_settings.eval_every:
        evaluation_steps = ANY
    follows = plan.budget is not None and chosen.get("train.ema") == train_settings.ema
    validation = Validation(fabric, val, train_settings.eval_images, 8, workers)
    began = begin - progress.elapsed  # opening and checking the data counts: a budget is the user's time
    decider = Decider(
        plan,
        seconds(train_settings.save_every),
        evaluation_steps if train_settings.eval_every > 0 else 0,
        several,
        progress.evaluated,
        time.monotonic() - began,
    )
    clock = Clock(fabric.device, progress.seconds_in)
    unseen: list[tuple[int, float, Tensor]] = []  # step, learning rate, this process's share of the losses
    seen_at = time.monotonic()
    measured: Measured | None = None

    def elapsed() -> float:
        return time.monotonic() - began

    def save() -> None:
        progress.elapsed = decider.saved = elapsed()
        _require_finite(model, progress.step, folder)
        first_process(fabric, write_resume_file)

    def write_resume_file() -> None:
        contents = {
            "progress": dataclasses.asdict(dataclasses.replace(progress, seconds_in=clock.seconds())),
            "settings": to_plain(settings),
            "classes": list(data.class_names),
            "images": len(data),
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "precision": fabric.strategy.precision.state_dict(),
            "ema": averaged.model.state_dict() if averaged is not None else {},
        }
        resume_file.save(folder.resume, contents)
        tell({"event": "saved", "path": str(folder.resume), "step": progress.step})

    def look() -> None:
        """Report the losses of the steps since the last look, and stop at one that is not finite."""
        nonlocal seen_at
        if not unseen:
            return
        losses = all_reduce(torch.stack([values for _, _, values in unseen])).tolist()  # waits for the device
        now = time.monotonic()
        step_seconds = (now - seen_at) / len(unseen)
        decider.stepped(step_seconds)
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
                "images_per_second": rate,
            }
            if main:
                folder.log(row)
            left = plan.seconds_left(step, now - began, step_seconds)
            fraction = plan.progress(step, now - began)
            tell({"event": "step", "steps": plan.steps, "fraction": fraction, "seconds_left": left, **row})
        unseen.clear()

    def evaluate(final: bool) -> None:
        nonlocal measured, seen_at
        start = time.monotonic()
        _require_finite(detector.model, progress.step, folder)
        detector.model.eval()  # the trained model itself where there is no average of it
        if several:  # statistics of batch normalisation differ, and the first process's are saved
            for buffer in detector.model.buffers():
                torch.distributed.broadcast(buffer, src=0)
        with clock.part("evaluation", on_device=False):
            measured = validation.measure(
                detector,
                final,
                lambda done, total: tell({"event": "evaluation_progress", "done": done, "total": total}),
                lambda: interrupt.requested,
            )
        detected = time.monotonic()
        model.train()
        if measured is None:
            stop(agree(fabric, Decision(), interrupt.signal).signal)
        stats = measured.stats
        better = measured.comparable > progress.best
        if better:
            progress.best, progress.best_step, progress.evaluations_since_best = measured.comparable, progress.step, 0
        else:
            progress.evaluations_since_best += 1
        progress.evaluated = decider.evaluated = progress.step

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
            folder.log({"step": progress.step, "epoch": epoch, "seconds": elapsed(), **stats})
            validation.write(folder, progress.step, measured)

        first_process(fabric, write)
        tell({"event": "evaluation", "step": progress.step, "best": better, **stats})
        images = len(val) if final else len(validation.some)
        now = time.monotonic()
        took, files = now - start, now - detected
        decider.evaluation_took(took, images, len(val), fabric.world_size, elapsed(), files)
        seen_at = time.monotonic()

    def try_evaluation() -> None:
        """Time the evaluation of some images, by which the first process of a budget knows what to keep for all."""
        nonlocal seen_at
        begun = time.monotonic()
        detector.model.eval()
        indices = spread(len(val), TRIED + 1).tolist()
        validation.detect(detector, indices[:1])  # the first image takes longer
        start = time.monotonic()
        timed = indices[1:] or indices
        validation.detect(detector, timed)
        image = (time.monotonic() - start) / len(timed)
        model.train()
        took = time.monotonic() - begun
        decider.tried(image, len(validation.some), len(val), fabric.world_size, elapsed(), took)
        seen_at += took  # steps may be waiting to be read

    def take_step(now: float) -> None:
        """One step, at ``now`` seconds since the run began: the same number in all processes."""
        done = plan.progress(progress.step, now)
        lr = scaled_lr(train_settings) * lr_factor(train_settings, progress.step, done)
        set_lr(optimizer, lr)
        with clock.part("data", on_device=False):
            parts = next(batches)
        # Dropout and the like in a backbone: a function of the step, so that a resumed run draws the same.
        seed(fabric.device, hash((train_settings.seed, progress.step, fabric.global_rank)) % (1 << 62))
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
        patient = LOOK_EVERY if decider.step_seconds > 0 else FIRST_LOOK
        if not several and (fabric.device.type == "cpu" or len(unseen) >= patient):
            look()

    def stop(number: int) -> NoReturn:
        look()
        save()
        raise Stopped(f"step {progress.step} is saved; go on with --resume {folder.path}", number)

    def report() -> None:
        assert measured is not None, "a run ends with an evaluation"
        try:
            left = math.inf if plan.budget is None else plan.budget - elapsed()
            brief = left < REPORT_IMAGES * decider.evaluation_seconds * fabric.world_size / len(measured.found)
            ended = (progress.step, progress.elapsed)
            write_report(FinishedRun(folder, settings, data, val, detector, measured, *ended, clock.seconds(), brief))
        except Exception as error:  # a run that took hours does not fail for its report
            tell({"event": "problem", "text": f"{folder.report} could not be written: {first_line(error)}"})

    def open_folder() -> None:
        if not resume:
            chosen = [choice.plain() for choice in choices]
            weights = kept.plain() if kept is not None else None
            folder.create(settings, Path(data_root), data.class_names, sys.argv, chosen, weights)
        else:
            folder.write_settings(settings)
            folder.write_data(Path(data_root))
        folder.open_logs(progress.step)

    first_process(fabric, open_folder)
    tell(
        {
            "event": "start",
            "steps": plan.steps,
            "budget": plan.budget,
            "images": len(data),
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
        with Interrupt(several=several) as interrupt:
            if not resume:
                save()  # a run killed in its first minute resumes too; and a disk that is full says so now
            model.train()
            stopped = "finished"
            while True:
                while main and decider.trial_due(progress.step, elapsed()):
                    try_evaluation()
                decision = agree(fabric, decider.decide(progress.step, elapsed()), interrupt.signal)
                plan.reserve = decision.reserve
                if averaged is not None and follows and decision.expected > 0:
                    averaged.decay = ema_decay(decision.expected)
                if progress.step == 0:
                    plan.begun = progress.begun = decision.elapsed
                if decision.signal:
                    stop(decision.signal)
                if several:
                    look()
                if decision.evaluate:
                    look()
                    evaluate(final=False)
                    save()
                    patience = train_settings.patience
                    if patience is not None and progress.evaluations_since_best >= patience:
                        stopped = "patience"
                        break
                    continue
                if decision.save:
                    look()
                    save()
                if decision.over:
                    break
                for ahead in range(decision.steps):
                    take_step(decision.elapsed + ahead * decision.step_seconds)
            look()
            reserved, trained = plan.reserve, elapsed()
            if measured is None or progress.evaluated != progress.step or len(validation.some) < len(val):
                evaluate(final=True)
            progress.finished = stopped
            save()
            if train_settings.report:
                first_process(fabric, report)
    finally:
        if main:
            folder.close()
    summary = {
        "output": str(folder.path),
        "steps": progress.step,
        "seconds": progress.elapsed,
        "budget": plan.budget,
        "kept": reserved if plan.budget is not None else None,
        "evaluation": progress.elapsed - trained,
        "stopped": stopped,
        "last": measured.stats if measured is not None else {},
        "best_step": progress.best_step,
        "best_AP": progress.best,
    }
    tell({"event": "end", "summary": summary})
    return summary


def _model(settings: Settings, data: DetectionData, resume: bool) -> tuple[RetinaNet, initial_weights.Kept | None]:
    """The network on the CPU, the same in all processes."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.train.seed)
        if resume:
            return RetinaNet(settings.model, len(data.class_names), load_weights=False), None
        return initial_weights.begin(settings, data.class_names)


def _finished(saved: dict[str, Any], settings: Settings, folder: RunFolder) -> dict[str, Any] | None:
    """The summary of a saved run that has nothing left to do under ``settings``; otherwise None."""
    progress, before = Progress(**saved["progress"]), from_plain(Settings, saved["settings"]).train
    same = all(getattr(settings.train, name) == getattr(before, name) for name in (*LENGTHS, "patience"))
    over = Plan.of(settings.train, saved["images"]).over(progress.step, progress.elapsed)
    if not progress.finished or not (same or (over and progress.finished == "finished")):
        return None
    if settings.train.report and not folder.report.is_file():  # it ended before its report was written
        return None
    try:
        facts = metadata.parse(metadata.read_bytes(folder.path / "evaluation.json"))
        last = {name: facts[name] for name in coco_metrics.NAMES}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {
        "output": str(folder.path),
        "steps": progress.step,
        "seconds": progress.elapsed,
        "stopped": progress.finished,
        "last": last,
        "best_step": progress.best_step,
        "best_AP": progress.best,
    }


def _open(
    data_root: str | Path,
    settings: Settings,
    tell: Callable[[Event], None],
    check: Callable[[DetectionData], None],
) -> tuple[DetectionData, DetectionData]:
    """The splits to learn from and to measure on; what was found wrong in them is told.

    Args:
        check: called with the training split before anything else is opened or told.
    """
    options = settings.data

    def checking(done: int, total: int) -> None:
        tell({"event": "checking", "done": done, "total": total})

    data = open_data(data_root, options.train, strict=options.strict, on_progress=checking)
    check(data)
    _require_boxes(data, "train")
    val = open_data(data_root, options.val, strict=options.strict, class_names=data.class_names, on_progress=checking)
    _require_boxes(val, "evaluate")
    tell({"event": "data", "train": data, "val": val})
    return data, val


def _require_data(data_root: str | Path, folder: RunFolder) -> None:
    """
    Raises:
        RequestError: the data set of a resumed run was moved.
    """
    if not Path(data_root).exists():
        raise RequestError(
            f"the data set of {folder.path} is not at {data_root} any more; where it was moved, say to where: "
            f"retinanet train DATA --resume {folder.path}"
        )


def _require_boxes(data: DetectionData, what: str) -> None:
    """
    Raises:
        RequestError: there is no box to ``what`` on.
    """
    if sum(data.counts()) > 0:
        return
    if data.num_boxes > 0:
        why = f"all {data.num_boxes} are regions to ignore (COCO's iscrowd, Pascal VOC's difficult)"
    elif reason := data.report.reason():
        why = f"most often: {reason}"
    else:
        why = f"none of its {len(data)} images has an annotation"
    raise RequestError(f"split {data.split} of {data.root} has no usable box to {what} on; {why}")


def _coverage(data: DetectionData, settings: Settings) -> dict[str, Any]:
    share, lost = lost_boxes(data, settings.model, settings.matching)
    return {"share": share, "lost": lost}


def _workers(settings: Settings, fabric: Fabric) -> int:
    if settings.data.workers >= 0:
        return settings.data.workers
    # A network on the CPU uses all of its cores; loaders beside it would only take turns with it.
    return 0 if fabric.device.type == "cpu" else choose_workers(max(1, fabric.world_size // settings.train.nodes))


def _check_settings(saved: dict[str, Any], settings: Settings, folder: RunFolder) -> None:
    """
    Raises:
        RequestError: the saved run cannot go on under these settings.
    """
    then = to_plain(from_plain(Settings, saved["settings"]))  # an older version's lack what came since
    now = to_plain(settings)
    for key in ("mean", "std"):  # where they are not given the model fills them in, as it did then
        if now["model"]["preprocessing"][key] is None:
            now["model"]["preprocessing"][key] = then["model"]["preprocessing"][key]
    fixed = ("model", "matching", "loss")
    changed = [f"{part}.{key}" for part in fixed for key in now[part] if now[part][key] != then[part][key]]
    fixed_train = ("batch_size", "optimizer", "ema", "seed")
    changed += [f"train.{key}" for key in fixed_train if now["train"][key] != then["train"][key]]
    if changed:
        raise RequestError(f"cannot resume {folder.path} with other settings than it began with: {', '.join(changed)}")


def _check_data(saved: dict[str, Any] | None, folder: RunFolder, data: DetectionData) -> None:
    """
    Raises:
        RequestError: the saved run was trained on other data.
    """
    if saved is None:
        return
    with resume_file.restoring(folder.resume):
        before, images = [str(name) for name in saved["classes"]], saved["images"]
    now = list(data.class_names)
    if now == before and len(data) == images:
        return
    differing = [f"{name} is new" for name in now if name not in before]
    differing += [f"{name} is missing" for name in before if name not in now]
    if now != before and not differing:
        differing = ["the classes are in another order"]
    listed = ", ".join(printable(text, NAME) for text in differing[:NAMED])
    more = f" and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
    raise RequestError(
        f"cannot resume {folder.path}: it was trained on {images} images of {len(before)} classes, and "
        f"{data.root} has {len(data)} of {len(now)}{': ' * bool(listed)}{listed}{more}; give its own data set, or "
        "start a new run"
    )


def _require_finite(model: RetinaNet, step: int, folder: RunFolder) -> None:
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise DivergedError(
            f"a weight is not finite any more after step {step}, so nothing was saved; the last good save is "
            f"{folder.resume}: start anew with a smaller train.lr or with train.clip"
        )


def _not_finite(
    step: int, class_loss: float, box_loss: float, data: DetectionData, settings: Settings, folder: RunFolder
) -> DivergedError:
    images = [data.path(index).name for _, index in TrainingSteps(data, settings).images(step - 1)]
    listed = ", ".join(images[:16]) + (f" and {len(images) - 16} more" if len(images) > 16 else "")
    good = folder.last if folder.last.is_file() else folder.resume
    return DivergedError(
        f"the loss is not finite at step {step} (class {class_loss:.4g}, box {box_loss:.4g}); the last good checkpoint "
        f"is {good}; the images of that step are {listed}; try a smaller train.lr, train.clip or train.precision fp32"
    )
