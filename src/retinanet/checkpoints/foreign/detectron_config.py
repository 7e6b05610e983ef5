"""The configuration that Detectron keeps beside its blobs: a dump in YAML, full of Python's own types."""

from __future__ import annotations

import ast
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from retinanet.common import safe_yaml
from retinanet.common.errors import RequestError, first_line
from retinanet.common.fields import shown

FIXED: dict[str, Any] = {
    "RETINANET.SOFTMAX": False,
    "RETINANET.CLASS_SPECIFIC_BBOX": False,
    "RETINANET.SHARE_CLS_BBOX_TOWER": False,
    "RESNETS.RES5_DILATION": 1,
    "FPN.RPN_MIN_LEVEL": 3,
    "FPN.RPN_MAX_LEVEL": 7,
    "FPN.EXTRA_CONV_LEVELS": True,
    "TEST.BBOX_REG": True,
}
"""Values that the configuration must have where it has one; nothing else can be built here."""

LONGEST = 1 << 17  # characters; the zoo's have some ten thousand
LARGEST = 1e9  # no number in a configuration that means anything here is larger


class Configuration:
    """Values by keys such as ``TEST.NMS``; nothing in the text is executed.

    Args:
        path: of the checkpoint or of the text, for messages.
        text: None for a file without a configuration.

    Raises:
        RequestError: the text is not the YAML of a configuration.
    """

    def __init__(self, path: Path, text: Any) -> None:
        self.path = path
        self.values: Any = {}
        if text is None:
            return
        try:
            short = isinstance(text, str) and len(text) <= LONGEST
            self.values = safe_yaml.load(text or "{}", _Untagged, references=True) if short else None
        except yaml.YAMLError as error:
            raise RequestError(f"{path} has a configuration that is not YAML ({first_line(error)})") from error
        if not isinstance(self.values, dict):
            raise RequestError(f"{path} has a configuration that is no mapping of names to values")

    def check(self) -> None:
        """Refuse what cannot be built here."""
        self.require(FIXED)
        clip, ours = self.number("BBOX_XFORM_CLIP", math.log(1000 / 16)), math.log(1000 / 16)
        if abs(clip - ours) > 1e-6:
            raise RequestError(f"{self.path} is configured with BBOX_XFORM_CLIP {clip}; only {ours} can be converted")

    def require(self, fixed: Mapping[str, Any]) -> None:
        """Refuse other values than these, where there are values; tuples and lists are the same."""
        for key, needed in fixed.items():
            value = self.get(key, needed)
            if (list(value) if isinstance(value, tuple) else value) != needed:
                only = needed or repr(needed)
                raise RequestError(f"{self.path} is configured with {key} {shown(value)}; only {only} can be converted")

    def get(self, key: str, default: Any) -> Any:
        """A value; text of a Python literal, such as a number or a tuple, becomes that value, as in Detectron."""
        value = self.values
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is None:
            return default
        if isinstance(value, str) and len(value) < 1000:
            try:
                return ast.literal_eval(value)
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                return value
        return value

    def numbers(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        value = self.get(key, default)
        result = _numbers(value)
        if not result:
            raise RequestError(f"{self.path} has {shown(value)} as {key} in its configuration, where numbers should be")
        return result

    def number(self, key: str, default: float) -> float:
        values = self.numbers(key, (default,))
        if len(values) != 1:
            raise RequestError(f"{self.path} has {len(values)} numbers as {key} in its configuration, not one")
        return values[0]

    def whole(self, key: str, default: int) -> int:
        """A whole number above 0; the default may be 0."""
        value = self.number(key, default)
        if value % 1 or (value < 1 and value != default):
            raise RequestError(f"{self.path} has {value} as {key} in its configuration, not a whole number above 0")
        return int(value)


class _Untagged(safe_yaml.base()):  # type: ignore[misc]
    """Text, numbers, lists and dicts, whatever the tags say; no merging of mappings, which can take for ever."""

    def flatten_mapping(self, node: Any) -> None:
        pass

    def untagged(self, _: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            value = self.construct_mapping(node, deep=True)
            return value.get("dictitems", value)  # of Detectron's own kind of dict
        if isinstance(node, yaml.SequenceNode):
            return self.construct_sequence(node, deep=True)
        return self.construct_scalar(node)


_Untagged.add_multi_constructor("", _Untagged.untagged)


def _numbers(value: Any) -> tuple[float, ...]:
    """The numbers in a number, in nested lists, or in a dumped array or scalar of numpy; empty for any other value.

    A dump of numpy ends with the bytes; Detectron's are all float64. A list of more than 100 items, which may hold
    itself, gives none.
    """
    if isinstance(value, dict):
        value = value.get("state")
    if isinstance(value, list | tuple) and value and isinstance(value[-1], str | bytes):
        data = value[-1].encode() if isinstance(value[-1], str) else value[-1]
        value = struct.unpack(f"<{len(data) // 8}d", data) if len(data) in (8, 24) else ()
    waiting: list[Any] = [value]
    result: list[float] = []
    for _ in range(100):
        if not waiting:
            return tuple(result)
        item = waiting.pop(0)
        if isinstance(item, list | tuple) and 0 < len(item) < 100:
            waiting[:0] = item
        elif isinstance(item, int | float) and not isinstance(item, bool) and abs(item) < LARGEST:
            result.append(float(item))
        else:
            return ()
    return ()
