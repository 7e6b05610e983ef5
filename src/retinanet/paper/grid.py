"""A grid of ordinary training runs in one folder, which any number of processes and machines work off together.

    runs/KEY/          the run folder of one cell and seed
    results/KEY.json   what came of it; a run with a result is not run again
    locks/KEY          held by the process that is at it; a process that dies lets go of it

KEY names the settings that set the run apart. Tables share their runs: the focal loss with gamma 2 is in five of them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retinanet.common.atomic_files import replacing
from retinanet.common.errors import DivergedError, RequestError, WorkError
from retinanet.config import recipes
from retinanet.config.settings import Settings, SettingsError, changed, seconds, to_plain
from retinanet.training.callbacks import Callback

WAIT = 2.0  # seconds between looks at what others are doing

Result = dict[str, Any]


def base_settings(name: str, budget: str | None, splits: Mapping[str, str]) -> Settings:
    """The recipe that every cell starts from, with another length.

    Args:
        budget: optimiser steps ("300"), or wall-clock time for each run ("90s", "5m"); none: the recipe's own length.
        splits: "train" and "val", where they are not the recipe's.
    """
    length: dict[str, Any] = {}
    if budget is not None and budget.isascii() and budget.isdigit():
        length = {"steps": int(budget)}
    elif budget is not None:
        try:
            seconds(budget)
        except SettingsError:
            raise RequestError(
                f"--budget is a number of steps such as 300, or a time such as 90s or 5m, not {budget!r}"
            ) from None
        length = {"budget": budget}
    return recipes.load(name, {"train": length, "data": dict(splits)})


@dataclass(frozen=True)
class Run:
    """One training run of a grid."""

    key: str
    settings: Settings

    @property
    def digest(self) -> str:
        """Of everything that the result depends on."""
        text = json.dumps(to_plain(self.settings), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_run(settings: Settings, dotted: Mapping[str, Any], seed: int) -> Run:
    """The run of a cell's settings over those of the recipe."""
    words = []
    for name, value in sorted(dotted.items()):
        shown = ",".join(f"{v:g}" for v in value) if isinstance(value, list | tuple) else str(value)
        words.append(f"{name.removeprefix('model.').removeprefix('loss.')}={shown.replace('/', '-')}")
    key = " ".join([*words, f"seed={seed}"]).replace(" ", "_")
    if len(key) > 150:  # file systems end at 255
        key = f"{key[:130]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    return Run(key, changed(settings, {**dotted, "train.seed": seed, "train.report": False}))


class Grid:
    """The folder of a grid.

    Args:
        root: made where it is missing.
        data: the data set of all its runs.
    """

    def __init__(self, root: Path, data: Path) -> None:
        self.root, self.data = root, data

    def result(self, run: Run) -> Result | None:
        """What came of a run; None before it ended.

        Raises:
            RequestError: the run was made with other settings or data.
        """
        path = self.root / "results" / f"{run.key}.json"
        try:
            found: Result = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RequestError(f"{path} cannot be read: {error}; remove it to run the cell again") from error
        if found.get("digest") != run.digest or found.get("data") != str(self.data.resolve()):
            raise RequestError(
                f"{path} comes from another recipe, budget or data set: choose another --output, or remove {self.root}"
            )
        return found

    def work(
        self,
        runs: Sequence[Run],
        *,
        callbacks: Sequence[Callback] = (),
        on_result: Callable[[Run, Result], None] | None = None,
    ) -> None:
        """Do what is left of ``runs``; returns when all have a result, whoever made it.

        A run that failed (a full disk, an image that cannot be read) keeps its reason as its result until the next
        call, which tries it again; a diverged one is a result for good.

        Args:
            callbacks: of each training, see :mod:`retinanet.training.callbacks`.
            on_result: called once for every run when its result is there.
        """
        from filelock import FileLock, Timeout

        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        told: set[str] = set()
        tried: set[str] = set()

        def missing(run: Run) -> bool:
            found = self.result(run)
            if found is None or (found["state"] == "failed" and run.key not in tried):
                return True
            if run.key not in told:
                told.add(run.key)
                if on_result is not None:
                    on_result(run, found)
            return False

        while left := [run for run in runs if missing(run)]:
            done = 0
            for run in left:
                with suppress(Timeout), FileLock(self.root / "locks" / run.key, blocking=False):
                    done += 1
                    if missing(run):  # nobody finished it since the list was made
                        tried.add(run.key)
                        self._do(run, callbacks)
                        missing(run)
            if not done:
                time.sleep(WAIT)

    def _do(self, run: Run, callbacks: Sequence[Callback]) -> None:
        from retinanet.training.trainer import train

        folder = self.root / "runs" / run.key
        resume = (folder / "resume.pt").is_file()
        if folder.exists() and not resume:
            shutil.rmtree(folder)  # killed before its first save
        result: Result = {"state": "done"}
        try:
            summary = train(self.data, run.settings, folder, resume=resume, callbacks=callbacks)
        except DivergedError as error:
            result = {"state": "diverged", "reason": str(error)}
        except WorkError as error:
            result = {"state": "failed", "reason": str(error)}
        else:
            result |= {"steps": summary["steps"], "seconds": summary["seconds"], "metrics": summary["last"]}
            (folder / "resume.pt").unlink()  # as large as three checkpoints, and nothing is left to resume
        self.write(run, result)

    def write(self, run: Run, result: Result) -> None:
        """Keep the result of a run."""
        path = self.root / "results" / f"{run.key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {**result, "digest": run.digest, "data": str(self.data.resolve())}
        with replacing(path) as place:
            place.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
