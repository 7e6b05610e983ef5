"""What a user asks for when training: a new run or a resumed one, its settings, and which of them are fitted.

The command line and :func:`retinanet.train` share this.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from retinanet.common.arguments import require_data
from retinanet.common.errors import RequestError
from retinanet.common.fields import from_plain
from retinanet.common.printable import setting_text
from retinanet.common.run_names import RUNS, data_name, next_folder
from retinanet.config import recipes
from retinanet.config.convert import dotted, merge, to_plain
from retinanet.config.settings import LENGTHS, STARTS, Settings
from retinanet.training import fitted_defaults, initial_weights
from retinanet.training.launcher import begun_by_this_job
from retinanet.training.preparation import Fit
from retinanet.training.run_folder import read_run

Anchors = Literal["auto", "settings"]
# Settings that a resumed run may change: its length, evaluations, saves and devices; not the training itself.
CHANGEABLE = {
    *(f"train.{name}" for name in LENGTHS),
    *("train.save_every", "train.patience", "train.eval_every", "train.eval_images", "train.report"),
    *("train.accelerator", "train.devices", "train.nodes", "train.strategy"),
    "data.workers",
}


@dataclass(frozen=True)
class RunRequest:
    """The arguments of :func:`retinanet.training.trainer.train` for a run."""

    data: Path
    settings: Settings
    output: Path
    resume: bool = False
    fit: Fit | None = None
    """Chooses the settings that the user did not give."""
    notes: tuple[str, ...] = ()
    """Lines for the user."""


def of_run(
    data: Path | None,
    given: Mapping[str, Any],
    *,
    config: str | None = None,
    anchors: Anchors | None = None,
    output: Path | None = None,
    resume: Path | None = None,
) -> RunRequest:
    """The run that these arguments ask for.

    Without a recipe, the settings that are not given are fitted. If a launcher restarted this job, the run that the job
    began is resumed.

    Args:
        data: the data set; None only with ``resume``.
        given: the settings of the user, as nested dicts.
        config: a recipe.
        anchors: whether to fit the anchors. None fits them without a recipe and weights.
        output: the run folder; the next free one by default.
        resume: the folder of a run to resume.

    Raises:
        RequestError: the arguments contradict each other, or name something that does not exist.
    """
    if resume is None and data is not None and (begun := _begun_before(output, data)) is not None:
        return resumed(begun, None, {}, (f"this job was restarted: it resumes {begun}",))
    if resume is not None:
        others = {"config": config, "output": output, "anchors": anchors}
        if given_too := next((name for name, value in others.items() if value), None):
            raise RequestError(f"--resume takes the settings of {resume}: leave out --{given_too}")
        return resumed(resume, data, given)
    if data is None:
        raise RequestError("give a data set: retinanet train DATA; or a run to resume: retinanet train --resume RUN")
    require_data(data)
    given_anchors = [name for name in dotted(given) if name.startswith("model.anchors.")]
    if anchors == "auto" and given_anchors:
        raise RequestError(f"--anchors auto chooses what {', '.join(given_anchors)} sets: leave out one of them")
    settings = initial_weights.settings(config, given)
    return RunRequest(
        data=data,
        settings=settings,
        output=output or next_folder(data),
        fit=_fit(settings, given, config, anchors),
        notes=_overruled(settings, config, given),
    )


def resumed(folder: Path, data: Path | None, given: Mapping[str, Any], notes: tuple[str, ...] = ()) -> RunRequest:
    """The saved run in ``folder``, with the changes that a resumed run may have.

    Raises:
        RequestError: ``folder`` holds no run, or ``data`` or ``given`` contradict it.
    """
    if not folder.is_dir():
        raise RequestError(f"cannot resume {folder}: there is no such folder")
    own_data, settings = read_run(folder)
    if data is not None:
        require_data(data)
    own = to_plain(settings)
    changed = to_plain(from_plain(Settings, merge(_without_length(own), given)))
    before, after = dotted(own), dotted(changed)
    wanted = dotted(given)
    for name in wanted:
        if name not in CHANGEABLE and after.get(name) != before.get(name):
            raise RequestError(
                f"the run in {folder} has {name} {setting_text(before.get(name))} and cannot go on with "
                f"{setting_text(after.get(name))}: leave it out, or start a new run"
            )
    lengthened = any(wanted.get(f"train.{name}") is not None for name in LENGTHS)
    own = _without_length(own) if lengthened else own
    return RunRequest(data or own_data, from_plain(Settings, merge(own, given)), folder, resume=True, notes=notes)


def _begun_before(output: Path | None, data: Path) -> Path | None:
    """The run that this job began before a launcher restarted it, if it has been saved."""
    folders = [output] if output is not None else sorted(RUNS.glob(f"{glob.escape(data_name(data))}-*"))
    return next((f for f in folders if begun_by_this_job(f) and (f / "resume.pt").is_file()), None)


def _fit(settings: Settings, given: Mapping[str, Any], config: str | None, anchors: Anchors | None) -> Fit | None:
    """What chooses settings for the data and the machine; None keeps all of ``settings``."""
    if config is None:
        return partial(fitted_defaults.fit, given, None if anchors is None else anchors == "auto")
    return partial(fitted_defaults.fit_anchors_only, settings) if anchors == "auto" else None


def _overruled(settings: Settings, config: str | None, given: Mapping[str, Any]) -> tuple[str, ...]:
    """A line about the model settings of a recipe that those of a checkpoint replace."""
    if config is None or settings.train.weights in STARTS:
        return ()
    given_too = dotted(given)
    names = [name for name in initial_weights.overruled(recipes.values(config)) if name not in given_too]
    if not names:
        return ()
    line = f"the model settings are those of {settings.train.weights}; the recipe's {', '.join(names)} are ignored"
    return (f"{line} (to set them, give them beside the recipe)",)


def _without_length(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {**plain, "train": {k: v for k, v in plain.get("train", {}).items() if k not in LENGTHS}}
