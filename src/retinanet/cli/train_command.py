"""retinanet train"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from retinanet.cli.options import Common, given, output_of
from retinanet.cli.shared_options import MORE, Data
from retinanet.common.arguments import require_data
from retinanet.common.device_names import training_devices
from retinanet.common.errors import RequestError
from retinanet.config import recipes
from retinanet.config.settings import STARTS, Settings

if TYPE_CHECKING:
    GivenSettings = dict[str, Any]
else:
    GivenSettings = given(Settings)

Logger = Literal["tensorboard", "wandb", "mlflow"]


def train(
    data: Data | None = None,
    /,
    *,
    device: Annotated[str | None, Parameter(metavar="DEVICE")] = None,
    config: Annotated[str | None, Parameter(metavar="RECIPE")] = None,
    anchors: Annotated[Literal["auto", "settings"] | None, Parameter(group=MORE)] = None,
    output: Path | None = None,
    resume: Annotated[Path | None, Parameter(metavar="RUN")] = None,
    explain: Annotated[bool, Parameter(negative=(), show_default=False, group=MORE)] = False,
    log: Annotated[list[Logger] | None, Parameter(consume_multiple=True, negative=(), group=MORE)] = None,
    settings: Annotated[GivenSettings | None, Parameter(name="*")] = None,
    common: Common | None = None,
) -> None:
    """Train a detector on labelled images.

    What you do not give is fitted: chosen for the data and this machine. --explain shows the reasons.

    A recipe (--config) turns that off: it holds the settings that differ from the paper's. With a trained detector as
    --weights, the network, the image size and the anchors are those of the detector. Every setting can be given by its
    dotted name, and has the same name in a recipe.

    Examples
    --------
    retinanet train DATA --budget 15m
    retinanet train DATA --weights runs/pets-1 --epochs 20
    retinanet train --resume runs/pets-1

    Parameters
    ----------
    device
        Where to train: cpu, mps, cuda, or the numbers of GPUs such as 0 or 0,1. It stands for --train.accelerator and
        --train.devices. [default: the GPUs if there are any]
    config
        A recipe: a YAML file of settings, or the name of one in the package (scratch-small, finetune-adamw,
        paper-r50-1x, ...). Options replace its settings. [default: none, fit the settings]
    anchors
        Whether to fit the anchors to the data. "auto" fits sizes, ratios and pyramid levels to the boxes. "settings"
        takes the anchors of the settings. [default: auto without a recipe and a trained detector, else settings]
    output
        A new folder for the run. [default: next free runs/DATA-1]
    resume
        Resume the run in this folder, with its data and settings. The length of the run, its evaluations, saves and
        devices may change. If the data set was moved, give DATA. Its class names and its number of training images
        must be the same.
    explain
        Show each fitted setting with its reason.
    log
        Log to TensorBoard, W&B or MLflow too. [default: metrics.csv and report.html in the run folder]
    """
    since = time.monotonic()
    out = output_of(common)
    chosen = on_device(device, settings or {})
    if data is not None:
        require_data(data)
    if resume is None and recipes.weights(config, settings) in STARTS:
        recipes.load(config or recipes.FITTED, settings)  # reports mistakes before heavy imports

    from retinanet.api.train_run import run
    from retinanet.training.run_request import of_run

    request = of_run(data, chosen, config=config, anchors=anchors, output=output, resume=resume)
    out.json(run(request, out, since, explain=explain, log=log or ()))


def on_device(device: str | None, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings with those that ``--device`` stands for.

    Raises:
        RequestError: ``device`` is no device, or the settings name another one.
    """
    if device is None:
        return settings
    train = settings.get("train", {})
    if other := next((name for name in ("accelerator", "devices") if name in train), None):
        raise RequestError(
            f"--device {device} and --train.{other} {train[other]} contradict each other: give one of them"
        )
    return {**settings, "train": {**train, **training_devices(device)}}
