"""A table or figure from beginning to end: its runs, what they show, the files."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from retinanet import api
from retinanet.common.atomic_files import replacing
from retinanet.common.errors import RequestError, WorkError
from retinanet.config.settings import Settings
from retinanet.paper import table_files, table_report
from retinanet.paper.experiments import EXPERIMENTS, FL, Experiment
from retinanet.paper.grid import Event, Grid, Result, Run, base_settings, make_run
from retinanet.training.schedule import DEFAULT_EPOCHS

SCENES: dict[str, Any] = {"train": 1200, "val": 200, "digits": (3, 7)}
RECIPE = "paper-digits"
TIMED_IMAGES = 25
FIGURE_4 = (0.0, 0.5, 1.0, 2.0)

Count = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """What all cells of all tables have in common.

    Attributes:
        root: the folder of the grid.
        data: the data set; None makes digit scenes.
        recipe: None takes the paper's own for each table (for the digit scenes one of their own).
        budget: of each run, see :func:`retinanet.paper.grid.base_settings`.
        seeds: runs of each cell.
        splits: "train" and "val" where they are not the recipe's.
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

    def about(self, experiment: Experiment) -> dict[str, str]:
        """The lines over a table."""
        from retinanet.bench.torchvision_bench import machine

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


def grid(plan: Plan, on_scene: Count | None = None) -> Grid:
    """The folder of ``plan``, with its digit scenes where it has no data."""
    if plan.data is not None:
        return Grid(plan.root, plan.data)
    from filelock import FileLock

    from retinanet.data import digits

    scenes = plan.root / "scenes"
    plan.root.mkdir(parents=True, exist_ok=True)
    with FileLock(plan.root / "scenes.lock"):  # another process may be making them
        if not scenes.exists():
            part = plan.root / "scenes.part"
            shutil.rmtree(part, ignore_errors=True)
            digits.write(part, **SCENES, on_scene=on_scene)
            part.rename(scenes)
    return Grid(plan.root, scenes)


def runs(experiment: Experiment, plan: Plan) -> list[list[tuple[int, Run]]]:
    """For each cell its seeds and runs."""
    settings = plan.settings(experiment)
    return [
        [(seed, make_run(settings, cell.settings, seed)) for seed in range(plan.seeds)]
        for cell in experiment.cells(settings)
    ]


def all_runs(names: Sequence[str], plan: Plan) -> list[Run]:
    """The runs of several tables, each once: all cells with the first seed, then with the second, ..."""
    found: dict[str, tuple[int, Run]] = {}
    for name in names:
        for cell in runs(EXPERIMENTS[name], plan):
            for seed, run in cell:
                found.setdefault(run.key, (seed, run))
    return [run for _, run in sorted(found.values(), key=lambda pair: pair[0])]


