"""Checks of arguments, shared by Python, the command line and files."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args

from retinanet.common.errors import RequestError
from retinanet.common.fields import shown

LARGEST = 16384
"""The largest side in pixels that an image is resized to, as in ``model.preprocessing``."""
MOST_CLASSES = 100_000
LONGEST_NAME = 1000
"""Characters of a class name."""
Nms = Literal["class", "agnostic"]
"""Which boxes non-maximum suppression compares: those of one class, or all."""


def whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """``value`` as an int; it may be a NumPy integer.

    Raises:
        RequestError: it is no whole number, below ``least`` or above ``most``. The message begins with ``name``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise RequestError(f"{name} must be a whole number of at least {least}, not {shown(value)}")
    if value < least:
        raise RequestError(f"{name} must be at least {least}, not {shown(int(value))}")
    if most is not None and int(value) > most:
        raise RequestError(f"{name} must be at most {most}, not {shown(int(value))}")
    return int(value)


def real(name: str, value: Any) -> float:
    """``value`` as a float; it may be a NumPy number.

    Raises:
        RequestError: it is no number. The message begins with ``name``.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise RequestError(f"{name} must be a number, not {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def threshold_of(name: str, value: Any) -> float:
    """``value`` as a score threshold, in [0, 1).

    Raises:
        RequestError: it is no number, or out of that range. The message begins with ``name``.
    """
    if not 0 <= (number := real(name, value)) < 1:
        raise RequestError(f"{name} must be in [0, 1), not {number}")
    return number


def one_of(name: str, value: Any, values: Sequence[str]) -> str:
    """``value``, which is one of ``values``.

    Raises:
        RequestError: it is not. The message begins with ``name``.
    """
    if value not in values:
        raise RequestError(f"{name} must be {' or '.join(values)}, not {shown(value)}")
    return str(value)


def path_of(name: str, value: Any) -> Path:
    """``value`` as a path.

    Raises:
        RequestError: it is no path, or holds a null byte. The message begins with ``name``.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(text := os.fspath(value), str):
        raise RequestError(f"{name} must be a path, not {shown(value)}")
    if "\0" in text:
        raise RequestError(f"{name} is {shown(text)}: a path cannot hold a null byte")
    return Path(text)


def require_data(data: Path) -> None:
    """
    Raises:
        RequestError: there is no such file or folder.
    """
    if not data.exists():
        raise RequestError(f"there is no data set {data}: no such file or folder")


def class_names_of(names: Any, count: int | None = None) -> tuple[str, ...]:
    """Class names in the order of their labels, as a tuple.

    Args:
        names: a list or tuple of different texts that are not blank.
        count: the number of the model's classes, if it is known.

    Raises:
        RequestError: ``names`` cannot be used.
    """
    if not isinstance(names, list | tuple) or not names:
        raise RequestError(f'class names must be a list of texts such as ["cat", "dog"], not {shown(names)}')
    if len(names) > MOST_CLASSES:
        raise RequestError(f"{len(names)} class names are too many: at most {MOST_CLASSES}")
    seen = set()
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME:
            raise RequestError(
                f"class name {index} must be a text of 1 to {LONGEST_NAME} characters, not {shown(name)}"
            )
        if name in seen:
            raise RequestError(f"class name {index} is {shown(name)} again: give each class another name")
        seen.add(name)
    if count is not None and len(names) != count:
        raise RequestError(f"{len(names)} class names for a model of {count} classes")
    return tuple(names)


@dataclass(frozen=True)
class PredictOptions:
    """What all ways to predict share, as Python numbers; None stands for the model's own setting.

    Args:
        named: how messages write a field's name; the command line writes ``--batch-size``.

    Raises:
        RequestError: a field is no number, out of range or unknown; the message begins with its name.
    """

    threshold: float | None = None
    """Scores at or below it are dropped, in [0, 1)."""
    max_detections: int | None = None
    """The most detections per image, at least 1."""
    size: int | None = None
    """Resize images to this many pixels instead of the model's size."""
    batch_size: int = 8
    """How many images of one padded size go through the network at once."""
    nms: Nms | None = None
    """"class": boxes of one class suppress each other; "agnostic": boxes of all classes do."""
    named: InitVar[Callable[[str], str]] = str

    def __post_init__(self, named: Callable[[str], str]) -> None:
        checked = {
            "threshold": self.threshold if self.threshold is None else threshold_of(named("threshold"), self.threshold),
            "max_detections": _whole_or_none(named("max_detections"), self.max_detections),
            "size": _whole_or_none(named("size"), self.size, LARGEST),
            "batch_size": whole(named("batch_size"), self.batch_size),
            "nms": self.nms if self.nms is None else one_of(named("nms"), self.nms, get_args(Nms)),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def _whole_or_none(name: str, value: Any, most: int | None = None) -> int | None:
    return None if value is None else whole(name, value, most=most)
