"""Checkpoint files of any project as plain tensors and values. Nothing that a file holds is ever executed.

The container is known by its bytes, not by its ending: safetensors, torch.save's zip and legacy files, pickles
(Detectron, Detectron2).
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from retinanet.common.atomic_files import what_is_wrong
from retinanet.common.errors import RequestError, first_line
from retinanet.common.fields import name as printable
from retinanet.weight_files import metadata, not_checkpoints, safe_pickle
from retinanet.weight_files.torch_files import MAGIC, LegacyFile, NotTorchError, ZipFile

INSIDE = ("state_dict", "model", "model_state_dict", "blobs", "ema_model", "model_ema", "ema_state_dict", "net")
"""Where files that hold more than weights have them."""
TRAINING = {
    *("optimizer", "optimizers", "optimizer_states", "optimizer_state_dict", "lr_scheduler", "lr_schedulers"),
    *("scheduler", "param_schedulers", "scaler", "message_hub", "loops", "callbacks", *INSIDE),
}
"""Parts that say nothing about the model."""
WRAPPERS = ("module.", "model.", "_orig_mod.")
"""What DataParallel, Lightning and torch.compile put before every name."""
LONGEST = 2**20
"""Bytes of a configuration beside a checkpoint."""
MOST = 100_000
"""Tensors in a file."""
GROWTH = 4
"""The tensors may take this many times the file's size: twice for half precision, the rest for shared ones."""


class Beside(NamedTuple):
    """A text file beside a checkpoint."""

    path: Path
    text: str


class Contents(NamedTuple):
    """What a checkpoint file of any project holds, as plain tensors and values.

    ``tensors`` are on the CPU, floating ones in float32, under the origin's names without wrappers' prefixes.
    ``about`` are the plain values beside them by their own names ("meta", "cfg", "__author__", "label_dict", ...), with
    "metadata" of a safetensors file, "config" of a config.json beside the file, and "keys", the names at the top level.
    ``beside`` is a config.yaml beside the file.
    """

    path: Path
    tensors: dict[str, Tensor]
    about: dict[str, Any]
    beside: Beside | None = None


def read(path: Path) -> Contents:
    """Read a checkpoint file.

    Raises:
        RequestError: it is no checkpoint, is damaged, or names something that is not needed for weights.
    """
    path = Path(path)
    if path.is_dir():
        raise RequestError(f"{path} is a folder: give the checkpoint file in it")
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            size = path.stat().st_size
            file.seek(0)
            tensors, about = _open(path, file, head, size)
            numbers = _numbers(tensors, GROWTH * size + 2**20)
    except RequestError:
        raise
    except FileNotFoundError:
        raise RequestError(f"there is no file {path}") from None
    except safe_pickle.ForbiddenError as error:
        raise RequestError(not_checkpoints.refused(path, str(error))) from None
    except PermissionError as error:
        raise RequestError(f"{path} cannot be read ({what_is_wrong(error)}): give yourself the permission") from None
    except Exception as error:  # a file can be damaged in every way there is
        reason = first_line(error)[:120]
        raise RequestError(
            f"{path} is damaged or was not copied completely ({reason}): fetch or save it again"
        ) from None
    beside = _config(path)
    if beside is not None:
        about.setdefault("config", beside)
    return Contents(path, _unwrapped(numbers), about, _beside(path, "config.yaml"))


