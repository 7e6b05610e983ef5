"""retinanet train"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from retinanet.cli.options import Common, given, output_of
from retinanet.cli.shared_options import MORE, Data
from retinanet.common.device_names import training_devices
from retinanet.common.errors import RequestError
from retinanet.config import recipes
from retinanet.config.settings import STARTS, Settings
from retinanet.terminal.console import Output, clock, number
from retinanet.terminal.progress import Progress

if TYPE_CHECKING:
    GivenSettings = dict[str, Any]
else:
    GivenSettings = given(Settings)


MUCH = 0.85  # of a budget; if less was used, the reason is reported


def train(
    data: Data | None = None,
    /,
    *,
    device: Annotated[str | None, Parameter(metavar="DEVICE")] = None,
    config: Annotated[str | None, Parameter(metavar="RECIPE")] = None,
    anchors: Annotated[Literal["auto", "settings"] | None, Parameter(group=MORE)] = None,
    output: Path | None = None,
    resume: Annotated[Path | None, Parameter(metavar="RUN")] = None,
    settings: Annotated[GivenSettings | None, Parameter(name="*")] = None,
    common: Common | None = None,
) -> None:
    """Train a detector on labelled images.

    What you do not give is fitted: chosen for the data and this machine, and reported with reasons.

    A recipe (--config) turns that off: it holds the settings that differ from the paper's. With --weights, the network,
    the image size and the anchors are those of the checkpoint. Every setting can be given by its dotted name, and has
    the same name in a recipe.

    Examples
    --------
    retinanet train DATA --budget 15m
    retinanet train DATA --weights runs/pets-1 --epochs 20
    retinanet train --resume runs/pets-1

    Parameters
    ----------
    device
        Where to train: cpu, mps, cuda, or the numbers of GPUs such as 0 or 0,1. It stands for --train.accelerator and
        --train.devices. [default: the GPUs if there are any]
    config
        A recipe: a YAML file of settings, or the name of one in the package (scratch-small, finetune-adamw,
        paper-r50-1x, ...). Options replace its settings. [default: none, fit the settings]
    anchors
        Whether to fit the anchors to the data. "auto" fits sizes, ratios and pyramid levels to the boxes. "settings"
        takes the anchors of the settings. [default: auto without a recipe and weights, else settings]
    output
        A new folder for the run. [default: next free runs/DATA-1]
    resume
        Resume the run in this folder, with its data and settings. The length of the run, its evaluations, saves and
        devices may change. If the data set was moved, give DATA. Its class names and its number of training images
        must be the same.
    """
    since = time.monotonic()
    out = output_of(common)
    chosen = on_device(device, settings or {})
    if data is not None and not data.exists():
        raise RequestError(f"there is no data set {data}: no such file or folder")
    if resume is None and recipes.weights(config, settings) in STARTS:
        recipes.load(config or recipes.FITTED, settings)  # reports mistakes before heavy imports

    from retinanet.training import run_request, trainer

    request = run_request.of_run(data, chosen, config=config, anchors=anchors, output=output, resume=resume)
    out.note(*request.notes)
    with Progress(out) as progress:
        summary = trainer.train(
            request.data,
            request.settings,
            request.output,
            resume=request.resume,
            fit=request.fit,
            callbacks=[progress],
            since=since,
        )
    report(out, summary, request.data, request.settings.data.val)
    out.json(summary)


def on_device(device: str | None, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings with those that ``--device`` stands for.

    Raises:
        RequestError: ``device`` is no device, or the settings name another one.
    """
    if device is None:
        return settings
    train = settings.get("train", {})
    if other := next((name for name in ("accelerator", "devices") if name in train), None):
        raise RequestError(
            f"--device {device} and --train.{other} {train[other]} contradict each other: give one of them"
        )
    return {**settings, "train": {**train, **training_devices(device)}}


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
