"""A grid of ordinary training runs in one folder, which any number of processes and machines work on.

    runs/KEY/          the run folder of one cell and seed
    results/KEY.json   its result; a run with a result is not run again
    locks/KEY          held by the process that trains this run, and released when that process ends or dies

KEY names the settings that set the run apart. Tables share runs: five tables contain the focal loss with gamma 2.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from retinanet.common.atomic_files import replacing
from retinanet.common.errors import DivergedError, RequestError, WorkError
from retinanet.common.fields import SettingsError
from retinanet.config import recipes
from retinanet.config.convert import changed, to_plain
from retinanet.config.settings import Settings, seconds
from retinanet.training import trainer
from retinanet.training.callbacks import Callback

WAIT = 2.0
"""Seconds to wait when other processes hold all runs that are left."""

Result = dict[str, Any]


def base_settings(name: str, budget: str | None, splits: Mapping[str, str]) -> Settings:
    """The recipe that every cell starts from, with another length.

    Args:
        budget: optimiser steps ("300"), or wall-clock time for each run ("90s", "5m"); by default the recipe's length.
        splits: "train" and "val", where they differ from the recipe.
    """
    length: dict[str, Any] = {}
    if budget is not None and budget.isdecimal():
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
        """A hash of all settings, which tells whether a stored result belongs to this run."""
        text = json.dumps(to_plain(self.settings), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_run(settings: Settings, dotted: Mapping[str, Any], seed: int, recipe: str = "") -> Run:
    """The run with the settings of one cell on top of the recipe's.

    Args:
        recipe: begins the key, where the tables of a grid have different recipes.
    """
    words = [recipe] * bool(recipe)
    for name, value in sorted(dotted.items()):
        shown = ",".join(f"{v:g}" for v in value) if isinstance(value, list | tuple) else str(value)
        words.append(f"{name.removeprefix('model.').removeprefix('loss.')}={shown}")
    key = " ".join([*words, f"seed={seed}"]).replace(" ", "_")
    key = re.sub(r'[\\/:*?"<>|]', "-", key)  # which file names cannot have, some of them on Windows only
    if len(key) > 150:  # file systems allow names of 255 bytes
        key = f"{key[:130]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    return Run(key, changed(settings, {**dotted, "train.seed": seed, "train.report": False}))


class Grid:
    """The folder of a grid.

    Args:
        root: created where it is missing.
        data: the data set of all its runs.
    """

    def __init__(self, root: Path, data: Path) -> None:
        self.root, self.data = root, data

    def folder(self, run: Run) -> Path:
        """The run folder of a run."""
        return self.root / "runs" / run.key

    def result(self, run: Run) -> Result | None:
        """The result of a run; None if it has not ended.

        Raises:
            RequestError: the result belongs to other settings or data.
        """
        path = self.root / "results" / f"{run.key}.json"
        try:
            result: Result = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RequestError(f"{path} cannot be read: {error}; remove it to run the cell again") from error
        if result.get("digest") != run.digest or result.get("data") != str(self.data.resolve()):
            raise RequestError(
                f"{path} comes from another recipe, budget or data set: choose another --output, or remove {self.root}"
            )
        return result

    def work(
        self,
        runs: Sequence[Run],
        *,
        callbacks: Sequence[Callback] = (),
        on_result: Callable[[Run, Result], None] | None = None,
    ) -> None:
        """Train the runs without a result; returns when all have one, from this process or another.

        A failed run (a full disk, an image that cannot be read) stores the reason as its result. The next call tries
        it again. A diverged run is not tried again.

        Args:
            callbacks: of each training, see :mod:`retinanet.training.callbacks`.
            on_result: called once for each run as soon as this process sees its result.
        """
        (self.root / "locks").mkdir(parents=True, exist_ok=True)
        tried: set[str] = set()

        def finished(run: Run) -> Result | None:
            result = self.result(run)
            return None if result and result["state"] == "failed" and run.key not in tried else result

        left = {run.key: run for run in runs}
        while left:
            before = len(left)
            for run in list(left.values()):
                if not finished(run):
                    with suppress(Timeout), FileLock(self.root / "locks" / run.key, blocking=False):
                        if not finished(run):  # another process may have finished it in between
                            tried.add(run.key)
                            self._train(run, callbacks)
                if result := finished(run):
                    del left[run.key]
                    if on_result is not None:
                        on_result(run, result)
            if len(left) == before:
                time.sleep(WAIT)

    def _train(self, run: Run, callbacks: Sequence[Callback]) -> None:
        folder = self.folder(run)
        resume = (folder / "resume.pt").is_file()
        if folder.exists() and not resume:
            shutil.rmtree(folder)  # the run was killed before its first save
        result: Result = {"state": "done"}
        try:
            summary = trainer.train(self.data, run.settings, folder, resume=resume, callbacks=callbacks)
        except DivergedError as error:
            result = {"state": "diverged", "reason": str(error)}
        except WorkError as error:
            result = {"state": "failed", "reason": str(error)}
        else:
            result |= {"steps": summary["steps"], "seconds": summary["seconds"], "metrics": summary["last"]}
            (folder / "resume.pt").unlink()  # as large as three checkpoints, and no longer needed
        self.write(run, result)

    def write(self, run: Run, result: Result) -> None:
        """Store the result of a run."""
        path = self.root / "results" / f"{run.key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {**result, "digest": run.digest, "data": str(self.data.resolve())}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
