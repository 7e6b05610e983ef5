"""The files that ``torch.save`` writes, zip (since torch 1.6) and legacy, without torch's reader.

``torch.load`` with a ``pickle_module`` of ours would build every tensor, the optimizer's too, and unpack compressed
archives. Here the numbers of a tensor are read when they are needed.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from typing import Any, BinaryIO, NamedTuple

import torch

from retinanet.weight_files import safe_pickle
from retinanet.weight_files.safe_pickle import ForbiddenError

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
"""Bytes of an archive's list of files; that of sixty thousand tensors is as long."""
GROWTH = 4
"""The storages read may have this many times the file's size: each is read once, unless tensors share and alternate."""
NUMBERS = {str(dtype): dtype for dtype in DTYPES.values()}


class NotTorchError(Exception):
    """A zip file of another kind."""


class _ShortReads:
    """A file that refuses long reads until ``limit`` is lifted; zipfile reads an archive's directory in one."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.limit = file, float(LONGEST_DIRECTORY)

    def read(self, count: int = -1) -> bytes:
        if count > self.limit:
            raise ValueError("an archive of too many files")
        return self.file.read(count)  # without a count zipfile reads only the last bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def open_archive(file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip file.

    Raises:
        BadZipFile: it is none. ValueError: it has more files than any checkpoint.
    """
    limited = _ShortReads(file)
    archive = zipfile.ZipFile(limited)
    limited.limit = math.inf
    return archive


class Storage(NamedTuple):
    key: str
    dtype: torch.dtype


def storage(identity: Any) -> Storage:
    """The storage that a persistent id stands for: ("storage", its class, key, location, count[, view])."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        if isinstance(identity, tuple) and identity and identity[0] == "module":
            raise ForbiddenError("the source code of a module")
        raise ValueError("an unknown persistent id")
    _, kind, key, *_ = identity
    if len(identity) > 5 and identity[5] is not None:
        raise ValueError("a storage that is a view of another, as files before torch 0.4 have")
    name = kind.name.rpartition(".")[2].removesuffix("Storage") if isinstance(kind, safe_pickle.Name) else None
    if name not in DTYPES:
        raise ValueError(f"numbers of an unknown type ({name})")
    if not isinstance(key, str | int):
        raise ValueError("a storage without a name")
    return Storage(str(key), DTYPES[name])


class TorchFile:
    """``value`` is what was saved, with :class:`safe_pickle.Tensor` for each tensor; :meth:`tensor` reads one."""

    value: Any

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.size = file, file.seek(0, io.SEEK_END)
        file.seek(0)
        self._left = GROWTH * self.size
        self._last: tuple[str, bytearray] = ("", bytearray())

    def _read(self, key: str) -> bytearray:
        raise NotImplementedError

    def filled(self, value: Any, left: list[int] | None = None) -> Any:
        """``value`` with its tensors read: numbers, text, and lists, tuples and dicts of these.

        Raises:
            ValueError, KeyError, OSError: there is something else in it, or a tensor that cannot be read.
        """
        left = [safe_pickle.MOST_OPCODES] if left is None else left
        left[0] -= 1
        if left[0] < 0:
            raise ValueError("it refers to itself again and again")
        if isinstance(value, safe_pickle.Tensor):
            return self.tensor(value)
        if isinstance(value, dict):
            return {key: self.filled(item, left) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self.filled(item, left) for item in value)
        if isinstance(value, str | int | float | bytes | None):
            return value
        raise ValueError(f"it holds something of the type {type(value).__name__}")

    def tensor(self, saved: safe_pickle.Tensor) -> torch.Tensor:
        """The tensor's numbers, in their own type.

        Raises:
            ValueError, KeyError, OSError: the tensor does not fit into its storage, or that is missing.
        """
        if not isinstance(saved.storage, Storage):
            raise ValueError("a tensor without a storage")
        key, dtype = saved.storage
        if saved.dtype is not None:
            dtype = NUMBERS[saved.dtype]
        if self._last[0] != key:
            self._last = (key, self._read(key))
            self._left -= len(self._last[1])
            if self._left < 0:
                raise ValueError("its storages are read again and again")
        data = self._last[1]
        stored = len(data) // dtype.itemsize
        if 0 in saved.size:
            return torch.empty(saved.size, dtype=dtype)
        if saved.offset + sum((n - 1) * step for n, step in zip(saved.size, saved.stride)) >= stored:
            raise ValueError("a tensor is larger than its storage")
        if math.prod(saved.size) > stored:
            raise ValueError("a tensor repeats the numbers of its storage")
        flat = torch.frombuffer(data, dtype=dtype, count=stored)
        return flat.as_strided(saved.size, saved.stride, saved.offset)


class ZipFile(TorchFile):
    """A zip archive: name/data.pkl, and name/data/KEY for each storage.

    Raises:
        NotTorchError: it is a zip file, but not one of torch's.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.archive = open_archive(file)
        names = self.archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise NotTorchError
        self.folder = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{self.folder}code/") for name in names):
            raise ForbiddenError("a TorchScript program")
        order = f"{self.folder}byteorder"
        if order in names and self._bytes(order) != b"little":
            raise ValueError("written by a big-endian machine")
        self.value = safe_pickle.load(io.BytesIO(self._bytes(pickles[0])), storage)

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
        itemsizes: dict[str, int] = {}

        def remember(identity: Any) -> Storage:
            result = storage(identity)
            itemsizes[result.key] = result.dtype.itemsize
            return result

        _, _, machine = (safe_pickle.load(file) for _ in range(3))
        if isinstance(machine, dict) and machine.get("little_endian") is False:
            raise ValueError("written by a big-endian machine")
        self.value = safe_pickle.load(file, remember)
        self.ranges: dict[str, tuple[int, int]] = {}  # first byte and length of each storage
        for key in safe_pickle.load(file):
            if not isinstance(key, str | int):  # a nest of tuples can take for ever to hash
                raise ValueError("a storage without a name")
            (count,) = struct.unpack("<q", file.read(8))
            begin, length = file.tell(), count * itemsizes[str(key)]
            if count < 0 or begin + length > self.size:
                raise EOFError("it ends before its tensors do")
            self.ranges[str(key)] = (begin, length)
            file.seek(length, io.SEEK_CUR)

    def _read(self, key: str) -> bytearray:
        begin, length = self.ranges[key]
        self.file.seek(begin)
        return bytearray(self.file.read(length))
