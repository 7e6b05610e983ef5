"""Checks of settings: every field has the right type, is finite and within its bounds.

The bounds are written with the field, as in ``depth: Annotated[int, Within(0, 64)]``. Settings may come from other
people's checkpoints and recipes, so no value may cause endless work, use all memory, or make a message long.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from retinanet.common.errors import RequestError

S = TypeVar("S")
LONGEST = 4096
"""Characters of the longest text."""
MOST = 100_000
"""Items of the longest list or mapping."""


class SettingsError(RequestError):
    """A setting cannot be used. The message says which, why, and what to write instead."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise SettingsError(message)


@dataclass(frozen=True)
class Within:
    """The bounds of a number. ``above`` and ``below`` exclude the bounds themselves."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def require(self, value: float, where: str) -> None:
        low = value > self.low if self.above else value >= self.low
        high = value < self.high if self.below else value <= self.high
        if low and high:
            return
        if self.high - self.low <= 1:
            bounds = f"in {'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"
        elif not low:
            bounds = f"{'above' if self.above else 'at least'} {self.low:g}"
        else:
            bounds = f"{'below' if self.below else 'at most'} {self.high:g}"
        raise SettingsError(f"{where} must be {bounds}, not {shown(value)}")


class Section:
    """Base of the settings dataclasses. An instance converts and checks its fields when it is made."""

    where: ClassVar[str] = ""
    """The dotted name of the section, for messages."""

    def __init_subclass__(cls, where: str = "") -> None:
        cls.where = where

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for field, hint in _hints(kind).items():
            dotted = f"{self.where}.{field}" if self.where else field
            object.__setattr__(self, field, convert(hint, getattr(self, field), dotted))


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def from_plain(kind: type[S], values: Any, where: str = "") -> S:
    """Settings from nested dicts and lists. Missing keys keep their defaults.

    Raises:
        SettingsError: a key is unknown (the message names the nearest known one), or a value has the wrong type or is
            out of bounds.
    """
    where = where or getattr(kind, "where", "")
    if not isinstance(values, dict):
        raise SettingsError(f"{where or 'settings'} must be a mapping of names to values, not {shown(values)}")
    section: Any = kind
    hints = _hints(section)
    arguments = {}
    for key, value in values.items():
        dotted = f"{where}.{name(key)}" if where else name(key)
        if key not in hints:
            import difflib

            near = difflib.get_close_matches(name(key), hints, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(hints)}"
            raise SettingsError(f"unknown setting {dotted!r}{hint}")
        arguments[key] = convert(hints[key], value, dotted)
    return kind(**arguments)


def convert(hint: Any, value: Any, where: str) -> Any:
    """``value`` converted to the type ``hint``, which may be annotated with bounds.

    Raises:
        SettingsError: it cannot be converted, or is out of bounds.
    """
    origin = get_origin(hint)
    if origin is Annotated:
        inner, *bounds = get_args(hint)
        value = convert(inner, value, where)
        for bound in bounds:
            bound.require(value, where)
        return value
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_plain(hint, value, where)  # type: ignore[arg-type]
    if origin in (Union, UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        (inner,) = (h for h in get_args(hint) if h is not type(None))
        return convert(inner, value, where)
    if origin is Literal:
        if isinstance(value, str) and value in get_args(hint):
            return value
        raise SettingsError(f"{where} must be one of {', '.join(map(str, get_args(hint)))}, not {shown(value)}")
    if origin is tuple and isinstance(value, list | tuple):
        return _items(get_args(hint), value, where)
    if origin is dict and isinstance(value, dict):
        require(len(value) <= MOST, f"{where} has {len(value)} items, more than {MOST}")
        kind = get_args(hint)[1]
        return {str(k): v if kind is Any else convert(kind, v, f"{where}.{name(k)}") for k, v in value.items()}
    return _single(hint, value, where)


def _items(hints: tuple[Any, ...], value: list[Any] | tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if hints[-1] is Ellipsis:
        require(len(value) <= MOST, f"{where} has {len(value)} items, more than {MOST}")
        return tuple(convert(hints[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    require(len(hints) == len(value), f"{where} needs {len(hints)} values, not {len(value)}")
    return tuple(convert(h, item, f"{where}[{i}]") for i, (h, item) in enumerate(zip(hints, value)))


def _single(hint: Any, value: Any, where: str) -> Any:
    """``value`` as a number, a text, true or false."""
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        require(math.isfinite(value), f"{where} must be a finite number, not {value}")
        return value
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if hint is str and isinstance(value, int) and not isinstance(value, bool):
        value = shown(value)  # YAML reads ``devices: 2`` as a number
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        require(not isinstance(value, int) or abs(value) < 2**63, f"{where} is a number of too many digits")
        require(
            not isinstance(value, str) or (len(value) <= LONGEST and "\0" not in value),
            f"{where} must be text of at most {LONGEST} characters, without NUL, not {shown(value)}",
        )
        return value
    wanted = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}.get(hint, "a list")
    wanted = "a mapping of names to values" if get_origin(hint) is dict else wanted
    raise SettingsError(f"{where} must be {wanted}, not {shown(value)}")


def require_small(value: Any, where: str, depth: int = 4, left: list[int] | None = None) -> None:
    """Require few plain values of moderate size: numbers up to 10 000, short texts, shallow lists and mappings.

    Raises:
        SettingsError: ``value`` holds too much, or another type.
    """
    left = [256] if left is None else left
    left[0] -= 1
    require(depth >= 0 and left[0] >= 0, f"{where} holds too many values, or nests them too deep")
    if isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            require_small(item, f"{where}.{name(key)}", depth - 1, left)
    elif isinstance(value, str):
        require(len(value) <= 256, f"{where} must be at most 256 characters, not {shown(value)}")
    elif value is not None and not isinstance(value, bool):
        require(isinstance(value, int | float), f"{where} must be a plain value, not {shown(value)}")
        require(abs(value) <= 10_000, f"{where} must be from -10000 to 10000, not {shown(value)}")


def shown(value: Any) -> str:
    """``value`` for a message: one short line."""
    try:
        text = " ".join(_SHORT.repr(value).split())
    except ValueError:  # Python does not print numbers with very many digits
        text = "a number of very many digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict = 3, 10, 10, 10
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80


def name(key: Any) -> str:
    """A name for a message: unchanged, unless it is long or has unprintable characters."""
    return key if isinstance(key, str) and len(key) <= 256 and key.isprintable() else shown(key)
