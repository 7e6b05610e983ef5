"""The events that a training run reports, one class for each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retinanet.analysis.anchor_fit import Choice
    from retinanet.analysis.doctor import Finding
    from retinanet.config.settings import Settings
    from retinanet.data import DetectionData
    from retinanet.training.initial_weights import Kept


@dataclass(frozen=True)
class Event:
    """Anything that a run reports."""


@dataclass(frozen=True)
class CheckingImages(Event):
    """A split is being opened."""

    done: int
    total: int


@dataclass(frozen=True)
class ComparingImages(Event):
    """Near-duplicates are being looked for, so that they are not divided between training and validation."""

    done: int
    total: int


@dataclass(frozen=True)
class DataOpened(Event):
    """Both splits are open. Their ``report`` lists their faults."""

    train: DetectionData
    val: DetectionData


@dataclass(frozen=True)
class FittingSettings(Event):
    """Settings are being chosen for the data and the machine."""


@dataclass(frozen=True)
class Downloading(Event):
    """Pretrained weights are being downloaded."""

    name: str
    done: int
    """Bytes."""
    total: int | None
    """Bytes of the whole file, if the server says it."""


@dataclass(frozen=True)
class StartChosen(Event):
    """It is known what the run starts from."""

    text: str
    """One line: which start, why, and how to get a better one."""


@dataclass(frozen=True)
class SettingsFitted(Event):
    choices: Sequence[Choice]


@dataclass(frozen=True)
class AnchorsCover(Event):
    share: float
    """Fraction of the training boxes that an anchor covers."""
    lost: str | None
    """A line about the other boxes, if there are any."""
    enough: bool = False
    """Whether the share is high enough for a good detector."""


@dataclass(frozen=True)
class DataExamined(Event):
    findings: Sequence[Finding]


@dataclass(frozen=True)
class WeightsKept(Event):
    """The run starts from the weights of a checkpoint that fit."""

    kept: Kept


@dataclass(frozen=True)
class Started(Event):
    step: int
    """0, or the step that a resumed run continues from."""
    steps: int | None
    budget: float | None
    """Seconds."""
    images: int
    processes: int
    device: str
    precision: str
    output: Path
    settings: Settings


@dataclass(frozen=True)
class StepDone(Event):
    """One optimizer step. On a GPU several are reported at once, because to read a loss is to wait for the GPU."""

    step: int
    epoch: float
    seconds: float
    """Since the run began, over all its sessions."""
    lr: float
    class_loss: float
    box_loss: float
    images_per_second: float
    steps: int | None
    """Steps of the whole run; None with a budget."""
    fraction: float
    """Fraction of the training that is done."""
    seconds_left: float

    def row(self) -> dict[str, float]:
        """The columns of metrics.csv."""
        values = asdict(self)
        return {name: values[name] for name in STEP_COLUMNS}


STEP_COLUMNS = ("step", "epoch", "seconds", "lr", "class_loss", "box_loss", "images_per_second")


@dataclass(frozen=True)
class EvaluationProgress(Event):
    done: int
    total: int


@dataclass(frozen=True)
class EvaluationDone(Event):
    step: int
    epoch: float
    seconds: float
    best: bool
    """Whether no earlier evaluation of the run had a higher AP."""
    metrics: Mapping[str, float]
    """COCO's twelve numbers."""

    def row(self) -> dict[str, float]:
        """The columns of metrics.csv."""
        return {"step": self.step, "epoch": self.epoch, "seconds": self.seconds, **self.metrics}


@dataclass(frozen=True)
class StateSaved(Event):
    path: Path
    step: int


@dataclass(frozen=True)
class Problem(Event):
    """Something failed, but the run goes on."""

    text: str


@dataclass(frozen=True)
class Ended(Event):
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class NothingToDo(Event):
    """A finished run was resumed without a longer length."""

    summary: Mapping[str, Any]
