"""The files that ``torch.save`` writes, zip (since torch 1.6) and legacy, without torch's unpickler.

``torch.load(weights_only=True)`` would build every tensor of the optimizer too, differs from one torch to the next in
what it refuses, and stops at a trainer's log. Here a tensor's numbers are read when it is asked for.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from typing import Any, BinaryIO, NamedTuple

import torch

from retinanet.weight_files import inert, pickles

MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The number that a legacy file begins with, after the few bytes of its pickle's protocol."""
DTYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "Untyped": torch.uint8,
}
LONGEST_DIRECTORY = 4 * 2**20
"""Bytes of an archive's list of files; of sixty thousand tensors' files."""
GROWTH = 4
"""Storages may be read for this many times the file's size: once each, unless tensors share and alternate."""
NUMBERS = {str(dtype): dtype for dtype in DTYPES.values()}


class NotTorchError(Exception):
    """A zip file of another kind."""


class _Steps:
    """A file that is read in short steps until ``limit`` is lifted: an archive's directory is read in one."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.limit = file, float(LONGEST_DIRECTORY)

    def read(self, count: int = -1) -> bytes:
        if count > self.limit:
            raise ValueError("an archive of too many files")
        return self.file.read(count)  # of all the rest only the end is asked for

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def open_archive(file: BinaryIO) -> zipfile.ZipFile:
    """
    Raises:
        BadZipFile: it is none. ValueError: it has more files than any checkpoint.
    """
    steps = _Steps(file)
    archive = zipfile.ZipFile(steps)
    steps.limit = math.inf
    return archive


class Storage(NamedTuple):
    key: str
    dtype: torch.dtype


def storage(identity: Any) -> Storage:
    """The storage that a persistent id stands for: ("storage", its class, key, location, count[, view])."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        what = identity[0] if isinstance(identity, tuple) and identity else identity
        if what == "module":
            raise inert.ForbiddenError("the source code of a module")
        raise ValueError("an unknown persistent id")
    _, kind, key, *_ = identity
    if len(identity) > 5 and identity[5] is not None:
        raise ValueError("a storage that is a view of another, as files before torch 0.4 have")
    name = kind.name.rpartition(".")[2].removesuffix("Storage") if isinstance(kind, inert.Global) else None
    if name not in DTYPES:
        raise ValueError(f"numbers of an unknown type ({name})")
    if not isinstance(key, str | int):
        raise ValueError("a storage without a name")
    return Storage(str(key), DTYPES[name])


class TorchFile:
    """``value`` is what was saved, with :class:`inert.Tensor` in the place of tensors; :meth:`tensor` reads one."""

    value: Any

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size = file, file.seek(0, io.SEEK_END)
        file.seek(0)
        self._left = GROWTH * self.size
        self._last: tuple[str, bytearray] = ("", bytearray())

    def _read(self, key: str) -> bytearray:
        raise NotImplementedError

    def filled(self, value: Any, left: list[int] | None = None) -> Any:
        """``value`` with tensors in their places: numbers, text, and lists, tuples and dicts of these.

        Raises:
            ValueError, KeyError, OSError: there is something else in it, or a tensor that cannot be read.
        """
        left = [pickles.MOST_OPCODES] if left is None else left
        left[0] -= 1
        if left[0] < 0:
            raise ValueError("it refers to itself again and again")
        if isinstance(value, inert.Tensor):
            return self.tensor(value)
        if isinstance(value, dict):
            return {key: self.filled(item, left) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.filled(item, left) for item in value)
        if isinstance(value, str | int | float | bytes | None):
            return value
        raise ValueError(f"it holds something of the type {type(value).__name__}")

    def tensor(self, made: inert.Tensor) -> torch.Tensor:
        """Its numbers, in their own type.

        Raises:
            ValueError, KeyError, OSError: the tensor does not fit into its storage, or that is missing.
        """
        if not isinstance(made.storage, Storage):
            raise ValueError("a tensor without a storage")
        key, dtype = made.storage
        if made.dtype is not None:
            dtype = NUMBERS[made.dtype]
        if self._last[0] != key:
            self._last = (key, self._read(key))
            self._left -= len(self._last[1])
            if self._left < 0:
                raise ValueError("its storages are read again and again")
        data = self._last[1]
        stored = len(data) // dtype.itemsize
        if 0 in made.size:
            return torch.empty(made.size, dtype=dtype)
        if made.offset + sum((n - 1) * step for n, step in zip(made.size, made.stride)) >= stored:
            raise ValueError("a tensor is larger than what is stored of it")
        if math.prod(made.size) > stored:
            raise ValueError("a tensor repeats what is stored of it")
        flat = torch.frombuffer(data, dtype=dtype, count=stored)
        return flat.as_strided(made.size, made.stride, made.offset)


class ZipFile(TorchFile):
    """A zip archive: name/data.pkl, and name/data/KEY for each storage.

    Raises:
        NotTorchError: it is a zip file, but not one of torch's.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.archive = open_archive(file)
        names = self.archive.namelist()
        found = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(found) != 1:
            raise NotTorchError
        self.folder = found[0].removesuffix("data.pkl")
        if any(name.startswith(f"{self.folder}code/") for name in names):
            raise inert.ForbiddenError("a TorchScript program")
        order = f"{self.folder}byteorder"
        if order in names and self._bytes(order) != b"little":
            raise ValueError("written by a big-endian machine")
        self.value = pickles.load(io.BytesIO(self._bytes(found[0])), storage)

    def _bytes(self, name: str) -> bytearray:
        info = self.archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED:  # torch.save does not compress: a small file could fill the memory
            raise ValueError("a compressed archive")
        return bytearray(self.archive.read(info))

    def _read(self, key: str) -> bytearray:
        return self._bytes(f"{self.folder}data/{key}")


class LegacyFile(TorchFile):
    """Five pickles (magic, protocol, machine, value, keys), then for each key a count and that many numbers."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        kinds: dict[str, int] = {}

        def remember(identity: Any) -> Storage:
            result = storage(identity)
            kinds[result.key] = result.dtype.itemsize
            return result

        pickles.load(file)
        pickles.load(file)
        machine = pickles.load(file)
        if isinstance(machine, dict) and machine.get("little_endian") is False:
            raise ValueError("written by a big-endian machine")
        self.value = pickles.load(file, remember)
        self.places: dict[str, tuple[int, int]] = {}
        for key in pickles.load(file):
            (count,) = struct.unpack("<q", file.read(8))
            place, length = file.tell(), count * kinds[key]
            if count < 0 or place + length > self.size:
                raise EOFError("it ends before its tensors do")
            self.places[key] = (place, length)
            file.seek(length, io.SEEK_CUR)

    def _read(self, key: str) -> bytearray:
        place, length = self.places[key]
        self.file.seek(place)
        return bytearray(self.file.read(length))
