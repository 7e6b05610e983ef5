"""The JSON that stands beside a model's weights, checked field by field and within limits.

It is the same in safetensors, ONNX, OpenVINO folders, torch programs and run folders. Any of them may come from a
stranger, and be damaged or made to take endless time or memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.common.arguments import class_names_of
from retinanet.common.errors import RequestError, first_line
from retinanet.common.fields import from_plain, shown
from retinanet.common.text import TextError, read_bytes
from retinanet.config.model_settings import ModelSettings

LONGEST = 4 * 2**20
"""Bytes of a JSON text; ten thousand class names take a tenth."""
LONGEST_HEADER = 16 * 2**20
"""Bytes of a safetensors file's header, metadata included; a ResNet-101's takes a hundredth."""
DEEPEST = 24
"""Levels of lists and mappings in each other."""
DIGITS = 20
"""Of a whole number."""
KNOWN = {"origin": str, "assumed": list, "step": int, "split": str, "metrics": dict}
"""Types of the values in a checkpoint's ``extra`` that the program reads back."""


class About(NamedTuple):
    settings: ModelSettings
    class_names: tuple[str, ...]
    extra: dict[str, Any]


def read(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        ValueError: it cannot be read, is no regular file, or :func:`parse` refuses its text.
    """
    try:
        return parse(read_bytes(path, LONGEST))
    except TextError as error:
        raise ValueError(error.reason) from None


def parse(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, or longer, deeper or with longer numbers than anything that this program writes.
    """
    if len(text) > LONGEST:
        raise ValueError(f"{len(text)} bytes of metadata, where {LONGEST} are the most")
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_int=_whole)
        _require_shallow(value, DEEPEST)
    except RecursionError:
        raise ValueError("metadata that is nested too deep") from None
    except UnicodeDecodeError:
        raise ValueError("metadata that is no UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"metadata that is no JSON: {first_line(error)}") from None
    return value


def about(settings: Any, class_names: Any, extra: Any) -> About:
    """Settings, class names and extra values of parsed metadata.

    Raises:
        ValueError: a value is of the wrong type or out of its bounds. SettingsError is one.
    """
    names = class_names_of(class_names)
    require_extra(extra)
    return About(from_plain(ModelSettings, settings), names, extra)


def of_export(path: Path, known: Any, format: str, names: str = "classes", extra: str = "extra") -> About:
    """Settings, class names and extra values of an exported model; its settings must be complete.

    Args:
        path: for messages. known: parsed metadata. format: the value it must have as "format".
        names, extra: keys of the class names and of the extra values.

    Raises:
        RequestError: it is the metadata of something else, or damaged.
    """
    actual = known.get("format") if isinstance(known, dict) else None
    if actual != format:
        raise RequestError(
            f"{path} is of something else (its metadata names the format {shown(actual)}, not {format!r}): give what "
            "retinanet export made"
        )
    try:
        result = about(known["settings"], known[names], known[extra])
        if result.settings.preprocessing.mean is None or result.settings.preprocessing.std is None:
            raise KeyError("settings.preprocessing.mean or std")
    except KeyError as error:
        raise RequestError(f"{path} cannot be read: its metadata is damaged, it lacks {error}") from error
    except ValueError as error:
        raise RequestError(f"{path} cannot be read: its metadata is damaged ({error})") from error
    return result


def require_extra(extra: Any) -> None:
    """
    Raises:
        ValueError: ``extra`` is no mapping, or a value that the program reads back is of another type.
    """
    if not isinstance(extra, Mapping):
        raise ValueError(f"extra must be a mapping of names to values, not {shown(extra)}")
    for name, kind in KNOWN.items():
        value = extra.get(name)
        if value is not None and not isinstance(value, kind):
            raise ValueError(f"extra.{name} must be of the type {kind.__name__}, not {shown(value)}")
    if any(not isinstance(line, str) for line in extra.get("assumed") or ()):
        raise ValueError("extra.assumed must be a list of texts")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping of names to values; a repeated name is refused, for another reader may take another value."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("metadata with two values of one name")
    return result


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError("metadata with a number of very many digits")
    return int(digits)


def _require_shallow(value: Any, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth == 0:
            raise RecursionError
        for item in value.values() if isinstance(value, dict) else value:
            _require_shallow(item, depth - 1)
