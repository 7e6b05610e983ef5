"""retinanet paper"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from retinanet.cli.console import Output, clock, number
from retinanet.cli.options import Common
from retinanet.cli.progress import Progress, StepProgress
from retinanet.common.errors import RequestError

if TYPE_CHECKING:
    from retinanet.paper.paper_run import Plan

Name = Literal[
    "prior", "hinge", "table-1a", "table-1b", "table-1c", "table-1d", "table-1e", "table-2", "table-3",
    "figure-1", "figure-2", "figure-4", "figure-5", "figure-6", "figure-7",
]  # fmt: skip
CURVES = {"figure-1": "focal_loss", "figure-5": "star_loss", "figure-6": "star_derivative"}
SAME_RUNS = {"figure-2": "table-1e"}


def paper(
    names: Annotated[tuple[Name, ...], Parameter(negative=())],
    /,
    *,
    data: Path | None = None,
    recipe: str | None = None,
    budget: str | None = None,
    seeds: int = 3,
    train: str | None = None,
    val: str | None = None,
    model: str | None = None,
    images: int | None = None,
    output: Path | None = None,
    jobs: int = 1,
    common: Common | None = None,
) -> None:
    """Run tables and figures of the focal loss paper again.

    Without data it trains on scenes of handwritten digits, minutes on a laptop. Stopped or killed, the same command
    goes on; started several times with one --output (also from several machines), each takes part of the runs.

    Start with: retinanet paper table-1b --jobs 2

    Parameters
    ----------
    names
        prior (cross entropy with and without the prior initialisation), hinge, table-1a (balanced cross entropy),
        table-1b (focal loss by gamma), table-1c (anchors), table-1d (OHEM), table-1e and figure-2 (accuracy and speed),
        table-2 (the best models), table-3 and figure-7 (FL*), figure-1, figure-5 and figure-6 (curves of the losses),
        figure-4 (which examples carry the loss).
    data
        A data set; without it scenes of digits are made.
    recipe
        Where every run starts from: a YAML file or the name of a recipe. With data the default is the paper's own for
        each table, which is meant for COCO and GPUs.
    budget
        Length of each run: steps (300) or time (90s, 5m).
    seeds
        Runs of each cell, with different random numbers.
    train
        Split to learn from, if not the recipe's.
    val
        Split to measure on, if not the recipe's.
    model
        For figure-4: a trained model; by default the grid's own with the focal loss, trained if need be.
    images
        For figure-4: look at no more than this many images, evenly spread.
    output
        The folder of the runs and results, by default runs/paper-DATA; what is in it already is not run again.
    jobs
        Runs at a time on this machine; on CPUs one for each core makes the most of them.
    """
    out = Output(common)
    names = tuple(dict.fromkeys(names))
    for name, value in (("--seeds", seeds), ("--jobs", jobs), ("--images", images)):
        if value is not None and value < 1:
            raise RequestError(f"{name} must be at least 1, not {value}")
    if data is not None and not data.exists():
        raise RequestError(f"there is no data set {data}: no such file or folder")
    if model is not None and "figure-4" not in names:
        raise RequestError("--model is the model of figure-4: name figure-4, or leave --model out")

    from retinanet.paper import figures
    from retinanet.paper.paper_run import Plan

    splits = tuple((name, value) for name, value in (("train", train), ("val", val)) if value is not None)
    output = output or Path("runs") / f"paper-{'digits' if data is None else data.resolve().name}"
    plan = Plan(output, data, recipe, budget, seeds, splits)
    result: dict[str, Any] = {}
    for name in [n for n in names if n in CURVES]:
        figures.save(getattr(figures, CURVES[name])(), output / name, "figure")
        out.say(f"{name}: {output / name}/figure.png and .svg")
        result[name] = {"folder": output / name}
    tables = [n for n in names if n not in CURVES and n != "figure-4"]
    with Progress(out) as progress:
        if tables or "figure-4" in names:  # curves need no data
            _work(tables, "figure-4" in names and model is None, plan, jobs, out, progress)
        for name in tables:
            result[name] = _table(name, plan, out, progress)
        if "figure-4" in names:
            result["figure-4"] = _figure_4(model, plan, images, out, progress)
    out.json(result)


def _work(tables: Sequence[str], focal: bool, plan: Plan, jobs: int, out: Output, progress: Progress) -> None:
    """The training runs that are left."""
    from retinanet.paper.paper_run import all_runs, focal_run, grid, work

    todo = all_runs([SAME_RUNS.get(name, name) for name in tables], plan)
    if focal and (wanted := focal_run(plan)).key not in {run.key for run in todo}:
        todo.append(wanted)
    grid(plan, progress.counter("making scenes", "scenes"))  # after what can be wrong with the request
    shown = 0

    def on_result(run: Any, found: dict[str, Any]) -> None:
        nonlocal shown
        shown += 1
        came = found["state"]
        if came == "done":
            came = f"AP {number(found['metrics']['AP'])}, {found['steps']} steps in {clock(found['seconds'])}"
        else:
            came += f": {found['reason']}"
        out.note(f"[{shown}/{len(todo)}] {run.key.replace('_', ' ')}: {came}")
        if progress.live:
            count(shown, len(todo))

    if todo:
        count = progress.counter("running", "runs")
        out.note(f"{len(todo)} runs in {plan.root}, {jobs} at a time; stop at any time, the same command goes on")
        if progress.live:
            count(0, len(todo))
        work(todo, plan, jobs, callbacks=[StepProgress(progress)], on_result=on_result)


def _table(name: str, plan: Plan, out: Output, progress: Progress) -> dict[str, Any]:
    from retinanet.paper.experiments import EXPERIMENTS
    from retinanet.paper.paper_run import write_table
    from retinanet.paper.table_report import table

    experiment = EXPERIMENTS[SAME_RUNS.get(name, name)]
    rows, said, folder = write_table(experiment.name, plan, progress.counter("timing", "cells"))
    out.say("", f"{experiment.title} ({name})", "")
    out.console.print(_rich_table(table(experiment, rows)))
    out.say("", *said, "", f"{folder}: table.md, results.csv, plot.png, plot.svg")
    cells = [
        {**row.cell.values, "paper": row.cell.paper}
        | {m: {"mean": row.mean(m), "sd": row.spread(m), "runs": row.values(m)} for m in experiment.measured}
        | {"not done": row.failed}
        for row in rows
    ]
    return {"folder": folder, "cells": cells, "reading": said}


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
    from retinanet.paper.paper_run import focal_run, grid, write_figure_4

    place = grid(plan)
    split = plan.settings(EXPERIMENTS["table-1b"]).data.val
    used = model or place.root / "runs" / focal_run(plan).key
    folder = plan.root / "figure-4"
    said, numbers = write_figure_4(
        used, place.data, split, folder, images=images, on_progress=progress.counter("looking")
    )
    out.say("", f"Cumulative normalised loss (figure-4) of {used} on {place.data}, split {split}", "", *said)
    out.say("", f"{folder}: figure.png, figure.svg, figure.json, figure.md")
    return {"folder": folder, "model": used, "gamma": numbers}
