"""What a checkpoint's pickle may name, and what stands in the place of each.

Nothing that a file names is ever imported or called. What weights are made of (arrays, tensors, containers) has a small
function of ours in its place; what trainers leave beside them is listed and becomes an :class:`Unused`; any other name
is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from retinanet.common.fields import shown

PACKAGES = (
    *("mmengine.", "mmcv.", "mmdet.", "omegaconf.", "lightning.", "pytorch_lightning.", "lightning_fabric."),
    *("deepforest.", "torchmetrics.", "torch.optim.", "yacs.", "detectron2.config.", "datetime."),
)
"""Packages whose objects are harmless as an :class:`Unused`."""
UNUSED = (
    *("argparse.Namespace", "types.SimpleNamespace", "copyreg._reconstructor", "uuid.UUID", "numpy.ndarray"),
    *("torch.Tensor", "torch.device", "torch.nn.parameter.Parameter"),
    *(f"typing.{name}" for name in ("Any", "Union", "Optional", "Dict", "List")),
    *(f"builtins.{name}" for name in ("int", "float", "str", "bool", "complex", "object", "slice", "range")),
)
"""The same for single names."""
MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Names of Python 2 -> their names today."""
NUMBERS = re.compile(r"torch\.(u?int|b?float|complex)\d*|torch\.(bool|half|double|long|short)")
STORAGES = re.compile(r"torch\.(cuda\.|storage\.)?[A-Z][A-Za-z0-9]*Storage")
TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")


class ForbiddenError(ValueError):
    """The pickle names something that is not allowed; the message is that name."""


class Global(NamedTuple):
    """A class or function that a pickle names."""

    name: str


class Unused:
    """In the place of an object that is known to be harmless and not needed."""

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name, self.args, self.state = name, args, None

    def build(self, state: Any) -> None:
        self.state = state


