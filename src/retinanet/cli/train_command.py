"""retinanet train"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from retinanet.cli.options import Common, given, output_of
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
        A folder in COCO, Pascal VOC or YOLO layout (recognized by its files), or the YAML file of a YOLO data set.
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
    out = output_of(common)
    if data is not None and not data.exists():
        raise RequestError(f"there is no data set {data}: no such file or folder")
    if resume is None and recipes.weights(config, settings) in STARTS:
        recipes.load(config or recipes.FITTED, settings)  # reports mistakes before heavy imports

    from retinanet.training import run_request, trainer

    request = run_request.of_run(data, settings or {}, config=config, anchors=anchors, output=output, resume=resume)
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