def work(
    todo: Sequence[Run],
    plan: Plan,
    jobs: int,
    *,
    on_event: Callable[[Event], None] | None = None,
    on_result: Callable[[Run, Result], None] | None = None,
) -> None:
    """Do those of the runs that are left, ``jobs`` at a time.

    Raises:
        RequestError: a cell's settings or the data cannot be used; said before the first run where it can be seen then.
        WorkError: a process ended in a way that leaves no result.
    """
    place = grid(plan)
    for run in todo:
        place.result(run)  # one that does not belong here is refused before the first hour
    if jobs == 1:
        place.work(todo, on_event=on_event, on_result=on_result)
        return
    context = multiprocessing.get_context("spawn")
    threads, errors = max(1, (os.cpu_count() or 1) // jobs), context.SimpleQueue()
    processes = [
        context.Process(target=_worker, args=(list(todo), plan, threads, errors), daemon=True) for _ in range(jobs)
    ]
    told: set[str] = set()
    try:
        for process in processes:
            process.start()
        alive = True
        while alive:
            time.sleep(0.5)
            alive = any(process.is_alive() for process in processes)
            for run in todo:
                if run.key in told or (found := place.result(run)) is None:
                    continue
                if found["state"] != "failed" or not alive:  # a failed one may still be tried again
                    told.add(run.key)
                    if on_result is not None:
                        on_result(run, found)
        if not errors.empty():
            raise errors.get()
        if len(told) < len(todo):
            raise WorkError(f"the processes of the grid ended early (exit codes {[p.exitcode for p in processes]})")
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()  # a run that is stopped so saves first
        for process in processes:
            if process.pid is not None:
                process.join()


def _worker(todo: Sequence[Run], plan: Plan, threads: int, errors: Any) -> None:
    import torch

    if hasattr(os, "setsid"):
        os.setsid()  # a terminal's Ctrl-C is for the process that started this one, which then stops it with one signal
    threading.Thread(target=_stop_without_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        grid(plan).work(todo)
    except KeyboardInterrupt:
        pass
    except (RequestError, WorkError) as error:
        errors.put(error)


def _stop_without_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "started by it"
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def write_table(
    name: str, plan: Plan, on_timing: Count | None = None
) -> tuple[list[table_report.Row], list[str], Path]:
    """Files of a table whose runs are done; returns its rows, its reading and its folder."""
    experiment, place = EXPERIMENTS[name], grid(plan)
    settings = plan.settings(experiment)
    rows = []
    cells = experiment.cells(settings)
    images: list[Tensor] = []  # read for the first run that is timed, for all of them
    for done, (cell, seeds) in enumerate(zip(cells, runs(experiment, plan), strict=True)):
        results = []
        for seed, run in seeds:
            found = place.result(run)
            assert found is not None, "the runs are done"
            if experiment.timed and found["state"] == "done" and "ms" not in found:
                images = images or _some_images(place.data, settings.data.val)
                found["ms"] = 1000 * seconds_per_image(place.root / "runs" / run.key, images)
                place.write(run, found)
            results.append((seed, found))
        rows.append(table_report.Row(cell, results))
        if experiment.timed and on_timing is not None:
            on_timing(done + 1, len(cells))
    folder = place.root / name
    return rows, table_files.write(folder, experiment, rows, plan.about(experiment)), folder


def _some_images(data: Path, split: str) -> list[Tensor]:
    from retinanet.data import open_data

    opened = open_data(data, split)
    return [opened.read(index) for index in range(min(TIMED_IMAGES, len(opened)))]


def seconds_per_image(model: Path, images: Sequence[Tensor]) -> float:
    """Median time from a decoded image to its boxes, one image at a time, with the run's best detector."""

    detector = api.load(model)
    times = []
    for image in (images[0], *images):  # the first time is not counted
        begin = time.perf_counter()
        detector.predict(image)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])


def focal_run(plan: Plan) -> Run:
    """The model of figure 4 where none is given: the focal loss's."""
    return make_run(plan.settings(EXPERIMENTS["table-1b"]), FL, 0)


def write_figure_4(
    model: str | Path, data: Path, split: str, folder: Path, *, images: int | None, on_progress: Count | None = None
) -> tuple[list[str], dict[str, Any]]:
    """Figure 4 of any model and data set; returns its reading and its numbers."""
    from retinanet.config.settings import MatchingSettings
    from retinanet.data import open_data
    from retinanet.data.dataset import spread
    from retinanet.evaluation import loss_distribution
    from retinanet.paper import figures

    detector = api.load(model)
    opened = open_data(data, split, class_names=detector.class_names)
    counted = loss_distribution.count_logits(
        detector, opened, MatchingSettings(), indices=spread(len(opened), images).tolist(), on_progress=on_progress
    )
    if not counted.positives.sum():
        raise RequestError(
            f"no box of {data}, split {split}, is covered by an anchor of {model}: there are no positives to look at"
        )
    found = {gamma: counted.curves(gamma) for gamma in FIGURE_4}
    said = loss_distribution.summary(found)
    numbers = {
        f"{gamma:g}": {
            "negatives": f.negatives.examples,
            "positives": f.positives.examples,
            "loss_in_hardest_1_percent_of_negatives": f.negatives.hardest(),
            "loss_in_hardest_20_percent_of_positives": f.positives.hardest(0.2),
        }
        for gamma, f in found.items()
    }
    figures.save(figures.cumulative(found), folder, "figure")
    with replacing(folder / "figure.json") as place:
        place.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    with replacing(folder / "figure.md") as place:
        place.write_text("\n".join(f"- {line}" for line in said) + "\n", encoding="utf-8")
    return said, numbers
