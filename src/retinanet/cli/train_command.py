"""retinanet train"""

from __future__ import annotations

import glob
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from retinanet.cli.console import Output, clock, number, setting_text
from retinanet.cli.options import Common, given
from retinanet.cli.progress import Progress
from retinanet.common.errors import RequestError
from retinanet.config import recipes
from retinanet.config.settings import LENGTHS, Settings, dotted, from_plain, merge, to_plain

if TYPE_CHECKING:
    GivenSettings = dict[str, Any]
else:
    GivenSettings = given(Settings)


# What a run may be resumed with: its length, and where and how it is computed; not what is learnt.
CHANGEABLE = {
    *(f"train.{name}" for name in LENGTHS),
    *("train.save_every", "train.patience", "train.eval_every", "train.eval_images", "train.report"),
    *("train.accelerator", "train.devices", "train.nodes", "train.strategy"),
    "data.workers",
}


USED = 0.85  # of a budget: with less there is a reason to tell


def train(
    data: Path | None = None,
    /,
    *,
    config: str | None = None,
    anchors: Literal["auto", "settings"] | None = None,
    output: Path | None = None,
    resume: Path | None = None,
    settings: Annotated[GivenSettings | None, Parameter(name="*")] = None,
    common: Common | None = None,
) -> None:
    """Train a detector on labelled images.

    Start with: retinanet train DATA --budget 15m

    Without a recipe, what is not given here (image size, anchors, network, batch, schedule) is chosen for the data
    and this machine, each with its reason. With --weights, network, image size and anchors are the checkpoint's.

    Parameters
    ----------
    data
        A folder in COCO, Pascal VOC or YOLO layout (recognised by what lies in it), or a YOLO YAML.
    config
        A recipe: a YAML file of settings, or the name of one that comes along (scratch-small, finetune-adamw,
        paper-r50-1x, ...). Settings given here go over it.
    anchors
        "auto" fits anchors (sizes, ratios, pyramid levels) to the boxes of the data, which is done anyway without a
        recipe and weights; "settings" takes those of the settings.
    output
        A new folder for the run; by default the next free runs/DATA-1, runs/DATA-2, ...
    resume
        Go on with the run in this folder, with its own data and settings. Its length may change, and how it is
        evaluated, saved and spread over devices. Where its data set was moved, give DATA: class names and number of
        training images have to be the same.
    """
    since = time.monotonic()
    out = Output(common)
    if resume is None and data is not None and (begun := begun_before(output, data)) is not None:
        out.note(f"this job was restarted: it goes on with {begun}")
        resume, data, config, output, anchors = begun, None, None, None, None
        settings = {}
    if resume is not None:
        given_too = next((n for n, v in (("config", config), ("output", output), ("anchors", anchors)) if v), None)
        if given_too is not None:
            raise RequestError(f"--resume goes on in {resume} with its own settings: leave --{given_too} out")
        data, chosen = resumed(resume, data, settings or {})
        folder = resume
    elif data is None:
        raise RequestError("which data? retinanet train DATA, or --resume RUN to go on with a run")
    else:
        if not data.exists():  # before anything is imported or made
            raise RequestError(f"there is no data set {data}: no such file or folder")
        given_anchors = [name for name in dotted(settings or {}) if name.startswith("model.anchors.")]
        if anchors == "auto" and given_anchors:
            raise RequestError(f"--anchors auto chooses what {', '.join(given_anchors)} sets: leave one of them out")
        chosen = beginning(out, config, settings)
        folder = output or next_folder(data)

    from retinanet.training import fitted_defaults
    from retinanet.training.trainer import train as run

    fit = None
    if resume is None and config is None:
        # A checkpoint's heads know its own anchors: others only if they are asked for.
        fitted_anchors = anchors == "auto" or (anchors is None and chosen.train.weights == "none")
        fit = partial(fitted_defaults.fit, settings or {}, fitted_anchors)
    elif anchors == "auto":
        fit = partial(fitted_defaults.fit_anchors_only, chosen)
    with Progress(out) as progress:
        summary = run(data, chosen, folder, resume=resume is not None, fit=fit, callbacks=[progress], since=since)
    report(out, summary, data, chosen.data.val)
    out.json(summary)


