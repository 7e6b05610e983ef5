"""Numbers that callers give, checked in one place: Python and the command line refuse the same ones."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

from retinanet.errors import RequestError

LARGEST = 16384
"""Pixels a side that an image is resized to at most, as in ``model.preprocessing``."""


def whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A whole number, of Python or NumPy.

    Raises:
        RequestError: it is none, below ``least`` or above ``most``; the message begins with ``name``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise RequestError(f"{name} must be a whole number of at least {least}, not {value!r}")
    if value < least:
        raise RequestError(f"{name} must be at least {least}, not {int(value)}")
    if most is not None and int(value) > most:
        raise RequestError(f"{name} must be at most {most}, not {int(value)}")
    return int(value)


def real(name: str, value: Any) -> float:
    """A number, of Python or NumPy.

    Raises:
        RequestError: it is none; the message begins with ``name``.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise RequestError(f"{name} must be a number, not {value!r}")
    return float(value)


def threshold_of(name: str, value: Any) -> float:
    """A score to compare with: from 0 to below 1.

    Raises:
        RequestError: it is no number, or out of that range; the message begins with ``name``.
    """
    if not 0 <= (number := real(name, value)) < 1:
        raise RequestError(f"{name} must be in [0, 1), not {number}")
    return number


def of_prediction(
    threshold: Any, max_detections: Any, size: Any, batch_size: Any, option: str = "{}"
) -> tuple[float | None, int | None, int | None, int]:
    """The arguments that all ways to predict share, as Python numbers; None stands for the model's own setting.

    Args:
        option: how the messages write a name, such as "--{}".

    Raises:
        RequestError: one of them is no number, or out of range.
    """
    dash = "-" if option.startswith("-") else "_"

    def name(*words: str) -> str:
        return option.format(dash.join(words))

    return (
        None if threshold is None else threshold_of(name("threshold"), threshold),
        None if max_detections is None else whole(name("max", "detections"), max_detections),
        None if size is None else whole(name("size"), size, most=LARGEST),
        whole(name("batch", "size"), batch_size),
    )
