"""The folder of a run: what it was told, how it went, and what came of it.

    settings.yaml      the settings as run; a recipe for --config
    run.json           the data set, the class names, the weights begun with, the versions of what computed
    metrics.csv        one row a step, one row an evaluation
    tensorboard/       the same for TensorBoard
    last.safetensors   the detector at the last evaluation     best.safetensors   at the one with the highest AP
    evaluation.json    the last evaluation: the twelve numbers, AP per class
    validation.png     images with their boxes and the detections side by side
    report.html        what to look at first: curves, errors, the worst images, and what to do next
    resume.pt          what --resume goes on from

Only the first process writes.
"""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from retinanet.common.atomic_files import replacing, what_is_wrong
from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.common.fields import shown
from retinanet.common.version import __version__
from retinanet.config.settings import Settings, SettingsError, from_plain, to_plain
from retinanet.evaluation import coco_metrics
from retinanet.training.launcher import begun_by_this_job, job
from retinanet.weight_files import metadata

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

from retinanet.training.events import STEP_COLUMNS

COLUMNS = STEP_COLUMNS + coco_metrics.NAMES


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: Any = None
        self._writer: Any = None
        self._board: SummaryWriter | None = None

    @property
    def resume(self) -> Path:
        return self.path / "resume.pt"

    @property
    def last(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def best(self) -> Path:
        return self.path / "best.safetensors"

    def create(
        self,
        settings: Settings,
        data_root: Path,
        class_names: Sequence[str],
        command: Sequence[str],
        choices: Sequence[Mapping[str, Any]] = (),
        weights: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the folder and write what the run was told.

        Args:
            choices: the settings that the user did not give, with the reasons for them.
            weights: what was kept of the checkpoint that the run begins with.

        Raises:
            RequestError: there is something in the folder already.
            WorkError: it cannot be written.
        """
        self.require_empty()
        facts = {
            "data": str(data_root.resolve()),
            "classes": list(class_names),
            "command": list(command),
            "choices": list(choices),
            "weights": weights,
            "retinanet": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "job": job(),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {_accelerator()}",
        }
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_settings(settings)
            self.write("run.json", json.dumps(facts, indent=1) + "\n")
        except OSError as error:
            raise WorkError(f"cannot write into {self.path}: {what_is_wrong(error)}") from error

    def require_empty(self) -> None:
        """
        Raises:
            RequestError: there is something in the folder already, other than what this job left before its first save.
        """
        if begun_by_this_job(self.path) and not self.resume.is_file():
            return
        if self.path.is_file() or (self.path.is_dir() and any(self.path.iterdir())):
            resumable = f", or go on with it: --resume {self.path}" if self.resume.is_file() else ""
            raise RequestError(f"the output folder {self.path} is not empty; choose another with --output{resumable}")

    def write_settings(self, settings: Settings) -> None:
        import yaml

        self.write("settings.yaml", yaml.safe_dump(to_plain(settings), sort_keys=False, default_flow_style=None))

    def facts(self) -> dict[str, Any]:
        """The contents of run.json.

        Raises:
            RequestError: it is not there, or damaged.
        """
        place = self.path / "run.json"
        try:
            facts = metadata.read(place)
        except (OSError, ValueError) as error:
            raise RequestError(f"{place} cannot be read: {what_is_wrong(error)}") from error
        if not isinstance(facts, dict):
            raise RequestError(f"{place} is not what a run writes: it holds no names with values")
        return facts

    def chosen(self) -> dict[str, Any]:
        """The settings in run.json that were chosen for the user, with their values."""
        choices = self.facts().get("choices")
        rows = choices if isinstance(choices, list) else []
        return {str(row["setting"]): row.get("value") for row in rows if isinstance(row, dict) and "setting" in row}

    def trained_on(self, root: Path) -> bool:
        """Whether run.json names this data set."""
        return bool(self.facts().get("data") == str(root.resolve()))

    def write_data(self, root: Path) -> None:
        """Say in run.json where the data set is now."""
        if not self.trained_on(root):
            facts = self.facts()
            self.write("run.json", json.dumps({**facts, "data": str(root.resolve())}, indent=1) + "\n")

    def write(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        with replacing(self.path / name) as place:
            place.write_text(text, encoding="utf-8")

    def open_logs(self, step: int) -> None:
        """Start logging after ``step``; rows of later steps, left by a run that was killed, are dropped."""
        from torch.utils.tensorboard import SummaryWriter

        path = self.path / "metrics.csv"
        kept = [row for row in read_metrics(self.path) if int(row["step"]) <= step] if path.exists() else []
        try:
            beside = self.path / ".metrics.csv.part"
            self._rows = open(beside, "w", newline="", encoding="utf-8")  # noqa: SIM115 (closed by close)
            self._writer = csv.DictWriter(self._rows, COLUMNS)
            self._writer.writeheader()
            self._writer.writerows(kept)
            self._rows.flush()
            os.replace(beside, path)  # the open file goes along
            self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=step + 1 if step else None)
        except OSError as error:
            raise WorkError(f"cannot write {path} or the log beside it: {what_is_wrong(error)}") from error

    def log(self, row: Mapping[str, float]) -> None:
        """Add a row to metrics.csv and to TensorBoard; ``row`` holds some of COLUMNS, ``step`` among them."""
        shown = {key: _short(value) for key, value in row.items()}
        try:
            self._writer.writerow(shown)
            self._rows.flush()
        except OSError as error:
            raise WorkError(f"cannot write {self.path / 'metrics.csv'}: {what_is_wrong(error)}") from error
        assert self._board is not None
        for key, value in row.items():
            if key not in ("step", "seconds"):
                self._board.add_scalar(key, value, int(row["step"]))

    def close(self) -> None:
        if self._rows is not None:
            with suppress(OSError):  # a full disk, said before
                self._rows.close()
        if self._board is not None:
            self._board.close()


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv; an incomplete last line, left by a kill, is passed over.

    Raises:
        RequestError: it is no such table.
    """
    try:
        with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
            return [row for row in rows if row["step"].isdecimal() and len(row["step"]) < 19]
    except (csv.Error, UnicodeDecodeError, KeyError) as error:
        raise RequestError(f"{folder / 'metrics.csv'} is no table of a run's steps ({first_line(error)})") from error


def read_run(folder: Path) -> tuple[Path, Settings]:
    """The data set and the settings of a run, for going on with it.

    Raises:
        RequestError: ``folder`` is not a run folder.
    """
    from retinanet.config import recipes

    if not (folder / "settings.yaml").is_file() or not (folder / "run.json").is_file():
        raise RequestError(f"cannot resume {folder}: it is not the folder of a run (no settings.yaml and run.json)")
    try:
        data = metadata.read(folder / "run.json")["data"]
        if not isinstance(data, str) or "\0" in data:
            raise ValueError(f"data is {shown(data)}, not a path")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"cannot resume {folder}: run.json cannot be read ({error})") from error
    try:
        return Path(data), from_plain(Settings, recipes.read_yaml(folder / "settings.yaml"))
    except SettingsError as error:
        raise SettingsError(f"{folder / 'settings.yaml'}: {error}") from None


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _accelerator() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads, no GPU"
