"""The log of a run for MLflow."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinanet.training.callbacks import Run
from retinanet.training.run_logger import RunLogger

EVERY = 5.0
"""Seconds between two writes: each may be a request to a server."""
FEW = 500
"""Numbers of one write; MLflow takes 1000 at most."""
LONGEST = 500
"""Characters of a setting's value; older servers take no more."""


class MlflowLog(RunLogger):
    """Logs to the server or the database of ``MLFLOW_TRACKING_URI``.

    The experiment is ``MLFLOW_EXPERIMENT_NAME`` ("retinanet" by default). A resumed run continues the MLflow run that
    it began.
    """

    name, package = "MLflow", "mlflow"
    help = "set MLFLOW_TRACKING_URI to a server or a database"

    def open(self, run: Run, settings: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client: Any = MlflowClient()
        self._waiting: list[Any] = []
        self._written = time.monotonic()
        folder, ident = run.folder, run.folder.facts().get("mlflow")
        if isinstance(ident, str):
            self._run = ident
            self._client.update_run(ident, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "retinanet")
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        tags = {"run_folder": settings["run_folder"]}
        self._run = self._client.create_run(experiment, tags=tags, run_name=folder.path.name).info.run_id
        folder.add_facts(mlflow=self._run)
        params = [Param(name, str(value)[:LONGEST]) for name, value in settings.items()]
        for start in range(0, len(params), 100):
            self._client.log_batch(self._run, params=params[start : start + 100])

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(name, float(value), now, step) for name, value in values.items()]
        if len(self._waiting) >= FEW or time.monotonic() - self._written >= EVERY:
            self._write()

    def end(self, step: int, summary: Mapping[str, Any], images: Path) -> None:
        for name, value in summary.items():
            self._client.set_tag(self._run, name, value)
        self._client.log_artifact(self._run, str(images))

    def close(self, error: BaseException | None) -> None:
        self._write()
        status = "FINISHED" if error is None else "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        self._client.set_terminated(self._run, status)

    def _write(self) -> None:
        metrics, self._waiting, self._written = self._waiting, [], time.monotonic()
        for start in range(0, len(metrics), FEW):
            self._client.log_batch(self._run, metrics=metrics[start : start + FEW])
