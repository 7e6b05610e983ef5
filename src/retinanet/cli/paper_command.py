"""retinanet paper"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from retinanet.cli.options import Common, output_of
from retinanet.cli.shared_options import MORE
from retinanet.common.arguments import require_data
from retinanet.common.errors import RequestError
from retinanet.terminal.console import Output, clock, number
from retinanet.terminal.progress import Progress, StepProgress

if TYPE_CHECKING:
    from retinanet.paper.grid import Result, Run
    from retinanet.paper.paper_run import Plan

Name = Literal[
    "prior", "hinge", "table-1a", "table-1b", "table-1c", "table-1d", "table-1e", "table-2", "table-3",
    "figure-1", "figure-2", "figure-4", "figure-5", "figure-6", "figure-7",
]  # fmt: skip
CURVES = {"figure-1": "focal_loss", "figure-5": "star_loss", "figure-6": "star_derivative"}
SAME_RUNS = {"figure-2": "table-1e"}


def paper(
    names: Annotated[tuple[Name, ...], Parameter(negative=(), show_choices=False)],
    /,
    *,
    data: Path | None = None,
    recipe: str | None = None,
    budget: str | None = None,
    seeds: int = 3,
    train: Annotated[str | None, Parameter(group=MORE)] = None,
    val: Annotated[str | None, Parameter(group=MORE)] = None,
    model: Annotated[str | None, Parameter(group=MORE)] = None,
    images: Annotated[int | None, Parameter(group=MORE)] = None,
    output: Path | None = None,
    jobs: int = 1,
    common: Common | None = None,
) -> None:
    """Reproduce tables and figures of the focal loss paper.

    Without --data it trains on scenes of handwritten digits, which takes minutes on a laptop. If it is stopped or
    killed, the same command continues. Several processes or machines with the same --output share the runs.

    Examples
    --------
    retinanet paper table-1b --jobs 2
    retinanet paper figure-1 figure-5

    Parameters
    ----------
    names
        prior (cross entropy with and without the prior initialisation), hinge, table-1a (balanced cross entropy),
        table-1b (focal loss by gamma), table-1c (anchors), table-1d (OHEM), table-1e and figure-2 (accuracy and speed),
        table-2 (the best models), table-3 and figure-7 (FL*), figure-1, figure-5 and figure-6 (curves of the losses),
        figure-4 (which examples carry the loss).
    data
        A data set. [default: scenes of digits, which the command makes]
    recipe
        The settings of every run: a YAML file or the name of a recipe. [default: settings for digits; with --data the
        recipe of each table in the paper, which is meant for COCO and GPUs]
    budget
        Length of each run: a number of steps (300) or a time (90s, 5m). [default: the recipe's]
    seeds
        Runs of each cell, each with another random seed.
    train
        Split to train on. [default: the recipe's]
    val
        Split to evaluate on. [default: the recipe's]
    model
        For figure-4: a trained model. [default: the grid's with the focal loss, trained if it is missing]
    images
        For figure-4: use at most this many images, evenly spread.
    output
        The folder of the runs and results. Finished runs in it are not run again. [default: runs/paper-DATA]
    jobs
        Runs at the same time on this machine; on a CPU one for each core is fastest.
    """
    out = output_of(common)
    names = tuple(dict.fromkeys(names))
    for option, value in (("--seeds", seeds), ("--jobs", jobs), ("--images", images)):
        if value is not None and value < 1:
            raise RequestError(f"{option} must be at least 1, not {value}")
    if data is not None:
        require_data(data)
    if model is not None and "figure-4" not in names:
        raise RequestError("--model is the model of figure-4: name figure-4, or leave --model out")

    output = output or Path("runs") / f"paper-{'digits' if data is None else data.resolve().name}"
    result: dict[str, Any] = {name: _loss_curves(name, output, out) for name in names if name in CURVES}
    trained = [name for name in names if name not in CURVES]
    if trained:
        from retinanet.paper.paper_run import Plan

        splits = tuple((name, value) for name, value in (("train", train), ("val", val)) if value is not None)
        plan = Plan(output, data, recipe, budget, seeds, splits)
        tables = [name for name in trained if name != "figure-4"]
        with Progress(out) as progress:
            _work(tables, "figure-4" in names and model is None, plan, jobs, out, progress)
            for name in tables:
                result[name] = _table(name, plan, out, progress)
            if "figure-4" in names:
                result["figure-4"] = _figure_4(model, plan, images, out, progress)
    out.json(result)


def _loss_curves(name: str, output: Path, out: Output) -> dict[str, Any]:
    from retinanet.paper import figures

    figures.save(getattr(figures, CURVES[name])(), output / name, "figure")
    out.say(f"{name}: {output / name}/figure.png and .svg")
    return {"folder": output / name}


def _work(tables: Sequence[str], focal: bool, plan: Plan, jobs: int, out: Output, progress: Progress) -> None:
    """Train the runs that have no result."""
    from retinanet.paper.paper_run import work

    runs = plan.all_runs([SAME_RUNS.get(name, name) for name in tables])
    if focal and (focal_run := plan.focal_run()).key not in {run.key for run in runs}:
        runs.append(focal_run)
    plan.grid(progress.counter("making scenes", "scenes"))
    if not runs:
        return
    count = progress.counter("running", "runs")
    shown = 0

    def on_result(run: Run, result: Result) -> None:
        nonlocal shown
        shown += 1
        text = result["state"]
        if text == "done":
            text = f"AP {number(result['metrics']['AP'])}, {result['steps']} steps in {clock(result['seconds'])}"
        else:
            text += f": {result['reason']}"
        out.note(f"[{shown}/{len(runs)}] {run.key.replace('_', ' ')}: {text}")
        if progress.live:
            count(shown, len(runs))

    out.note(f"{len(runs)} runs in {plan.root}, {jobs} at a time; if stopped, the same command continues")
    if progress.live:
        count(0, len(runs))
    work(runs, plan, jobs, callbacks=[StepProgress(progress)], on_result=on_result)


def _table(name: str, plan: Plan, out: Output, progress: Progress) -> dict[str, Any]:
    from retinanet.paper.experiments import EXPERIMENTS
    from retinanet.paper.paper_run import write_table
    from retinanet.paper.table_report import table

    experiment = EXPERIMENTS[SAME_RUNS.get(name, name)]
    rows, summary, folder = write_table(experiment.name, plan, progress.counter("timing", "cells"))
    out.say("", f"{experiment.title} ({name})", "")
    out.console.print(_rich_table(table(experiment, rows)))
    out.say("", *summary, "", f"{folder}: table.md, results.csv, plot.png, plot.svg")
    cells = [
        {**row.cell.values, "paper": row.cell.paper}
        | {m: {"mean": row.mean(m), "sd": row.spread(m), "runs": row.values(m)} for m in experiment.measured}
        | {"failed": row.failed}
        for row in rows
    ]
    return {"folder": folder, "cells": cells, "summary": summary}


def _rich_table(lines: list[list[str]]) -> Any:
    from rich.table import Table

    result = Table(box=None, pad_edge=False, header_style="bold")
    for column in lines[0]:
        result.add_column(column, justify="right", overflow="fold")
    for line in lines[1:]:
        result.add_row(*line)
    return result


def _figure_4(model: str | None, plan: Plan, images: int | None, out: Output, progress: Progress) -> dict[str, Any]:
    from retinanet.paper.experiments import EXPERIMENTS
    from retinanet.paper.paper_run import write_figure_4

    grid = plan.grid()
    split = plan.settings(EXPERIMENTS["table-1b"]).data.val
    source = model or grid.folder(plan.focal_run())
    folder = plan.root / "figure-4"
    counter = progress.counter("counting")
    summary, numbers = write_figure_4(source, grid.data, split, folder, images=images, on_progress=counter)
    out.say("", f"Cumulative normalised loss (figure-4) of {source} on {grid.data}, split {split}", "", *summary)
    out.say("", f"{folder}: figure.png, figure.svg, figure.json, figure.md")
    return {"folder": folder, "model": source, "gamma": numbers}
