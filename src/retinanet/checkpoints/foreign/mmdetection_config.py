"""The configuration inside an MMDetection checkpoint: Python source, which is read and never executed.

MMDetection writes the whole configuration, with all that it inherits, into the checkpoint, as assignments of numbers,
strings, lists and ``dict(...)``. An expression that would have to be computed stays unknown, and is an error where its
value is needed.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinanet.common.errors import RequestError
from retinanet.common.fields import shown

LONGEST = 2**18
"""Characters; the longest of MMDetection's own configurations has some 20 000."""


class Unknown:
    """The value of an expression that is no literal."""

    def __repr__(self) -> str:
        return "computed"


UNKNOWN = Unknown()


def parse(text: str) -> dict[str, Any] | None:
    """The values assigned to names at the top level of ``text``; None where it is no Python or far too long."""
    if len(text) > LONGEST:
        return None
    values: dict[str, Any] = {}
    try:
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign):
                for target in statement.targets:
                    if isinstance(target, ast.Name):
                        values[target.id] = _value(statement.value)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return values


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _value(node.operand)
        return -value if isinstance(value, int | float) else UNKNOWN
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Dict):
        return _mapping([(_value(key) if key else None, value) for key, value in zip(node.keys, node.values)])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return _mapping([(keyword.arg, keyword.value) for keyword in node.keywords])
    return UNKNOWN


def _mapping(items: list[tuple[Any, ast.expr]]) -> Any:
    result: dict[str, Any] = {}
    for key, node in items:
        value = _value(node)
        if key is not None:
            result[str(key)] = value
        elif isinstance(value, dict):  # **other
            result.update(value)
        else:
            return UNKNOWN
    return result


@dataclass
class Part:
    """One ``dict(...)`` of the configuration and its dotted name."""

    path: Path
    name: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def where(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def refuse(self, key: str, known: str) -> RequestError:
        """The error for a value that cannot be converted."""
        return RequestError(
            f"{self.path}: its config has {self.where(key)} = {shown(self.values.get(key))}, which cannot be "
            f"converted; known here: {known}"
        )

    def get(self, key: str, default: Any = None) -> Any:
        """The plain value of ``key``."""
        value = self.values.get(key, default)
        if value is UNKNOWN:
            raise RequestError(
                f"{self.path}: its config computes {self.where(key)}, and what is computed is not executed here: "
                "write the value itself into the checkpoint's meta"
            )
        return value

    def part(self, key: str) -> Part:
        """The ``dict(...)`` of ``key``, an empty one where there is none."""
        value = self.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.refuse(key, "dict(...)")
        return Part(self.path, self.where(key), value or {})

    def number(self, key: str, default: float) -> float:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
            raise self.refuse(key, "a number")
        return float(value)

    def count(self, key: str, default: int, least: int = 1, most: int = 10**6) -> int:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.refuse(key, f"a whole number from {least} to {most}")
        return value

    def numbers(self, key: str, default: list[float]) -> list[float]:
        """A list of numbers; a pair of equal ones, such as a stride (8, 8), counts as one."""
        value = self.get(key, default)
        if isinstance(value, list | tuple):
            items = [v[0] if isinstance(v, list | tuple) and len(v) == 2 and v[0] == v[1] else v for v in value]
            if all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in items):
                return [float(v) for v in items]
        raise self.refuse(key, "a list of numbers")

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, "True or False")
        return value

    def type(self, *known: str, default: str) -> str:
        """The class that this part describes, without the module that newer configurations write before it."""
        value = self.get("type", default)
        name = value.split(".")[-1] if isinstance(value, str) else ""
        if name not in known:
            raise self.refuse("type", ", ".join(known))
        return name

    def only(self, **allowed: Any) -> None:
        """Every one of these settings has to be absent or this value; lists and tuples are the same."""
        for key, value in allowed.items():
            given = self.get(key, value)
            if (list(given) if isinstance(given, tuple) else given) != value:
                raise self.refuse(key, repr(value))

    def understood(self, *keys: str) -> None:
        """Refuse settings other than ``type`` and these, unless they are None or False."""
        for key, value in self.values.items():
            if (
                key not in ("type", "_delete_", "_scope_", "init_cfg", *keys)
                and value is not None
                and value is not False
            ):
                raise self.refuse(key, f"{self.name} without it")
