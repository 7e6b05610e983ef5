"""Checkpoint files of any project as plain tensors and values. Nothing that a file holds is ever executed.

The first bytes tell the format, not the file's name: safetensors, torch.save's zip and legacy files, pickles (of
Detectron and Detectron2).
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
from retinanet.common.text import TextError, read_text
from retinanet.weight_files import metadata, not_checkpoints, safe_pickle
from retinanet.weight_files.torch_files import MAGIC, LegacyFile, NotTorchError, ZipFile

INSIDE = ("state_dict", "model", "model_state_dict", "blobs", "ema_model", "model_ema", "ema_state_dict", "net")
"""Names of the weights in files that hold more than weights."""
TRAINING = {
    *("optimizer", "optimizers", "optimizer_states", "optimizer_state_dict", "lr_scheduler", "lr_schedulers"),
    *("scheduler", "param_schedulers", "scaler", "message_hub", "loops", "callbacks", *INSIDE),
}
"""Entries that say nothing about the model."""
WRAPPERS = ("module.", "model.", "_orig_mod.")
"""Prefixes that DataParallel, Lightning and torch.compile put before every name."""
LONGEST = 2**20
"""Bytes of a configuration beside a checkpoint."""
MOST = 100_000
"""The most tensors in a file."""
GROWTH = 4
"""The tensors may take this many times the file's size: twice for half precision, more for shared ones."""


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
        RequestError: it is no checkpoint, is damaged, or names something that weights do not need.
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
    config = _config(path)
    if config is not None:
        about.setdefault("config", config)
    return Contents(path, _unwrapped(numbers), about, _beside(path, "config.yaml"))


def describe(contents: Contents) -> str:
    """One line about a file that no converter recognises: the number of tensors, a few names, the other entries."""
    names = sorted(map(printable, contents.tensors))
    shown = [*names[:2], names[len(names) // 2], names[-1]] if len(names) > 4 else names
    text = f"{len(names)} tensors ({', '.join(shown)})"
    keys = contents.about.get("keys", [])
    return text + (f"; at its top level {', '.join(map(printable, keys[:12]))}" if keys else "")


Lazy = Mapping[str, Callable[[], Tensor]]
"""Functions by name; each reads a tensor."""


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
            return lambda: torch.from_numpy((array := item.numpy()).astype(array.dtype.newbyteorder("=")))
        assert file is not None
        return lambda: file.tensor(item)

    def weights(mapping: Any, depth: int) -> dict[str, Any] | None:
        if not isinstance(mapping, dict):
            return None
        kinds = safe_pickle.Array if file is None else safe_pickle.Tensor | safe_pickle.Array
        tensors = {key: item for key, item in mapping.items() if isinstance(key, str) and isinstance(item, kinds)}
        if tensors and 2 * len(tensors) >= len(mapping):
            return tensors
        inner = (weights(mapping[key], depth - 1) for key in INSIDE if key in mapping and depth > 0)
        return next((tensors for tensors in inner if tensors), None)

    tensors = weights(value, 2)
    if tensors is None:
        raise RequestError(not_checkpoints.without_weights(path, value))
    about = {}
    if not any(item is value.get(key) for key, item in tensors.items()):
        about = {str(k): safe_pickle.plain(v) for k, v in value.items() if k not in TRAINING}
        about = {key: item for key, item in about.items() if item is not None} | {"keys": [str(key) for key in value]}
    # Detectron keeps its optimizer's state among the weights.
    return {name: lazy(item) for name, item in tensors.items() if not name.endswith("_momentum")}, about


def _numbers(tensors: Lazy, limit: int) -> dict[str, Tensor]:
    """Tensors in memory of their own: floating ones in float32, others in their type."""
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
    """Tensors without the prefixes of wrappers that all of their names have."""
    while tensors and (prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in tensors)), None)):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _config(path: Path) -> dict[str, Any] | None:
    """The config.json beside the file, as repositories of Hugging Face have; None where it cannot be read."""
    try:
        config = metadata.read(path.parent / "config.json")
    except ValueError:
        return None
    return config if isinstance(config, dict) else None


def _beside(path: Path, name: str) -> Beside | None:
    """A text file in the folder of ``path``; None where it is missing, no text or far too long."""
    try:
        return Beside(path.parent / name, read_text(path.parent / name, LONGEST))
    except TextError:
        return None