def begun_before(output: Path | None, data: Path) -> Path | None:
    """The run that this job began before a launcher restarted it, if there is something to go on from."""
    from retinanet.training.launcher import begun_by_this_job

    folders = [output] if output is not None else sorted(Path("runs").glob(f"{glob.escape(data_name(data))}-*"))
    return next((f for f in folders if begun_by_this_job(f) and (f / "resume.pt").is_file()), None)


def beginning(out: Output, config: str | None, settings: Mapping[str, Any] | None) -> Settings:
    """What is known of a run's settings before its data are."""
    if recipes.weights(config, settings) == "none":
        return recipes.load(config or recipes.FITTED, settings)  # mistakes are told before anything heavy is imported
    from retinanet.training import initial_weights

    chosen = initial_weights.settings(config, settings)
    given_too = dotted(settings or {})
    if overruled := [name for name in initial_weights.overruled(recipes.values(config)) if name not in given_too]:
        out.note(
            f"the model is that of {chosen.train.weights}; of the recipe are left out: {', '.join(overruled)} "
            "(given on the command line they count)"
        )
    return chosen


def report(out: Output, summary: Mapping[str, Any], data: Path, split: str) -> None:
    """What came of a run and what to do with it."""
    last, folder = summary["last"], summary["output"]
    why = " (no better AP for as long as train.patience allows)" if summary["stopped"] == "patience" else ""
    out.say(
        f"{summary['steps']} steps in {clock(summary['seconds'])}{why}: "
        f"AP {number(last.get('AP'))}, AP50 {number(last.get('AP50'))} on split {split}",
        *budget_lines(summary),
        f"the run is in {folder}: best.safetensors (AP {number(summary['best_AP'])} at step {summary['best_step']}), "
        "last.safetensors, report.html, metrics.csv",
        f"next: retinanet evaluate {folder} {data}" + (f" --split {split}" if split != "val" else ""),
    )


def budget_lines(summary: Mapping[str, Any]) -> list[str]:
    """How much of a budget was used, and why where it is far less."""
    budget = summary.get("budget")
    if budget is None:
        return []
    used = summary["seconds"] / budget
    line = f"{used:.0%} of the budget of {clock(budget)} used"
    if used >= USED:
        return [line]
    if summary["stopped"] == "patience":
        return [f"{line}: train.patience ended the run"]
    kept, took = clock(summary["kept"]), clock(summary["evaluation"])
    return [f"{line}: {kept} were kept for the last evaluation and the report, and the evaluation took {took}"]


def data_name(data: Path) -> str:
    return data.resolve().stem if data.is_file() else data.resolve().name


def next_folder(data: Path) -> Path:
    """The first of runs/NAME-1, runs/NAME-2, ... that is not there."""
    name = data_name(data)
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder


def resumed(folder: Path, data: Path | None, given: Mapping[str, Any]) -> tuple[Path, Settings]:
    """Data and settings of a run, with the changes that a resumed run allows.

    Raises:
        RequestError: ``folder`` holds no run, or ``data`` or ``given`` contradict it.
    """
    from retinanet.training.run_folder import read_run

    if not folder.is_dir():
        raise RequestError(f"cannot resume {folder}: there is no such folder")
    own_data, settings = read_run(folder)
    if data is not None and not data.exists():
        raise RequestError(f"there is no data set {data}: no such file or folder")
    own = to_plain(settings)
    changed = to_plain(from_plain(Settings, merge(_without_length(own), given)))
    before, after = dotted(own), dotted(changed)
    wanted = dotted(given)
    for name in wanted:
        if name not in CHANGEABLE and after.get(name) != before.get(name):
            raise RequestError(
                f"the run in {folder} has {name} {setting_text(before.get(name))} and cannot go on with "
                f"{setting_text(after.get(name))}: leave it out, or start a new run"
            )
    lengthened = any(wanted.get(f"train.{name}") is not None for name in LENGTHS)
    return data or own_data, from_plain(Settings, merge(_without_length(own) if lengthened else own, given))


def _without_length(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {**plain, "train": {k: v for k, v in plain.get("train", {}).items() if k not in LENGTHS}}
