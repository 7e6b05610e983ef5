"""The log of a run for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinanet.training.callbacks import Run
from retinanet.training.run_logger import RunLogger


class TensorBoardLog(RunLogger):
    """Writes ``tensorboard/`` into the run folder; ``tensorboard --logdir runs`` shows the curves of all runs."""

    name, package = "TensorBoard", "tensorboard"
    help = "is the disk full?"

    def open(self, run: Run, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

        step = run.progress.step
        # What a killed run logged after its last save is hidden.
        self._writer = SummaryWriter(str(run.folder.path / "tensorboard"), purge_step=step + 1 if step else None)
        lines = [f"    {name}: {value}" for name, value in settings.items()]
        self._writer.add_text("settings", "\n".join(lines), step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def end(self, step: int, summary: Mapping[str, Any], images: Path) -> None:
        with Image.open(images) as image:
            self._writer.add_image("validation", np.asarray(image.convert("RGB")), step, dataformats="HWC")
        self._writer.add_text("result", "\n".join(f"    {name}: {value}" for name, value in summary.items()), step)

    def close(self, error: BaseException | None) -> None:
        self._writer.close()
