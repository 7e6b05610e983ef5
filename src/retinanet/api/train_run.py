"""``retinanet.train``: a run with fitted settings and live progress, as the command ``retinanet train`` makes it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from retinanet.api.loading import load
from retinanet.common.arguments import path_of, require_data
from retinanet.common.errors import RequestError
from retinanet.common.fields import shown
from retinanet.common.run_names import next_folder
from retinanet.config import keyword_settings
from retinanet.config.convert import dotted
from retinanet.config.settings import LossSettings, Settings
from retinanet.data.loader import Transform
from retinanet.evaluation.metrics_table import metrics_html
from retinanet.inference.detector import Detector
from retinanet.losses.own_losses import BoxLossFunction, ClassLoss
from retinanet.ops.own_matching import Matcher
from retinanet.terminal.console import Output
from retinanet.terminal.progress import Progress
from retinanet.terminal.run_ending import show_ending
from retinanet.training import trainer
from retinanet.training.callbacks import Callback, require_callbacks
from retinanet.training.own_parts import OptimizerFunction
from retinanet.training.preparation import Summary
from retinanet.training.run_request import RunRequest, of_run


@dataclass(frozen=True)
class TrainResult:
    """What :func:`retinanet.train` returns.

    Attributes:
        detector: the best checkpoint of the run, loaded as :func:`retinanet.load` does.
        metrics: COCO's twelve numbers of this checkpoint on the validation set: "AP", "AP50", ...
        path: the run folder. ``report.html`` in it is what to read first.
        summary: the length of the run, its last evaluation and its best one, see
            :data:`retinanet.training.preparation.Summary`.

    Examples:
        >>> result = retinanet.train("DATA", budget="15m")  # doctest: +SKIP
        >>> result  # doctest: +SKIP
        <run runs/DATA-1: AP 0.526, AP50 0.818 at step 700 of 900>
        >>> result.detector.predict("image.jpg").show()  # doctest: +SKIP
    """

    detector: Detector
    metrics: dict[str, float]
    path: Path
    summary: Mapping[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        return f"<run {self.path}: {self._heading()}>"

    def _repr_html_(self) -> str:
        return metrics_html(self.metrics, f"{self.path}: {self._heading()}")

    def _heading(self) -> str:
        step, steps = self.summary["best_step"], self.summary["steps"]
        return f"AP {self.metrics['AP']:.3f}, AP50 {self.metrics['AP50']:.3f} at step {step} of {steps}"


def train(
    data: str | Path | None = None,
    *,
    budget: str | float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    output: str | Path | None = None,
    weights: str | Path | None = None,
    config: str | Path | None = None,
    anchors: Literal["auto", "settings"] | None = None,
    resume: str | Path | None = None,
    settings: Settings | None = None,
    progress: bool = True,
    explain: bool = False,
    callbacks: Sequence[Callback] = (),
    log: str | Callback | Sequence[str | Callback] = (),
    transform: Transform | None = None,
    loss: ClassLoss | LossSettings | Mapping[str, Any] | None = None,
    box_loss: BoxLossFunction | None = None,
    matcher: Matcher | None = None,
    optimizer: OptimizerFunction | str | None = None,
    **more: Any,
) -> TrainResult:
    """Train a detector on labelled images, and evaluate it.

    The settings that you do not give are chosen for the data and this machine: image size, anchors, network, batch
    size, learning rate and length. The run folder holds them with the reasons (``run.json``).

    Examples:
        >>> result = retinanet.train("DATA", budget="15m")  # doctest: +SKIP
        >>> result.detector.predict("image.jpg")  # doctest: +SKIP
        >>> result = retinanet.train("DATA", epochs=20, batch_size=8, lr=1e-3, output="runs/mine")  # doctest: +SKIP

    Args:
        data: the data set, see :func:`retinanet.open_data`. Only a resumed run needs none.
        budget: length in wall-clock time, such as "90s", "15m" or "2h", or a number of seconds. It includes the last
            evaluation and the report.
        epochs, steps: length in epochs (fractions are allowed) or optimizer steps. Give one of the three lengths, or
            none.
        output: a new folder for the run. By default the next free runs/DATA-1, runs/DATA-2, ...
        weights: what to start from: a run folder, a weight file of any known project, "coco", "imagenet", "auto" (the
            best that there is, the default) or "none" (from scratch).
        config: a recipe: a YAML file of settings, or the name of one in the package. With a recipe nothing is fitted.
        anchors: "auto" fits the anchors to the data, "settings" takes those of the settings. By default they are fitted
            without a recipe and weights.
        resume: the folder of a run to resume with its data and settings.
        settings: all settings of the run; nothing is fitted then. Give no other settings beside it.
        progress: show the data set, the plan, the progress and the result. False prints nothing.
        explain: show each fitted setting with its reason.
        callbacks: see :mod:`retinanet.training.callbacks`.
        log: loggers: "tensorboard", "wandb", "mlflow", or callbacks.
        transform: called on each training image, see :func:`retinanet.data.loader.train_batches`.
        loss, box_loss, matcher, optimizer: own ones, see :func:`retinanet.training.trainer.train`. ``loss`` may also be
            the settings of the section (a dict or ``LossSettings``), and ``optimizer`` a name ("sgd", "adamw").
        more: settings by short names (``batch_size=8``, ``size=640``, ``seed=1``, ``device="cpu"``, ``val="test"``),
            by names of the section ``train`` (``lr=1e-3``), as sections (``model={"head": {"depth": 2}}``), or by
            dotted names (``**{"model.backbone.name": "resnet18"}``). The reference lists all settings.

    Raises:
        RequestError: an argument, the data or the folder cannot be used.
        WorkError: the training failed: a loss is not finite, or the disk is full.
        Stopped: (a KeyboardInterrupt) it was interrupted. The run is saved, and can be resumed.
    """
    since = time.monotonic()
    require_callbacks(callbacks)
    more |= {"budget": _time(budget), "epochs": epochs, "steps": steps, "weights": weights}
    if isinstance(loss, Mapping | LossSettings):
        more, loss = {**more, "loss": loss}, None
    if isinstance(optimizer, str):
        more, optimizer = {**more, "optimizer": optimizer}, None
    given = keyword_settings.of_keywords({k: v for k, v in more.items() if k not in OPTIONAL or v is not None}, OTHERS)
    arguments = {"config": config, "anchors": anchors, "output": output, "resume": resume}
    request = _request(data, given, arguments) if settings is None else _whole_request(data, settings, given, arguments)
    own = {"transform": transform, "loss": loss, "box_loss": box_loss, "matcher": matcher, "optimizer": optimizer}
    out = Output(quiet=not progress)
    summary = run(request, out, since, callbacks, explain=explain, python=True, log=log, **own)
    detector = load(summary["output"], device="cpu" if request.settings.train.accelerator == "cpu" else None)
    metrics = detector.about.get("metrics") or summary["last"]
    return TrainResult(detector, dict(metrics), Path(summary["output"]), summary)


def run(
    request: RunRequest,
    out: Output,
    since: float,
    callbacks: Sequence[Callback] = (),
    *,
    explain: bool = False,
    python: bool = False,
    **own: Any,
) -> Summary:
    """Train what ``request`` asks for, and show it from the data set to the result.

    Args:
        since: ``time.monotonic()`` when the budget starts to count.
        explain: show each fitted setting with its reason.
        python: the user called a function, and typed no command.
        own: more arguments of :func:`retinanet.training.trainer.train`, such as ``loss`` and ``log``.
    """
    out.note(*request.notes)
    with Progress(out, explain=explain) as progress:
        summary = trainer.train(
            request.data,
            request.settings,
            request.output,
            resume=request.resume,
            fit=request.fit,
            callbacks=[progress, *callbacks],
            since=since,
            **own,
        )
    show_ending(out, summary, request, progress, python)
    return summary


OPTIONAL = ("budget", "epochs", "steps", "weights")
"""Settings that are parameters, for which None means that they are not given."""
OTHERS = tuple(
    name
    for name, parameter in inspect.signature(train).parameters.items()
    if parameter.kind is not parameter.VAR_KEYWORD and name not in OPTIONAL
)


def _request(data: Any, given: Mapping[str, Any], arguments: Mapping[str, Any]) -> RunRequest:
    """The run that the arguments ask for. Its other settings are fitted, unless there is a recipe."""
    paths = {name: _path(name, arguments[name]) for name in ("output", "resume")}
    config = None if arguments["config"] is None else str(arguments["config"])
    return of_run(_path("data", data), given, config=config, anchors=arguments["anchors"], **paths)


def _whole_request(data: Any, settings: Any, given: Mapping[str, Any], arguments: Mapping[str, Any]) -> RunRequest:
    """A run with exactly these settings."""
    if not isinstance(settings, Settings):
        raise RequestError(f"settings must be retinanet.Settings, not {shown(settings)}; a dict goes into a section")
    others = {name: value for name, value in arguments.items() if name != "output" and value is not None}
    if names := [*others, *dotted(given)]:
        raise RequestError(f"settings holds all settings of a run: leave out {', '.join(names)}, or settings")
    path = _path("data", data)
    if path is None:
        raise RequestError("give a data set: retinanet.train(DATA)")
    require_data(path)
    return RunRequest(path, settings, _path("output", arguments["output"]) or next_folder(path))


def _path(name: str, value: Any) -> Path | None:
    return None if value is None else path_of(name, value)


def _time(budget: Any) -> Any:
    """A budget as the settings have it; numbers are seconds."""
    number = isinstance(budget, int | float) and not isinstance(budget, bool)
    return f"{budget:.3f}s" if number else budget
