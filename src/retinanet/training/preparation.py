"""Everything before the first step: the data, the settings and the network of a run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from retinanet.analysis.anchor_fit import ENOUGH, Choice, lost_boxes
from retinanet.analysis.doctor import examine
from retinanet.analysis.holdout import open_held_out, wanted_share
from retinanet.checkpoints.pretrained_weights import PretrainedWeights
from retinanet.common.errors import RequestError
from retinanet.common.fields import from_plain
from retinanet.common.precision import Precision
from retinanet.common.printable import NAME, listed, printable
from retinanet.config.convert import to_plain
from retinanet.config.settings import LENGTHS, Settings
from retinanet.data import DetectionData, open_data
from retinanet.data.loader import choose_workers
from retinanet.evaluation import coco_metrics
from retinanet.model import RetinaNet
from retinanet.training import events, initial_weights, resume_state, start_choice
from retinanet.training.collectives import broadcast_from_first, run_in_all, run_in_first
from retinanet.training.resume_state import Progress
from retinanet.training.run_folder import RunFolder
from retinanet.training.schedule import Plan
from retinanet.training.step_cost import Machine
from retinanet.weight_files import metadata

NAMED = 3  # classes in the message about another data set
Notify = Callable[[events.Event], None]
Summary = dict[str, Any]
"""What :func:`retinanet.train` returns.

"output" is the run folder, "last" holds COCO's twelve numbers of the last evaluation, and "stopped" is "finished",
"patience" or a callback's reason. "steps", "seconds" (without the report), "best_step" and "best_AP" are numbers.
A call that trained adds three times in seconds: "evaluation" of the last evaluation, "budget", and "reserved", the
part of the budget for the last evaluation and the report. The last two are None without a budget.
"""


Fit = Callable[[DetectionData, DetectionData, Machine, Notify], tuple[Settings, list[Choice]]]
"""(training set, validation set, machine, notify) -> the settings of the run, and what was chosen why."""


@dataclasses.dataclass
class Prepared:
    """A run that is ready to start."""

    folder: RunFolder
    settings: Settings
    """Complete: mean and standard deviation are filled in."""
    data: DetectionData
    val: DetectionData
    model: RetinaNet
    """On the CPU."""
    workers: int
    choices: Sequence[Choice] = ()
    kept: initial_weights.Kept | None = None
    chosen: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The settings that were chosen for the user, when the run began."""
    resumed: bool = False
    saved: dict[str, Any] | None = None
    """The contents of resume.pt, until they are restored."""
    start: str = ""
    """The line about what a new run starts from."""


def prepare(
    fabric: Fabric,
    precision: Precision,
    data_root: Path,
    settings: Settings,
    folder: RunFolder,
    resume: bool,
    fit: Fit | None,
    notify: Notify,
) -> Prepared | Summary:
    """Open the data and make the network. Every process must call this.

    Returns:
        What a :class:`retinanet.training.trainer.Trainer` needs, or the summary of a run that is already finished.

    Raises:
        RequestError: the settings, the data or the folder cannot be used.
    """
    if not resume:
        run_in_first(fabric, folder.require_empty)  # before anything that takes long
    saved = run_in_all(fabric, lambda: resume_state.load(folder.resume)) if resume else None
    opening = partial(open_splits, data_root, settings, notify, partial(_check_data, saved, folder))
    if saved is not None:
        with resume_state.restoring(folder.resume):
            _check_settings(saved, settings, folder)
            summary = broadcast_from_first(fabric, partial(finished_summary, saved, settings, folder))
        if summary is not None:
            if not broadcast_from_first(fabric, partial(folder.trained_on, data_root)):
                run_in_all(fabric, opening)  # raises an error if this is another data set
            notify(events.NothingToDo(summary))
            return summary
        run_in_all(fabric, lambda: _require_data(data_root, folder))
    data, val = run_in_all(fabric, lambda: _as_before(saved, folder, opening()))
    workers = _workers(settings, fabric)
    choices: list[Choice] = []
    start = ""
    if fit is not None and not resume:
        notify(events.FittingSettings())
        machine = Machine(fabric.device, precision, fabric.world_size, workers)
        settings, choices = broadcast_from_first(fabric, lambda: fit(data, val, machine, notify))
        notify(events.SettingsFitted(choices))
        start = next((choice.reason for choice in choices if choice.setting == "train.weights"), "")
    if not resume and not start:
        settings, start = broadcast_from_first(fabric, lambda: _start(settings, data, notify))
    if start:
        notify(events.StartChosen(start))
    if val.held_out is not None:  # said in the settings, so that the default may change without changing saved runs
        settings = dataclasses.replace(
            settings, data=dataclasses.replace(settings.data, val=f"{val.held_out['share']:g}")
        )
    share, lost = lost_boxes(data, settings.model, settings.matching)
    notify(events.AnchorsCover(share, lost, share >= ENOUGH))
    if fabric.is_global_zero:
        splits = {split.split: split for split in (data, val)}
        notify(events.DataExamined(examine(splits, settings.model, read=False)))
    model, kept = run_in_all(fabric, lambda: _make_model(settings, data, resume))
    if kept is not None:
        notify(events.WeightsKept(kept))
    settings = dataclasses.replace(settings, model=model.settings)
    chosen = broadcast_from_first(fabric, lambda: folder.chosen() if resume else {c.setting: c.value for c in choices})
    return Prepared(folder, settings, data, val, model, workers, choices, kept, chosen, resume, saved, start)


