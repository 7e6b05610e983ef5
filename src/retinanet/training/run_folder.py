"""The folder of a run.

    settings.yaml      the settings of the run; also a recipe for --config
    run.json           data set, class names, initial weights, versions, machine
    metrics.csv        one row for each step and each evaluation
    last.safetensors   the detector of the last evaluation
    best.safetensors   the detector of the evaluation with the highest AP
    evaluation.json    the last evaluation: COCO's twelve numbers, AP per class
    validation.png     validation images with ground truth and detections
    report.html        what to read first: curves, errors, the worst images, and what to do next
    resume.pt          the state that --resume continues from

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
from typing import Any

import torch

from retinanet.common.atomic_files import replacing, require_new, what_is_wrong
from retinanet.common.devices import device_name, fastest_device
from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.common.fields import SettingsError, from_plain, shown
from retinanet.common.version import __version__
from retinanet.config import recipes
from retinanet.config.convert import to_plain
from retinanet.config.settings import Settings
from retinanet.evaluation import coco_metrics
from retinanet.training.events import STEP_COLUMNS
from retinanet.training.launcher import begun_by_this_job, job
from retinanet.weight_files import metadata

COLUMNS = STEP_COLUMNS + coco_metrics.NAMES


class RunFolder:
    """Paths of a run's files, and what writes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.resume = path / "resume.pt"
        self.last, self.best = path / "last.safetensors", path / "best.safetensors"
        self.report = path / "report.html"
        self._rows: Any = None
        self._writer: Any = None

    def create(
        self,
        settings: Settings,
        data_root: Path,
        class_names: Sequence[str],
        command: Sequence[str],
        choices: Sequence[Mapping[str, Any]] = (),
        weights: Mapping[str, Any] | None = None,
        start: str = "",
    ) -> None:
        """Create the folder and write settings.yaml and run.json.

        Args:
            choices: the settings that were chosen for the user, with reasons.
            weights: what was kept of the checkpoint that the run starts from.
            start: the line about what the run starts from.

        Raises:
            RequestError: the folder is not empty.
            WorkError: it cannot be written.
        """
        self.require_empty()
        facts = {
            "data": str(data_root.resolve()),
            "classes": list(class_names),
            "command": list(command),
            "choices": list(choices),
            "start": start,
            "weights": weights,
            "retinanet": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "job": job(),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {_device()}",
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
            RequestError: the folder is not empty, and holds more than this job left before its first save.
        """
        resumable = self.resume.is_file()
        if resumable or not begun_by_this_job(self.path):
            require_new(self.path, "with --output" + f", or go on with --resume {self.path}" * resumable)

    def write_settings(self, settings: Settings) -> None:
        import yaml

        self.write("settings.yaml", yaml.safe_dump(to_plain(settings), sort_keys=False, default_flow_style=None))

    def facts(self) -> dict[str, Any]:
        """The contents of run.json.

        Raises:
            RequestError: it is missing or damaged.
        """
        path = self.path / "run.json"
        try:
            facts = metadata.read(path)
        except (OSError, ValueError) as error:
            raise RequestError(f"{path} cannot be read: {what_is_wrong(error)}") from error
        if not isinstance(facts, dict):
            raise RequestError(f"{path} is damaged: it is not a mapping of names to values")
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
        """Write the new path of the data set to run.json."""
        if not self.trained_on(root):
            self.add_facts(data=str(root.resolve()))

    def add_facts(self, **facts: Any) -> None:
        """Write facts to run.json, in place of those of the same names."""
        self.write("run.json", json.dumps({**self.facts(), **facts}, indent=1) + "\n")

    def write(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        with replacing(self.path / name) as path:
            path.write_text(text, encoding="utf-8")

    def open_logs(self, step: int) -> None:
        """Start logging after ``step``. Rows of later steps, which a killed run may have left, are dropped."""
        path = self.path / "metrics.csv"
        try:
            kept = [row for row in read_metrics(self.path) if int(row["step"]) <= step] if path.exists() else []
            with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(kept)
            self._rows = open(path, "a", newline="", encoding="utf-8")  # noqa: SIM115 (closed by close)
            self._writer = csv.DictWriter(self._rows, COLUMNS)
        except OSError as error:
            raise WorkError(f"cannot write {path}: {what_is_wrong(error)}") from error

    def log(self, row: Mapping[str, float]) -> None:
        """Add a row to metrics.csv. Its keys are among COLUMNS; ``step`` is required."""
        try:
            self._writer.writerow({k: str(v) if isinstance(v, int) else f"{v:.6g}" for k, v in row.items()})
            self._rows.flush()
        except OSError as error:
            raise WorkError(f"cannot write {self.path / 'metrics.csv'}: {what_is_wrong(error)}") from error

    def close(self) -> None:
        if self._rows is not None:
            with suppress(OSError):  # a full disk, which was reported before
                self._rows.close()


def read_metrics(folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv. An incomplete last line, which a killed run may leave, is skipped.

    Raises:
        RequestError: the file is damaged.
    """
    try:
        with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
            return [row for row in rows if row["step"].isdecimal() and len(row["step"]) < 19]
    except (csv.Error, UnicodeDecodeError, KeyError) as error:
        raise RequestError(f"{folder / 'metrics.csv'} is damaged ({first_line(error)})") from error


def read_run(folder: Path) -> tuple[Path, Settings]:
    """The data set and the settings of a run, to resume it.

    Raises:
        RequestError: ``folder`` is not a run folder.
    """
    if not (folder / "settings.yaml").is_file() or not (folder / "run.json").is_file():
        raise RequestError(f"cannot resume {folder}: it is not the folder of a run (no settings.yaml and run.json)")
    data = RunFolder(folder).facts().get("data")
    if not isinstance(data, str) or "\0" in data:
        raise RequestError(f"cannot resume {folder}: data in run.json is {shown(data)}, not a path")
    try:
        return Path(data), from_plain(Settings, recipes.read_yaml(folder / "settings.yaml"))
    except SettingsError as error:
        raise SettingsError(f"{folder / 'settings.yaml'}: {error}") from None


def _device() -> str:
    device = fastest_device()
    return device_name(device) if device.type != "cpu" else f"{torch.get_num_threads()} threads, no GPU"
