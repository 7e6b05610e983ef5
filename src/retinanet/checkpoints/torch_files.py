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

from retinanet.checkpoints import inert, pickles

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
NUMBERS = {str(dtype): dtype for dtype in DTYPES.values()}


class NotTorchError(Exception):
    """A zip file of another kind."""


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
    return Storage(str(key), DTYPES[name])


class TorchFile:
    """``value`` is what was saved, with :class:`inert.Tensor` in the place of tensors; :meth:`tensor` reads one."""

    value: Any

    def __init__(self) -> None:
        self._last: tuple[str, bytearray] = ("", bytearray())

    def _read(self, key: str) -> bytearray:
        raise NotImplementedError

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
        super().__init__()
        self.archive = zipfile.ZipFile(file)
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
        super().__init__()
        self.file = file
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
            self.places[key] = (file.tell(), count * kinds[key])
            file.seek(count * kinds[key], io.SEEK_CUR)
        self.end = file.seek(0, io.SEEK_END)

    def _read(self, key: str) -> bytearray:
        place, length = self.places[key]
        if length < 0 or place + length > self.end:
            raise EOFError("it ends before its tensors do")
        self.file.seek(place)
        return bytearray(self.file.read(length))
