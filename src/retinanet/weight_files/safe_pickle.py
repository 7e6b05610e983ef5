"""Pickles, read without executing anything that they name.

A pickle is a program. Python's own unpickler runs it here, with two guards:

- Every name in it stands for one of the harmless functions and classes below. Any other name is refused.
- :func:`_inspected` reads the program first, because the unpickler bounds neither time nor memory.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from retinanet.common.fields import shown

UNUSED_PACKAGES = (
    *("mmengine.", "mmcv.", "mmdet.", "omegaconf.", "lightning.", "pytorch_lightning.", "lightning_fabric."),
    *("deepforest.", "torchmetrics.", "torch.optim.", "yacs.", "detectron2.config.", "datetime."),
)
"""Packages whose objects trainers leave beside the weights; each becomes an :class:`Unused`."""
UNUSED = {
    *("argparse.Namespace", "types.SimpleNamespace", "copyreg._reconstructor", "uuid.UUID"),
    *("torch.Tensor", "torch.device", "torch.nn.parameter.Parameter"),
    *(f"typing.{name}" for name in ("Any", "Union", "Optional", "Dict", "List")),
    *(f"builtins.{name}" for name in ("int", "float", "str", "bool", "complex", "object", "slice", "range")),
}
"""The same for single names."""
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Modules of Python 2 -> their names today."""
ARGUMENTS = re.compile(
    r"numpy\.ndarray|torch\.(u?int|b?float|complex)\d*|torch\.(bool|half|double|long|short)"
    r"|torch\.(cuda\.|storage\.)?[A-Z][A-Za-z0-9]*Storage"
)
"""Names that are only passed to functions: the class of arrays, types of numbers, kinds of storages."""
TENSOR_FUNCTIONS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
MOST_OPCODES = 500_000
"""A state of a thousand tensors, its optimizer's and a trainer's log take a third."""
LONGEST_NUMBER = 512
"""Bits of a whole number."""
COPIES = 2, 2**20
"""Calls may copy this many times the length of the pickle, and so many items more."""
REPLACEMENTS = {
    "EMPTY_DICT": b"cbuiltins\ndict\n)R",  # a call that gives an Items
    "EMPTY_SET": b"]",
    "ADDITEMS": b"e",
    "FROZENSET": b"t",
    "NEWOBJ": b"R",
    "NEWOBJ_EX": b"0R",
    "FRAME": b"",
}
"""Opcodes -> what the unpickler runs instead.

Real dicts and sets hash their keys, and a tuple of tuples can take for ever to hash. New objects come from calls
too, without keyword arguments. Frames let the unpickler read other bytes than those that were inspected.
"""
SIZED = list | tuple | dict | str | bytes | bytearray
REFUSED = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "DICT"}
"""Opcodes that no checkpoint has: registered classes, buffers outside of the file, dicts as of protocol 0."""


class ForbiddenError(ValueError):
    """The pickle names something that is not allowed; the message is that name."""


class Items(dict[Any, Any]):
    """A mapping that hashes only keys for which that is fast; others become texts that name their type."""

    __slots__ = ()

    def __setitem__(self, key: Any, value: Any) -> None:
        # Larger integers can be chosen so that all of them have one hash.
        fast = isinstance(key, str | float | bytes | None) or (isinstance(key, int) and abs(key) < 2**63)
        super().__setitem__(key if fast else f"<{len(self)}: {type(key).__name__}>", value)

    def __setstate__(self, state: Any) -> None:
        """Ignore attributes, such as the versions that a state dict carries."""


class Unused:
    """Stands for an object that is known to be harmless and not needed; keeps its state alone."""

    __slots__ = ("state",)

    def __init__(self, *_: Any) -> None:
        self.state = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Ignore an item of a mapping."""

    def extend(self, items: Any) -> None:
        """Ignore items of a list."""


class DType:
    """A numpy type of numbers; types that hold Python objects or fields are refused."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = _short_text(code), "="

    def __setstate__(self, state: Any) -> None:
        self.order = _short_text(state[1])

    def numpy(self) -> np.dtype[Any]:
        if len(self.code) > 3 or self.code[0] not in "biuf" or self.order not in ("<", ">", "=", "|"):
            raise ValueError(f"an array holds {self.code!r}, not numbers")
        return np.dtype(self.code).newbyteorder(">" if self.order == ">" else "<" if self.order == "<" else "=")


