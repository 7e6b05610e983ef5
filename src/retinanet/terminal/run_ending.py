"""What is printed at the end of a run: warnings, a table of classes, the result, and what to do next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinanet.terminal.console import Output, class_table, clock, number
from retinanet.terminal.progress import Progress
from retinanet.training.run_request import RunRequest

MUCH = 0.85  # of a budget; if less was used, the reason is reported
ROWS = 15  # of the table of classes
LINE = 140  # letters of a warning that is repeated


def show_ending(
    out: Output,
    summary: Mapping[str, Any],
    request: RunRequest,
    progress: Progress,
    python: bool = False,
) -> None:
    """Print the end of a run.

    Args:
        summary: of the run, see :data:`retinanet.training.preparation.Summary`.
        request: what was trained.
        progress: of the run. Its warnings are repeated, since they may have scrolled away.
        python: name calls of Python as the next steps, and not commands.
    """
    if warnings := progress.warnings:
        out.note("", f"{len(warnings)} warning{'s' * (len(warnings) > 1)} of this run:")
        out.note(*(f"  {line if len(line) <= LINE else f'{line[: LINE - 3]}...'}" for line in warnings))
    folder = Path(summary["output"])
    if per_class := _per_class(folder):
        out.say("")
        out.table(class_table(per_class, ROWS))
        out.say("")
    out.say(
        *result_lines(summary, progress.images),
        *next_lines(folder, request.data, request.settings.data.val, python),
    )


def result_lines(summary: Mapping[str, Any], images: str) -> list[str]:
    """The length of a run, its result, and where its files are."""
    last, folder = summary["last"], summary["output"]
    why = " (stopped by train.patience: the AP did not rise)" if summary["stopped"] == "patience" else ""
    return [
        f"{summary['steps']} step{'s' * (summary['steps'] != 1)} in {clock(summary['seconds'])}{why}: "
        f"AP {number(last.get('AP'))}, AP50 {number(last.get('AP50'))} on {images}",
        *budget_lines(summary),
        f"the run is in {folder}: best.safetensors (AP {number(summary['best_AP'])} at step {summary['best_step']}), "
        "last.safetensors, report.html, metrics.csv",
    ]


def next_lines(folder: Path, data: Path, split: str, python: bool) -> list[str]:
    """What to do after a run."""
    report, suffix = folder / "report.html", "" if split == "val" else f" --split {shlex.quote(split)}"
    run, root = shlex.quote(str(folder)), shlex.quote(str(data))
    steps = [f"retinanet predict {run} IMAGE...", f"retinanet evaluate {run} {root}{suffix}"]
    if python:
        of_split = "" if split == "val" else f", split={split!r}"
        steps = [
            f'retinanet.load({str(folder)!r}).predict("image.jpg")',
            f"retinanet.evaluate({str(folder)!r}, {str(data)!r}{of_split})",
        ]
    if report.is_file():
        steps.insert(0, f"open {shlex.quote(str(report))}")
    return ["next:", *(f"  {step}" for step in steps)]


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


def _per_class(folder: Path) -> list[dict[str, Any]]:
    """The rows of the last evaluation; none if its file is not there."""
    try:
        content = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        return list(content["per_class"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
