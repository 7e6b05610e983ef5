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
from retinanet.common.fields import from_plain
from retinanet.config import recipes
from retinanet.config.convert import dotted, merge, to_plain
from retinanet.config.settings import LENGTHS, Settings

if TYPE_CHECKING:
    GivenSettings = dict[str, Any]
else:
    GivenSettings = given(Settings)


# Settings that a resumed run may change: its length, evaluations, saves and devices; not the training itself.
CHANGEABLE = {
    *(f"train.{name}" for name in LENGTHS),
    *("train.save_every", "train.patience", "train.eval_every", "train.eval_images", "train.report"),
    *("train.accelerator", "train.devices", "train.nodes", "train.strategy"),
    "data.workers",
}
MUCH = 0.85  # of a budget; if less was used, the reason is reported


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

    Without a recipe, settings that are not given (image size, anchors, network, batch size, schedule) are chosen for
    the data and this machine, and reported with reasons. With --weights, the network, the image size and the anchors
    are those of the checkpoint.

    Parameters
    ----------
    data
        A folder in COCO, Pascal VOC, YOLO or another layout (recognised by its files), or its YAML, JSON or CSV.
    config
        A recipe: a YAML file of settings, or the name of one in the package (scratch-small, finetune-adamw,
        paper-r50-1x, ...). Options replace its settings.
    anchors
        Whether to fit the anchors to the data. "auto" fits sizes, ratios and pyramid levels to the boxes. "settings"
        takes the anchors of the settings. The default is "auto" without a recipe and weights, else "settings".
    output
        A new folder for the run. By default the next free runs/DATA-1, runs/DATA-2, ...
    resume
        Resume the run in this folder, with its data and settings. The length of the run, its evaluations, saves and
        devices may change. If the data set was moved, give DATA. Its class names and its number of training images
        must be the same.
    """
    since = time.monotonic()
    out = Output(common)
    if resume is None and data is not None and (begun := begun_before(output, data)) is not None:
        out.note(f"this job was restarted: it resumes {begun}")
        resume, data, config, output, anchors = begun, None, None, None, None
        settings = {}
    if resume is not None:
        others = {"config": config, "output": output, "anchors": anchors}
        if given_too := next((name for name, value in others.items() if value), None):
            raise RequestError(f"--resume takes the settings of {resume}: leave out --{given_too}")
        data, chosen = resumed(resume, data, settings or {})
        folder = resume
    elif data is None:
        raise RequestError("give a data set: retinanet train DATA; or a run to resume: retinanet train --resume RUN")
    else:
        if not data.exists():  # before anything is imported or made
            raise RequestError(f"there is no data set {data}: no such file or folder")
        given_anchors = [name for name in dotted(settings or {}) if name.startswith("model.anchors.")]
        if anchors == "auto" and given_anchors:
            raise RequestError(f"--anchors auto chooses what {', '.join(given_anchors)} sets: leave out one of them")
        chosen = beginning(out, config, settings)
        folder = output or next_folder(data)

    from retinanet.training import fitted_defaults
    from retinanet.training.trainer import train as run

    fit = None
    if resume is None and config is None:
        # The heads of a checkpoint were trained with its anchors, so other anchors need --anchors auto.
        fitted_anchors = anchors == "auto" or (anchors is None and chosen.train.weights == "none")
        fit = partial(fitted_defaults.fit, settings or {}, fitted_anchors)
    elif anchors == "auto":
        fit = partial(fitted_defaults.fit_anchors_only, chosen)
    with Progress(out) as progress:
        summary = run(data, chosen, folder, resume=resume is not None, fit=fit, callbacks=[progress], since=since)
    report(out, summary, data, chosen.data.val)
    out.json(summary)


def begun_before(output: Path | None, data: Path) -> Path | None:
    """The run that this job began before a launcher restarted it, if it has been saved."""
    from retinanet.training.launcher import begun_by_this_job

    folders = [output] if output is not None else sorted(Path("runs").glob(f"{glob.escape(data_name(data))}-*"))
    return next((f for f in folders if begun_by_this_job(f) and (f / "resume.pt").is_file()), None)


def beginning(out: Output, config: str | None, settings: Mapping[str, Any] | None) -> Settings:
    """The settings of a run as far as they are known before its data is opened."""
    if recipes.weights(config, settings) == "none":
        return recipes.load(config or recipes.FITTED, settings)  # reports mistakes before heavy imports
    from retinanet.training import initial_weights

    chosen = initial_weights.settings(config, settings)
    given_too = dotted(settings or {})
    if overruled := [name for name in initial_weights.overruled(recipes.values(config)) if name not in given_too]:
        out.note(
            f"the model settings are those of {chosen.train.weights}; the recipe's {', '.join(overruled)} are ignored "
            "(to set them, give them on the command line)"
        )
    return chosen


def report(out: Output, summary: Mapping[str, Any], data: Path, split: str) -> None:
    """Print the result of a run, and the next command."""
    last, folder = summary["last"], summary["output"]
    why = " (stopped by train.patience: the AP did not rise)" if summary["stopped"] == "patience" else ""
    out.say(
        f"{summary['steps']} steps in {clock(summary['seconds'])}{why}: "
        f"AP {number(last.get('AP'))}, AP50 {number(last.get('AP50'))} on split {split}",
        *budget_lines(summary),
        f"the run is in {folder}: best.safetensors (AP {number(summary['best_AP'])} at step {summary['best_step']}), "
        "last.safetensors, report.html, metrics.csv",
        f"next: retinanet evaluate {folder} {data}" + (f" --split {split}" if split != "val" else ""),
    )


def budget_lines(summary: Mapping[str, Any]) -> list[str]:
    """How much of a budget was used, and the reason if much was not."""
    budget = summary.get("budget")
    if budget is None:
        return []
    used = summary["seconds"] / budget
    line = f"{used:.0%} of the budget of {clock(budget)} used"
    if used >= MUCH:
        return [line]
    if summary["stopped"] == "patience":
        return [f"{line}: train.patience ended the run"]
    reserved, took = clock(summary["reserved"]), clock(summary["evaluation"])
    return [f"{line}: {reserved} were reserved for the last evaluation and the report, and the evaluation took {took}"]


def data_name(data: Path) -> str:
    return data.resolve().stem if data.is_file() else data.resolve().name


def next_folder(data: Path) -> Path:
    """The first of runs/NAME-1, runs/NAME-2, ... that does not exist."""
    name = data_name(data)
    number = 1
    while (folder := Path("runs") / f"{name}-{number}").exists():
        number += 1
    return folder


def resumed(folder: Path, data: Path | None, given: Mapping[str, Any]) -> tuple[Path, Settings]:
    """Data and settings of a run, with the changes that a resumed run may have.

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
