"""A table or figure of the paper from start to end: its runs, its results, its files."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from retinanet.api import loading
from retinanet.bench.torchvision_bench import machine
from retinanet.common.atomic_files import rename, replacing
from retinanet.common.errors import RequestError, WorkError
from retinanet.config.settings import MatchingSettings, Settings
from retinanet.data import digits, open_data
from retinanet.data.dataset import spread
from retinanet.evaluation import loss_distribution
from retinanet.paper import figures, table_report
from retinanet.paper.experiments import EXPERIMENTS, FL, Experiment
from retinanet.paper.grid import Grid, Result, Run, base_settings, make_run
from retinanet.training.callbacks import Callback
from retinanet.training.schedule import DEFAULT_EPOCHS

SCENES: dict[str, Any] = {"train": 1200, "val": 200, "digits": (3, 7)}
RECIPE = "paper-digits"
TIMED_IMAGES = 25
FIGURE_4_GAMMAS = (0.0, 0.5, 1.0, 2.0)

Count = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """What all cells of all tables have in common.

    Attributes:
        root: the folder of the grid.
        data: the data set; None makes digit scenes.
        recipe: the recipe of every run; None uses each table's own recipe, and ``RECIPE`` for digit scenes.
        budget: the length of each run, see :func:`retinanet.paper.grid.base_settings`.
        seeds: runs of each cell.
        splits: "train" and "val" where they differ from the recipe.
    """

    root: Path
    data: Path | None = None
    recipe: str | None = None
    budget: str | None = None
    seeds: int = 3
    splits: tuple[tuple[str, str], ...] = ()

    def recipe_of(self, experiment: Experiment) -> str:
        return self.recipe or (RECIPE if self.data is None else experiment.recipe)

    def settings(self, experiment: Experiment) -> Settings:
        return base_settings(self.recipe_of(experiment), self.budget, dict(self.splits))

    def runs(self, experiment: Experiment) -> list[list[Run]]:
        """The runs of each cell, one a seed."""
        cells = experiment.cells(self.settings(experiment))
        return [[self._run(experiment, cell.settings, seed) for seed in range(self.seeds)] for cell in cells]

    def _run(self, experiment: Experiment, dotted: Mapping[str, Any], seed: int) -> Run:
        # Tables with different recipes may have a cell with the same settings on top of them.
        recipe = experiment.recipe if self.data is not None and self.recipe is None else ""
        return make_run(self.settings(experiment), dotted, seed, recipe)

    def all_runs(self, names: Sequence[str]) -> list[Run]:
        """The runs of several tables without repetition: first all cells with the first seed, then with the second."""
        cells = [runs for name in names for runs in self.runs(EXPERIMENTS[name])]
        return list({run.key: run for runs_of_seed in zip(*cells) for run in runs_of_seed}.values())

    def focal_run(self) -> Run:
        """The model of figure 4 where the user names none: the focal loss with the first seed."""
        return self._run(EXPERIMENTS["table-1b"], FL, 0)

    def about(self, experiment: Experiment) -> dict[str, str]:
        """The lines above a table."""
        train = self.settings(experiment).train
        if train.steps is not None:
            length = f"{train.steps} steps"
        elif train.budget is not None:
            length = f"{train.budget} of wall-clock time"
        else:
            length = f"{train.epochs or DEFAULT_EPOCHS:g} epochs"
        return {
            "data": "digit scenes" if self.data is None else self.data.resolve().name,
            "recipe": self.recipe_of(experiment),
            "length of each run": f"{length}, batch {train.batch_size}",
            "machine": machine(),
        }

    def grid(self, on_scene: Count | None = None) -> Grid:
        """The grid's folder; makes the digit scenes if there is no data set."""
        if self.data is not None:
            return Grid(self.root, self.data)
        scenes = self.root / "scenes"
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / "scenes.lock"):  # another process may be making the scenes
            if not scenes.exists():
                part = self.root / "scenes.part"
                shutil.rmtree(part, ignore_errors=True)
                digits.write(part, **SCENES, on_scene=on_scene)
                rename(part, scenes)
        return Grid(self.root, scenes)


def work(
    runs: Sequence[Run],
    plan: Plan,
    jobs: int,
    *,
    callbacks: Sequence[Callback] = (),
    on_result: Callable[[Run, Result], None] | None = None,
) -> None:
    """Train the runs that have no result, ``jobs`` at a time: in this process and in ``jobs - 1`` others.

    Raises:
        RequestError: a cell's settings or the data cannot be used; where possible before the first run.
    """
    grid = plan.grid()
    for run in runs:
        grid.result(run)  # refuses a result of other settings now, and not after hours of training
    threads = torch.get_num_threads()
    share = max(1, (os.cpu_count() or 1) // jobs) if jobs > 1 else threads
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_work_along, args=(runs, plan, share), daemon=True) for _ in range(jobs - 1)]
    try:
        for process in others:
            process.start()
        torch.set_num_threads(share)
        grid.work(runs, callbacks=callbacks, on_result=on_result)
    finally:
        torch.set_num_threads(threads)
        for process in others:
            if process.is_alive():
                process.terminate()  # training saves its state before it stops
        for process in others:
            if process.pid is not None:
                process.join()