def _start(settings: Settings, data: DetectionData, notify: Notify) -> tuple[Settings, str]:
    """Settings that say what the run starts from, and a line about it, where settings are not fitted."""
    sources = PretrainedWeights(lambda *done: notify(events.Downloading(*done)))
    settings, start = start_choice.resolved(settings, data, sources)
    return settings, start.text


def open_folder(run: Prepared, data_root: Path, step: int, functions: Mapping[str, Any]) -> None:
    """Write the settings into the run folder, which is created for a new run, and start logging after ``step``.

    Args:
        functions: names of the user's functions and callbacks, for run.json.
    """
    if run.resumed:
        run.folder.write_settings(run.settings)
        run.folder.write_data(data_root)
    else:
        choices = [choice.plain() for choice in run.choices]
        kept = run.kept.plain() if run.kept is not None else None
        run.folder.create(run.settings, data_root, run.data.class_names, sys.argv, choices, kept, run.start)
    run.folder.add_facts(**functions)
    run.folder.open_logs(step)


def open_splits(
    data_root: Path, settings: Settings, notify: Notify, check: Callable[[DetectionData], None]
) -> tuple[DetectionData, DetectionData]:
    """The training set and the validation set.

    Args:
        check: called with the training set before the validation set is opened.
    """
    options = settings.data

    def checking(done: int, total: int) -> None:
        notify(events.CheckingImages(done, total))

    share = wanted_share(data_root, options.val)
    if share is not None:
        data, val = open_held_out(
            data_root,
            options.train,
            share,
            settings.train.seed,
            strict=options.strict,
            on_progress=checking,
            on_compare=lambda done, total: notify(events.ComparingImages(done, total)),
        )
    else:
        data = open_data(data_root, options.train, strict=options.strict, on_progress=checking)
    check(data)
    _require_boxes(data, "train")
    if share is None:
        names = data.class_names
        val = open_data(data_root, options.val, strict=options.strict, class_names=names, on_progress=checking)
    _require_boxes(val, "evaluate")
    notify(events.DataOpened(data, val))
    return data, val


def finished_summary(saved: dict[str, Any], settings: Settings, folder: RunFolder) -> Summary | None:
    """The summary of a saved run if it is finished under ``settings``; otherwise None."""
    progress, before = Progress(**saved["progress"]), from_plain(Settings, saved["settings"]).train
    same = all(getattr(settings.train, name) == getattr(before, name) for name in (*LENGTHS, "patience"))
    over = Plan.of(settings.train, saved["images"]).over(progress.step, progress.elapsed)
    if not progress.finished or not (same or (over and progress.finished == "finished")):
        return None
    if settings.train.report and not folder.report.is_file():  # the run was killed before it wrote its report
        return None
    try:
        facts = metadata.read(folder.path / "evaluation.json")
        last = {name: facts[name] for name in coco_metrics.NAMES}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return progress.summary(folder.path, last)


