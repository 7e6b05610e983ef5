"""Loggers of experiments by name: TensorBoard, Weights & Biases, MLflow. None is used unless it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from retinanet.common.errors import RequestError, first_line
from retinanet.common.fields import shown
from retinanet.training.callbacks import Callback
from retinanet.training.mlflow_log import MlflowLog
from retinanet.training.run_logger import RunLogger
from retinanet.training.tensorboard_log import TensorBoardLog
from retinanet.training.wandb_log import WandbLog

LOGGERS: dict[str, type[RunLogger]] = {"tensorboard": TensorBoardLog, "wandb": WandbLog, "mlflow": MlflowLog}


def make_loggers(log: str | Callback | Sequence[str | Callback]) -> tuple[Callback, ...]:
    """The loggers that a user asks for.

    Args:
        log: names of ``LOGGERS`` or callbacks of your own; one of them, or several.

    Raises:
        RequestError: there is no logger of this name, or its package is not installed or not set up.
    """
    wanted: Sequence[Any] = (log,) if isinstance(log, str | Callback) else log
    if not isinstance(wanted, Sequence):
        raise RequestError(f"log= must be one of {', '.join(LOGGERS)}, or several of them, not {shown(log)}")
    return tuple(each if isinstance(each, Callback) else _named(each) for each in dict.fromkeys(wanted))


def _named(name: Any) -> Callback:
    if not isinstance(name, str) or name not in LOGGERS:
        raise RequestError(f"log= must be one of {', '.join(LOGGERS)}, or a Callback, not {shown(name)}")
    logger = LOGGERS[name]
    if find_spec(logger.package) is None:
        raise RequestError(f"{logger.name} is not installed: pip install 'retinanet[{name}]'")
    made = logger()
    try:
        made.require_usable()
    except RequestError:
        raise
    except Exception as error:  # such as an installation that cannot be imported
        raise RequestError(f"{logger.name} cannot be used here: {type(error).__name__}: {first_line(error)}") from error
    return made
