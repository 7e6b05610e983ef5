"""The one file that a run is resumed from."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from retinanet.common.atomic_files import replacing
from retinanet.common.errors import RequestError, first_line
from retinanet.common.fields import shown
from retinanet.weight_files.torch_files import ZipFile

VERSION = 1


@dataclass
class Progress:
    """How far a run is: with weights and optimiser all that a resumed run needs to know."""

    step: int = 0
    elapsed: float = 0.0
    """Seconds, over all sessions of the run."""
    begun: float = 0.0
    """Seconds of these before the first step."""
    best: float = -math.inf
    """The highest AP so far."""
    best_step: int = 0
    evaluations_since_best: int = 0
    evaluated: int = 0
    """Step of the last evaluation."""
    finished: str = ""
    """"finished" or "patience" once there is nothing left to do."""
    seconds_in: dict[str, float] = field(default_factory=dict)
    """Seconds of data, forward, backward, ..."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text and containers of these) to ``path``; a kill leaves the old file whole.

    Raises:
        WorkError: the file cannot be written (a full disk, no permission).
    """
    with replacing(path, RuntimeError, needs=_bytes(state)) as place, open(place, "wb") as file:
        torch.save({"version": VERSION, **state}, file)
        file.flush()
        os.fsync(file.fileno())


def _bytes(value: Any) -> int:
    """Of the tensors in ``value``, which are nearly all of the file."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_bytes, items))


def load(path: Path) -> dict[str, Any]:
    """Read what :func:`save` wrote. Tensors arrive on the CPU; nothing in the file is executed.

    Raises:
        RequestError: there is no such file, or it is not one of ours.
    """
    if not path.is_file():
        raise RequestError(f"nothing to resume in {path.parent}: there is no {path.name}; start the run anew")
    try:
        with path.open("rb") as file:
            saved = ZipFile(file)
            state: dict[str, Any] = saved.filled(saved.value)
        version = state.pop("version", None)
    except Exception as error:  # a file can be damaged in every way there is
        reason = first_line(error)
        raise RequestError(f"cannot resume from {path}: {reason}; start the run anew") from error
    if version is None:
        raise RequestError(f"cannot resume from {path}: it is not a file that retinanet wrote; start the run anew")
    if version != VERSION:
        raise RequestError(f"cannot resume from {path}: its version is {shown(version)}, this program reads {VERSION}")
    return state


@contextmanager
def restoring(path: Path) -> Iterator[None]:
    """What is read is put into a run here; errors of what does not fit become one line.

    Raises:
        RequestError: a part of the state is missing, of the wrong type or of another network.
    """
    try:
        yield
    except RequestError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise RequestError(f"cannot resume from {path}: {reason}; start the run anew") from error