class Array:
    """A numpy array; its contents are checked when :meth:`numpy` is called."""

    __slots__ = ("data", "dtype", "order", "shape")

    def __init__(self, data: Any = b"", dtype: Any = None, shape: Any = (), order: str = "C") -> None:
        self.data, self.dtype, self.shape, self.order = data, dtype, shape, order

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, fortran, self.data = state
        self.order = "F" if fortran else "C"

    def numpy(self) -> np.ndarray[Any, Any]:
        if not isinstance(self.dtype, DType) or not isinstance(self.data, bytes | bytearray | str):
            raise ValueError("an array holds objects, not numbers")
        data = self.data.encode("latin1") if isinstance(self.data, str) else self.data  # a string of Python 2
        return np.frombuffer(data, self.dtype.numpy()).reshape(self.shape, order="F" if self.order == "F" else "C")


class Tensor(NamedTuple):
    """A torch tensor whose numbers are elsewhere in the file; dtype None is that of the storage."""

    storage: Any
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str | None = None


class Name:
    """An allowed name in a pickle; a call of it calls the function of ours in :data:`FUNCTIONS`.

    It has slots and refuses a state, so that a pickle cannot change it.
    """

    __slots__ = ("count", "name")

    def __init__(self, name: str, count: Callable[[tuple[Any, ...]], None]) -> None:
        self.name, self.count = name, count

    def __call__(self, *args: Any) -> Any:
        self.count(args)
        return FUNCTIONS.get(self.name, Unused)(*args)

    def __setstate__(self, state: Any) -> None:
        raise ValueError(f"it changes {self.name}")


def _short_text(value: Any) -> str:
    text = value[:100].decode("latin1") if isinstance(value, bytes) else value
    if not isinstance(text, str) or not 0 < len(text) < 100:
        raise ValueError("a name is missing")
    return text


def _encode(text: Any, encoding: Any = "utf-8") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ForbiddenError(f"_codecs.encode to {shown(encoding)}")
    return text.encode("latin1")


def _bytes(value: Any = b"", *encoding: Any) -> Any:
    return value if isinstance(value, bytes | bytearray) else _encode(value, *encoding)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    return Array(data, dtype).numpy().item()


def _array(kind: Any = None, *_: Any) -> Array:
    if not isinstance(kind, Name) or kind.name != "numpy.ndarray":
        raise ForbiddenError("an array of another class than numpy.ndarray")
    return Array()


def _items(items: Any = (), *_: Any) -> Items:
    result = Items()
    for key, value in items.items() if isinstance(items, dict) else items:
        result[key] = value
    return result


def _list(items: Any = (), *_: Any) -> list[Any]:
    return list(items) if isinstance(items, list | tuple) else []


def _tuple(items: Any = ()) -> tuple[Any, ...]:
    return tuple(_list(items))


def _path(*names: Any) -> str:
    return str(PurePosixPath(*(name for name in names if isinstance(name, str))))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    if max(len(size), len(stride)) > 64:
        raise ValueError("a tensor with more than 64 dimensions")
    if not all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride)) or len(size) != len(stride):
        raise ValueError("a tensor whose size and strides are not whole numbers")
    dtypes = [value.name for value in rest if isinstance(value, Name)]  # only _rebuild_tensor_v3 has one
    return Tensor(storage, offset, tuple(size), tuple(stride), dtypes[0] if dtypes else None)


