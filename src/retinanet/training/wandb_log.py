"""The log of a run for Weights & Biases."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retinanet.common.errors import RequestError
from retinanet.training.callbacks import Run
from retinanet.training.run_logger import RunLogger


class WandbLog(RunLogger):
    """Logs to W&B, or into ``wandb/`` in the run folder with ``WANDB_MODE=offline``.

    W&B's environment variables apply, such as ``WANDB_PROJECT`` ("retinanet" by default) and ``WANDB_ENTITY``. A
    resumed run continues the W&B run that it began.
    """

    name, package = "W&B", "wandb"
    help = "to log without a network, set WANDB_MODE=offline"

    def require_usable(self) -> None:
        import wandb

        # Later W&B would ask for a key, in the middle of the progress bar.
        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RequestError("W&B has no API key: log in with `wandb login`, or set WANDB_MODE=offline")

    def open(self, run: Run, settings: Mapping[str, Any]) -> None:
        import wandb

        folder = run.folder
        ident = folder.facts().get("wandb")
        if not isinstance(ident, str):
            ident = uuid.uuid4().hex
            folder.add_facts(wandb=ident)
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "retinanet"),
            name=os.environ.get("WANDB_NAME", folder.path.name),
            id=ident,
            resume="allow",
            dir=str(folder.path),
            # The console is the progress bar's.
            settings=wandb.Settings(console="off"),
        )
        self._run.config.update(dict(settings), allow_val_change=True)
        # A resumed run may repeat steps, which W&B's own count of steps does not allow.
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def end(self, step: int, summary: Mapping[str, Any], images: Path) -> None:
        import wandb

        self._run.log({"step": step, "validation": wandb.Image(str(images))})
        self._run.summary.update(dict(summary))

    def close(self, error: BaseException | None) -> None:
        self._run.finish(exit_code=int(error is not None))
