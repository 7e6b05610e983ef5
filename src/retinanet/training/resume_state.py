"""resume.pt, the one file that a run is resumed from."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from retinanet.common.atomic_files import replacing
from retinanet.common.errors import RequestError, first_line
from retinanet.common.fields import shown
from retinanet.weight_files.torch_files import ZipFile

VERSION = 1


@dataclass
class Progress:
    """How far a run is. With the weights and the optimizer's state it is all that a resumed run needs."""

    step: int = 0
    elapsed: float = 0.0
    """Seconds, over all sessions of the run."""
    begun: float = 0.0
    """Seconds before the first step."""
    best: float = -math.inf
    """The highest AP so far."""
    best_step: int = 0
    evaluations_since_best: int = 0
    evaluated: int = 0
    """Step of the last evaluation."""
    finished: str = ""
    """Why the run is finished, such as "finished" or "patience"; empty until then."""
    seconds_in: dict[str, float] = field(default_factory=dict)
    """Seconds of each phase: data, forward, backward, ..."""

    def add_evaluation(self, ap: float) -> bool:
        """Record an evaluation after the current step; whether it is the best so far."""
        self.evaluated = self.step
        self.evaluations_since_best += 1
        if not ap > self.best:  # NaN is never the best
            return False
        self.best, self.best_step, self.evaluations_since_best = ap, self.step, 0
        return True

    def summary(self, folder: Path, last: dict[str, float]) -> dict[str, Any]:
        """The summary of a run, with the numbers of its last evaluation."""
        return {
            "output": str(folder),
            "steps": self.step,
            "seconds": self.elapsed,
            "stopped": self.finished,
            "last": last,
            "best_step": self.best_step,
            "best_AP": self.best,
        }


@dataclass
class Resumable:
    """The parts of a run whose state is saved."""

    model: nn.Module
    optimizer: Any
    precision: Any
    """Fabric's precision plugin: it holds the scale of fp16's losses."""
    average: nn.Module | None = None
    """The model with the averaged weights."""

    def collect(self, progress: Progress) -> dict[str, Any]:
        return {
            "progress": asdict(progress),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.precision.state_dict(),
            "ema": self.average.state_dict() if self.average is not None else {},
        }

    def restore(self, saved: dict[str, Any], path: Path) -> Progress:
        """Continue from ``saved``, the contents of ``path``."""
        with restoring(path):
            progress = Progress(**saved["progress"] | {"finished": ""})
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.precision.load_state_dict(saved["precision"])
            if self.average is not None:
                self.average.load_state_dict(saved["ema"])
        return progress


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text and containers of these) to ``path``.

    A process that is killed while it writes leaves the old file as it was.

    Raises:
        WorkError: the file cannot be written, for example because the disk is full.
    """
    with replacing(path, RuntimeError, needs=_tensor_bytes(state)) as temporary, open(temporary, "wb") as file:
        torch.save({"version": VERSION, **state}, file)
        file.flush()
        os.fsync(file.fileno())


def _tensor_bytes(value: Any) -> int:
    """Bytes of the tensors in ``value``, which are nearly all of the file."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_tensor_bytes, items))


def load(path: Path) -> dict[str, Any]:
    """Read what :func:`save` wrote. Tensors arrive on the CPU; no code in the file is executed.

    Raises:
        RequestError: there is no such file, or retinanet did not write it.
    """
    if not path.is_file():
        raise RequestError(f"nothing to resume in {path.parent}: there is no {path.name}; start a new run")
    try:
        with path.open("rb") as file:
            saved = ZipFile(file)
            state: dict[str, Any] = saved.filled(saved.value)
        version = state.pop("version", None)
    except Exception as error:  # a damaged file can fail in any way
        raise RequestError(f"cannot resume from {path}: {first_line(error)}; start a new run") from error
    if version is None:
        raise RequestError(f"cannot resume from {path}: retinanet did not write it; start a new run")
    if version != VERSION:
        raise RequestError(
            f"cannot resume from {path}: its version is {shown(version)}, this retinanet reads {VERSION}"
        )
    return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """A block that takes values from the state in ``path``; its errors become one line.

    Raises:
        RequestError: a value is missing, has the wrong type, or belongs to another network.
    """
    try:
        yield
    except RequestError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise RequestError(f"cannot resume from {path}: {reason}; start a new run") from error