def _work_along(runs: Sequence[Run], plan: Plan, threads: int) -> None:
    """Work on the grid of the parent process. The parent meets and reports the same errors, so none is raised here."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in a terminal reaches the parent only, which then stops this process with one signal
    threading.Thread(target=_stop_without_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with suppress(KeyboardInterrupt, RequestError, WorkError):
        plan.grid().work(runs)


def _stop_without_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only the parent process starts this one"
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def write_table(
    name: str, plan: Plan, on_timing: Count | None = None
) -> tuple[list[table_report.Row], list[str], Path]:
    """Write the files of a table whose runs have ended; returns its rows, its summary in words and its folder."""
    experiment, grid = EXPERIMENTS[name], plan.grid()
    settings = plan.settings(experiment)
    rows = []
    cells = experiment.cells(settings)
    images: list[Tensor] = []  # read once, for all runs that are timed
    for done, (cell, runs) in enumerate(zip(cells, plan.runs(experiment), strict=True), 1):
        results = []
        for seed, run in enumerate(runs):
            result = grid.result(run)
            assert result is not None, "all runs have ended"
            if experiment.timed and result["state"] == "done" and "ms" not in result:
                images = images or _first_images(grid.data, settings.data.val)
                result["ms"] = 1000 * seconds_per_image(grid.folder(run), images)
                grid.write(run, result)
            results.append((seed, result))
        rows.append(table_report.Row(cell, results))
        if experiment.timed and on_timing is not None:
            on_timing(done, len(cells))
    folder = plan.root / name
    return rows, write_table_files(folder, experiment, rows, plan.about(experiment)), folder


def write_table_files(
    folder: Path, experiment: Experiment, rows: Sequence[table_report.Row], about: dict[str, str]
) -> list[str]:
    """Write results.csv, table.md, plot.svg and plot.png; returns the table's summary in words.

    Args:
        about: what the runs have in common, name to text: data, recipe, length, machine.
    """
    summary = table_report.summary(experiment, rows)
    _write_text(folder / "results.csv", table_report.as_csv(experiment, rows))
    _write_text(folder / "table.md", table_report.markdown(experiment, rows, about, summary))
    figures.save(figures.plot_table(experiment, rows), folder, "plot")
    return summary


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _first_images(data: Path, split: str) -> list[Tensor]:
    opened = open_data(data, split)
    return [opened.read(index) for index in range(min(TIMED_IMAGES, len(opened)))]


def seconds_per_image(model: Path, images: Sequence[Tensor]) -> float:
    """Median time from a decoded image to its boxes, one image at a time, with the run's best detector."""
    detector = loading.load(model)
    times = []
    for image in (images[0], *images):  # the first image is a warm-up and does not count
        begin = time.perf_counter()
        detector.detect_each([image])  # with all low scores, as evaluated
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def write_figure_4(
    model: str | Path, data: Path, split: str, folder: Path, *, images: int | None, on_progress: Count | None = None
) -> tuple[list[str], dict[str, Any]]:
    """Write figure 4 of any model and data set; returns its summary in words and its numbers."""
    detector = loading.load(model)
    opened = open_data(data, split, class_names=detector.class_names)
    counts = loss_distribution.count_logits(
        detector, opened, MatchingSettings(), indices=spread(len(opened), images).tolist(), on_progress=on_progress
    )
    if not counts.positives.sum():
        raise RequestError(
            f"no anchor of {model} covers a box of {data}, split {split}: there are no positive examples to draw"
        )
    by_gamma = {gamma: counts.curves(gamma) for gamma in FIGURE_4_GAMMAS}
    summary = loss_distribution.summary(by_gamma)
    numbers = {
        f"{gamma:g}": {
            "negatives": curves.negatives.examples,
            "positives": curves.positives.examples,
            "loss_in_hardest_1_percent_of_negatives": curves.negatives.hardest(),
            "loss_in_hardest_20_percent_of_positives": curves.positives.hardest(0.2),
        }
        for gamma, curves in by_gamma.items()
    }
    figures.save(figures.cumulative_loss(by_gamma), folder, "figure")
    _write_text(folder / "figure.json", json.dumps(numbers, indent=1) + "\n")
    _write_text(folder / "figure.md", "\n".join(f"- {line}" for line in summary) + "\n")
    return summary, numbers