def _subclass_tensor(function: Any, _: Any, args: Any, *__: Any) -> Tensor:
    if not isinstance(function, Name) or FUNCTIONS.get(function.name) is not _tensor:
        raise ForbiddenError("a tensor of an unknown kind")
    return _tensor(*args)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _items,
    "collections.Counter": _items,
    "builtins.dict": _items,
    "collections.defaultdict": lambda *_: Items(),  # the items follow
    "collections.deque": _list,
    "builtins.list": _list,
    "builtins.set": _list,
    "builtins.frozenset": _list,
    "builtins.tuple": _tuple,
    "torch.Size": _tuple,
    "builtins.bytearray": _bytes,
    "builtins.bytes": _bytes,
    "_codecs.encode": _encode,
    "numpy.dtype": DType,
    **{f"{module}.multiarray._reconstruct": _array for module in ("numpy.core", "numpy._core")},
    **{f"{module}.multiarray.scalar": _scalar for module in ("numpy.core", "numpy._core")},
    **{f"{module}.numeric._frombuffer": Array for module in ("numpy.core", "numpy._core")},
    **{f"torch._utils.{name}": _tensor for name in TENSOR_FUNCTIONS},
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": _subclass_tensor,
    **{f"pathlib.{pure}{kind}Path": _path for pure in ("", "Pure") for kind in ("", "Posix", "Windows")},
}
"""Functions and classes that weights are made with -> the function of ours that is called instead."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, program: bytes, persistent: Callable[[Any], Any] | None) -> None:
        super().__init__(io.BytesIO(program), encoding="latin1")  # for strings of Python 2
        self.persistent = persistent
        self.left = COPIES[0] * len(program) + COPIES[1]

    def count(self, args: tuple[Any, ...]) -> None:
        """Refuse endless copies: to copy a long list again costs the file three bytes."""
        self.left -= len(args) + sum(len(arg) for arg in args if isinstance(arg, SIZED))
        if self.left < 0:
            raise ValueError("it copies itself again and again")

    def find_class(self, module: str, name: str, /) -> Name:
        name = f"{PYTHON_2.get(module, module)}.{name}"
        if len(name) > 500:
            raise ValueError("a name of more than 500 characters")
        if name in FUNCTIONS or name in UNUSED or name.startswith(UNUSED_PACKAGES) or ARGUMENTS.fullmatch(name):
            return Name(name, self.count)
        raise ForbiddenError(name)

    def persistent_load(self, identity: Any) -> Any:
        if self.persistent is None:
            raise ForbiddenError("a persistent id (BINPERSID)")
        self.count((identity,))
        return self.persistent(identity)


def load(stream: BinaryIO, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Return the value of the pickle that begins at the position of ``stream``, and leave the stream behind it.

    Sets become lists, mappings :class:`Items`, strings of Python 2 Latin-1 text.

    Args:
        persistent: makes a value of a persistent id (torch's storages).

    Raises:
        ForbiddenError: it names something that is on none of the lists of this module.
        ValueError, TypeError, LookupError, pickle.UnpicklingError, ...: it is damaged, or asks for too much.
    """
    return _Unpickler(_inspected(stream), persistent).load()


def _inspected(stream: BinaryIO) -> bytes:
    """The program of a pickle with :data:`REPLACEMENTS`; one that could take endless time or memory is refused."""
    begin = stream.tell()
    replaced = []
    for number, (opcode, arg, position) in enumerate(pickletools.genops(stream)):
        if number > MOST_OPCODES:
            raise ValueError(f"more than {MOST_OPCODES} operations")
        if opcode.name in REFUSED:
            raise ForbiddenError(f"the operation {opcode.name}")
        if isinstance(arg, int) and opcode.name != "FRAME":
            if arg.bit_length() > LONGEST_NUMBER:
                raise ValueError("a number of very many digits")
            if opcode.name.endswith("PUT") and not arg <= number:  # the memo is as long as its largest index
                raise ValueError("an index of the memo that is too large")
        if opcode.name in REPLACEMENTS:
            replaced.append(((position or 0) - begin, opcode.name))
    end = stream.tell()
    stream.seek(begin)
    program = memoryview(stream.read(end - begin))
    stream.seek(end)
    slices: list[bytes | memoryview] = []
    start = 0
    for position, name in replaced:
        slices += [program[start:position], REPLACEMENTS[name]]
        start = position + (9 if name == "FRAME" else 1)  # a frame's length takes 8 bytes
    slices.append(program[start:])
    return b"".join(slices)


def plain(value: Any, depth: int = 8, budget: list[int] | None = None) -> Any:
    """``value`` as numbers, text, lists and dicts; what is too deep, too much or of another type becomes None."""
    budget = [20_000] if budget is None else budget
    budget[0] -= 1
    if depth < 0 or budget[0] < 0:
        return None
    if isinstance(value, str | bool | int) or value is None or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Unused):
        value = value.state
    if isinstance(value, dict):
        return {str(key): plain(item, depth - 1, budget) for key, item in islice(value.items(), budget[0])}
    if isinstance(value, list | tuple) and not isinstance(value, Tensor):
        return [plain(item, depth - 1, budget) for item in islice(value, budget[0])]
    return None