class DType:
    """A numpy type of numbers; types that hold Python objects or fields are refused."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = _text(code), "="

    def build(self, state: Any) -> None:
        self.order = _text(state[1])

    def numpy(self) -> np.dtype[Any]:
        if len(self.code) > 3 or self.code[0] not in "biuf" or self.order not in ("<", ">", "=", "|"):
            raise ValueError(f"an array holds {self.code!r}, not numbers")
        return np.dtype(self.code).newbyteorder(">" if self.order == ">" else "<" if self.order == "<" else "=")


class Array:
    """A numpy array; what makes it up is checked when :meth:`numpy` is called."""

    def __init__(self, data: Any = b"", dtype: Any = None, shape: Any = (), order: str = "C") -> None:
        self.data, self.dtype, self.shape, self.order = data, dtype, shape, order

    def build(self, state: Any) -> None:
        _, self.shape, self.dtype, fortran, self.data = state
        self.order = "F" if fortran else "C"

    def numpy(self) -> np.ndarray[Any, Any]:
        if not isinstance(self.dtype, DType) or not isinstance(self.data, bytes | str):
            raise ValueError("an array holds objects, not numbers")
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data  # a string of Python 2
        return np.frombuffer(data, self.dtype.numpy()).reshape(self.shape, order="F" if self.order == "F" else "C")


class Tensor(NamedTuple):
    """A torch tensor whose numbers are somewhere else in the file; dtype is that of the storage unless given."""

    storage: Any
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str | None = None


def _text(value: Any) -> str:
    text = value[:100].decode("latin1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not 0 < len(text) < 100:
        raise ValueError("a name is missing")
    return text


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ForbiddenError(f"_codecs.encode to {shown(encoding)}")
    return text.encode("latin1")


def _scalar(dtype: Any, data: Any = b"") -> Any:
    return Array(data, dtype).numpy().item()


def _array(kind: Any = None, *_: Any) -> Array:
    if kind != Global("numpy.ndarray"):
        raise ForbiddenError("an array of another class than numpy.ndarray")
    return Array()


def _dict(items: Any = (), *_: Any) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key, value in items.items() if isinstance(items, dict) else items if isinstance(items, list | tuple) else ():
        put(result, key, value)
    return result


def _list(items: Any = (), *_: Any) -> list[Any]:
    return list(items) if isinstance(items, list | tuple) else []


def _tensor(*args: Any) -> Tensor:
    storage, offset, size, stride, *rest = args
    if max(len(size), len(stride)) > 64:
        raise ValueError("a tensor's shape is not one")
    if not all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride)) or len(size) != len(stride):
        raise ValueError("a tensor's shape is not one")
    given = [value.name for value in rest if isinstance(value, Global)]  # only of _rebuild_tensor_v3
    return Tensor(storage, offset, tuple(size), tuple(stride), given[0] if given else None)


def _of_type(function: Any, _: Any, args: Any, *__: Any) -> Tensor:
    if not isinstance(function, Global) or function.name not in [f"torch._utils.{name}" for name in TENSORS]:
        raise ForbiddenError("a tensor of an unknown kind")
    return _tensor(*args)


MADE: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _dict,
    "collections.defaultdict": lambda *_: {},  # its items follow
    "collections.Counter": _dict,
    "collections.deque": _list,
    "builtins.dict": _dict,
    "builtins.list": _list,
    "builtins.set": _list,
    "builtins.frozenset": _list,
    "builtins.tuple": lambda *args: tuple(_list(*args)),
    "builtins.bytearray": lambda value=b"", *encoding: value if isinstance(value, bytes) else _encode(value, *encoding),
    "builtins.bytes": lambda value=b"", *encoding: value if isinstance(value, bytes) else b"",
    "_codecs.encode": _encode,
    **{f"{module}.multiarray._reconstruct": _array for module in ("numpy.core", "numpy._core")},
    **{f"{module}.multiarray.scalar": _scalar for module in ("numpy.core", "numpy._core")},
    **{f"{module}.numeric._frombuffer": Array for module in ("numpy.core", "numpy._core")},
    "numpy.dtype": DType,
    **{f"torch._utils.{name}": _tensor for name in TENSORS},
    **{
        f"torch._utils.{name}": lambda data, *_: data
        for name in ("_rebuild_parameter", "_rebuild_parameter_with_state")
    },
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.Size": lambda *args: tuple(_list(*args)),
    **{
        f"pathlib.{name}": lambda *parts: str(PurePosixPath(*(part for part in parts if isinstance(part, str))))
        for name in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
    },
}


def put(mapping: dict[Any, Any], key: Any, value: Any) -> None:
    """An item, under a key that costs nothing to hash: a nest of tuples can take for ever."""
    plain = isinstance(key, str | int | float | bytes | None)
    mapping[key if plain else f"<{len(mapping)}: {type(key).__name__}>"] = value


def named(module: Any, last: Any) -> Global:
    """A class or function by its module and its name there, where it is allowed."""
    if not isinstance(module, str) or not isinstance(last, str) or len(module) + len(last) > 500:
        raise ValueError("a name is none")
    name = f"{MODULES.get(module, module)}.{last}"
    if name in MADE or name in UNUSED or NUMBERS.fullmatch(name) or STORAGES.fullmatch(name):
        return Global(name)
    if name.startswith(PACKAGES):
        return Global(name)
    raise ForbiddenError(name)


def call(function: Any, args: Any) -> Any:
    if not isinstance(function, Global) or not isinstance(args, tuple):
        raise ValueError("it calls what is not a function")
    make = MADE.get(function.name)
    return make(*args) if make else Unused(function.name, args)


def plain(value: Any, depth: int = 8, budget: list[int] | None = None) -> Any:
    """``value`` as numbers, text, lists and dicts; what goes too deep, is too much or is none of these becomes None."""
    budget = [20_000] if budget is None else budget
    budget[0] -= 1
    if depth < 0 or budget[0] < 0:
        return None
    if isinstance(value, str | bool | int) or value is None or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Unused):
        value = value.state
    if isinstance(value, dict):
        return {str(key): plain(item, depth - 1, budget) for key, item in value.items() if budget[0] > 0}
    if isinstance(value, list | tuple) and not isinstance(value, Global | Tensor):
        return [plain(item, depth - 1, budget) for item in _first(value, budget)]
    return None


def _first(items: Iterable[Any], budget: list[int]) -> Iterable[Any]:
    for item in items:
        if budget[0] <= 0:
            return
        yield item