def describe(contents: Contents) -> str:
    """One line about a file that no converter recognises: how many tensors, some of their names, what else is in it."""
    names = sorted(map(printable, contents.tensors))
    some = ", ".join(names[:2] + names[len(names) // 2 : len(names) // 2 + 1] + names[-1:]) if len(names) > 4 else None
    text = f"{len(names)} tensors ({some or ', '.join(names)})"
    keys = contents.about.get("keys", [])
    return text + (f"; at its top level {', '.join(map(printable, keys[:12]))}" if keys else "")


Lazy = Mapping[str, Callable[[], Tensor]]
"""Tensors by name, read when called."""


def _open(path: Path, file: BinaryIO, head: bytes, size: int) -> tuple[Lazy, dict[str, Any]]:
    if head.startswith(b"PK\x03\x04"):
        try:
            return _nested(path, zipped := ZipFile(file), zipped.value)
        except zipfile.BadZipFile:
            raise ValueError("the end of the archive is missing") from None
        except NotTorchError:
            raise RequestError(not_checkpoints.line(path, head)) from None
    if head[:1] == b"\x80" and MAGIC in head[:32]:
        return _nested(path, legacy := LegacyFile(file), legacy.value)
    if len(head) > 8 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= metadata.LONGEST_HEADER:
        return _safetensors(path)
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return _nested(path, None, safe_pickle.load(file))
    raise RequestError(not_checkpoints.line(path, head))


def _safetensors(path: Path) -> tuple[Lazy, dict[str, Any]]:
    from safetensors import safe_open

    file = safe_open(path, framework="pt")
    tensors = {name: (lambda name=name: file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    return tensors, {"metadata": dict(file.metadata() or {})}


def _nested(path: Path, file: ZipFile | LegacyFile | None, value: Any) -> tuple[Lazy, dict[str, Any]]:
    """The mapping of names to tensors in ``value``, and the plain values beside it."""

    def lazy(item: Any) -> Callable[[], Tensor]:
        if isinstance(item, safe_pickle.Array):
            return lambda: torch.from_numpy(item.numpy().astype(item.numpy().dtype.newbyteorder("=")))
        assert file is not None
        return lambda: file.tensor(item)

    def weights(mapping: Any, depth: int) -> dict[str, Any] | None:
        if not isinstance(mapping, dict):
            return None
        kinds = safe_pickle.Array if file is None else safe_pickle.Tensor | safe_pickle.Array
        found = {key: item for key, item in mapping.items() if isinstance(key, str) and isinstance(item, kinds)}
        if found and 2 * len(found) >= len(mapping):
            return found
        inner = (weights(mapping[key], depth - 1) for key in INSIDE if key in mapping and depth > 0)
        return next((found for found in inner if found), None)

    found = weights(value, 2)
    if found is None:
        raise RequestError(not_checkpoints.without_weights(path, value))
    about = {}
    if not any(item is value.get(key) for key, item in found.items()):
        about = {str(k): safe_pickle.plain(v) for k, v in value.items() if k not in TRAINING}
        about = {key: item for key, item in about.items() if item is not None} | {"keys": [str(key) for key in value]}
    momentum = {name for name in found if name.endswith("_momentum")}  # what Detectron keeps of its optimizer
    return {name: lazy(item) for name, item in found.items() if name not in momentum}, about


def _numbers(tensors: Lazy, limit: int) -> dict[str, Tensor]:
    """Tensors of our own memory: floating ones in float32, others in their type."""
    if len(tensors) > MOST:
        raise ValueError(f"{len(tensors)} tensors, where {MOST} are the most")
    result = {}
    for name, get in tensors.items():
        tensor = get()
        limit -= 4 * math.prod(tensor.shape)
        if limit < 0:
            raise ValueError("its tensors would take many times the memory that the file does")
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        result[name] = tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)
    return result


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    while tensors:
        prefix = next((p for p in WRAPPERS if all(name.startswith(p) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _config(path: Path) -> dict[str, Any] | None:
    """A config.json beside the file, as repositories of Hugging Face have; none where it cannot be read."""
    found = _beside(path, "config.json")
    try:
        config = metadata.parse(found.text) if found else None
    except ValueError:
        return None
    return config if isinstance(config, dict) else None


def _beside(path: Path, name: str) -> Beside | None:
    """A text file in the folder of ``path``; none where it is not there, is no text or far too long."""
    place = path.parent / name
    try:
        if not place.is_file() or place.stat().st_size > LONGEST:
            return None
        return Beside(place, place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