def _as_before(
    saved: dict[str, Any] | None, folder: RunFolder, splits: tuple[DetectionData, DetectionData]
) -> tuple[DetectionData, DetectionData]:
    """The splits, of which a resumed run validates on the images that it held out before.

    Raises:
        RequestError: other images would be held out, of which it has trained on some.
    """
    before = saved.get("held_out") if saved is not None else None
    if before is not None and before != splits[1].held_out:
        raise RequestError(
            f"cannot resume {folder.path}: the images or labels of {splits[0].root} have changed, so other images "
            "would be held out for validation; restore them, or start a new run"
        )
    return splits


def _make_model(settings: Settings, data: DetectionData, resume: bool) -> tuple[RetinaNet, initial_weights.Kept | None]:
    """The network on the CPU, the same in all processes."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.train.seed)
        if resume:
            return RetinaNet(settings.model, len(data.class_names), load_weights=False), None
        return initial_weights.begin(settings, data.class_names)


def _workers(settings: Settings, fabric: Fabric) -> int:
    if settings.data.workers >= 0:
        return settings.data.workers
    # A network on the CPU uses all cores, and loader processes would compete with it.
    return 0 if fabric.device.type == "cpu" else choose_workers(max(1, fabric.world_size // settings.train.nodes))


def _require_data(data_root: Path, folder: RunFolder) -> None:
    """
    Raises:
        RequestError: the data set of a resumed run was moved.
    """
    if not data_root.exists():
        raise RequestError(
            f"the data set of {folder.path} is not at {data_root} any more; if it was moved, give its new path: "
            f"retinanet train DATA --resume {folder.path}"
        )


def _require_boxes(data: DetectionData, what: str) -> None:
    """
    Raises:
        RequestError: there is no usable box.
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


def _check_settings(saved: dict[str, Any], settings: Settings, folder: RunFolder) -> None:
    """
    Raises:
        RequestError: the saved run cannot go on with these settings.
    """
    saved_settings = to_plain(from_plain(Settings, saved["settings"]))  # fills in settings that are newer than the run
    new = to_plain(settings)
    for key in ("mean", "std"):  # if they are not given, the model sets them as before
        if new["model"]["preprocessing"][key] is None:
            new["model"]["preprocessing"][key] = saved_settings["model"]["preprocessing"][key]
    fixed = ("model", "matching", "loss")
    changed = [
        f"{group}.{key}" for group in fixed for key in new[group] if new[group][key] != saved_settings[group][key]
    ]
    fixed_train = ("batch_size", "optimizer", "ema", "seed")
    changed += [f"train.{key}" for key in fixed_train if new["train"][key] != saved_settings["train"][key]]
    if changed:
        raise RequestError(f"cannot resume {folder.path} with other settings than it began with: {', '.join(changed)}")


def _check_data(saved: dict[str, Any] | None, folder: RunFolder, data: DetectionData) -> None:
    """
    Raises:
        RequestError: the saved run was trained on other data.
    """
    if saved is None:
        return
    with resume_state.restoring(folder.resume):
        before, images = [str(name) for name in saved["classes"]], saved["images"]
    now = list(data.class_names)
    if now == before and len(data) == images:
        return
    differing = [f"{name} is new" for name in now if name not in before]
    differing += [f"{name} is missing" for name in before if name not in now]
    if now != before and not differing:
        differing = ["the classes are in another order"]
    names = listed([printable(text, NAME) for text in differing], NAMED)
    raise RequestError(
        f"cannot resume {folder.path}: it was trained on {images} images of {len(before)} classes, and "
        f"{data.root} has {len(data)} of {len(now)}{': ' * bool(names)}{names}; give the data set of the run, or "
        "start a new run"
    )
