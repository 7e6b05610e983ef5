"""retinanet train"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from retinanet.cli.options import Common, given, output_of
from retinanet.common.errors import RequestError
from retinanet.config import recipes
from retinanet.config.settings import STARTS, Settings

if TYPE_CHECKING:
    GivenSettings = dict[str, Any]
else:
    GivenSettings = given(Settings)


def train(
    data: Path | None = None,
    /,
    *,
    config: str | None = None,
    anchors: Literal["auto", "settings"] | None = None,
    output: Path | None = None,
    resume: Path | None = None,
    explain: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    log: list[Literal["tensorboard", "wandb", "mlflow"]] | None = None,
    settings: Annotated[GivenSettings | None, Parameter(name="*")] = None,
    common: Common | None = None,
) -> None:
    """Train a detector on labelled images.

    Start with: retinanet train DATA --budget 15m

    Without a recipe, settings that are not given (image size, anchors, network, batch size, schedule) are chosen for
    the data and this machine, and reported with reasons. With --weights, the network, the image size and the anchors
    are those of the checkpoint.

    Parameters
    ----------
    data
        A folder in COCO, Pascal VOC or YOLO layout (recognized by its files), or the YAML file of a YOLO data set.
    config
        A recipe: a YAML file of settings, or the name of one in the package (scratch-small, finetune-adamw,
        paper-r50-1x, ...). Options replace its settings.
    anchors
        Whether to fit the anchors to the data. "auto" fits sizes, ratios and pyramid levels to the boxes. "settings"
        takes the anchors of the settings. The default is "auto" without a recipe and weights, else "settings".
    output
        A new folder for the run. By default the next free runs/DATA-1, runs/DATA-2, ...
    resume
        Resume the run in this folder, with its data and settings. The length of the run, its evaluations, saves and
        devices may change. If the data set was moved, give DATA. Its class names and its number of training images
        must be the same.
    explain
        Show each fitted setting with its reason.
    log
        Log to TensorBoard, W&B or MLflow too; may be given several times.
    """
    since = time.monotonic()
    out = output_of(common)
    if data is not None and not data.exists():
        raise RequestError(f"there is no data set {data}: no such file or folder")
    if resume is None and recipes.weights(config, settings) in STARTS:
        recipes.load(config or recipes.FITTED, settings)  # reports mistakes before heavy imports

    from retinanet.api.train_run import run
    from retinanet.training.run_request import of_run

    request = of_run(data, settings or {}, config=config, anchors=anchors, output=output, resume=resume)
    out.json(run(request, out, since, explain=explain, log=log or ()))
