"""Our own checkpoint: one safetensors file, everything but the weights as JSON in its metadata.

    retinanet.settings   the model's settings, with preprocessing and post-processing
    retinanet.classes    the class names, in the order of the labels
    retinanet.extra      other values; of a training run the step and the metrics at that step

Reading one executes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retinanet.common.arguments import class_names_of
from retinanet.common.atomic_files import replacing
from retinanet.common.errors import RequestError, first_line
from retinanet.common.fields import shown
from retinanet.config.convert import to_plain
from retinanet.config.model_settings import ModelSettings
from retinanet.weight_files import metadata

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "retinanet-1"


class Checkpoint(NamedTuple):
    state: dict[str, Tensor]
    settings: ModelSettings
    class_names: tuple[str, ...]
    extra: dict[str, Any]


def threshold(extra: Mapping[str, Any]) -> float | None:
    """The score above which the model had its best F1 when it was evaluated; None where ``extra`` has none."""
    value = extra.get("threshold")
    return value if isinstance(value, float) and 0 <= value < 1 else None


def save(
    path: str | Path,
    state: Mapping[str, Tensor],
    settings: ModelSettings,
    class_names: Sequence[str],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint to ``path``, whole or not at all.

    Raises:
        RequestError: class names or ``extra`` are of types that :func:`load` would refuse.
        WorkError: the file cannot be written (a full disk, no permission).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        class_names_of(class_names)
        metadata.require_extra(extra or {})
    except ValueError as error:
        raise RequestError(f"{path} cannot be written: {error}") from error
    known = {
        "format": FORMAT,
        "retinanet.settings": json.dumps(to_plain(settings)),
        "retinanet.classes": json.dumps(list(class_names)),
        "retinanet.extra": json.dumps(dict(extra or {})),
    }
    with replacing(path, SafetensorError, needs=sum(tensor.nbytes for tensor in state.values())) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, temporary, known)
        temporary.chmod(mode)  # safetensors writes files that only their owner may read


def recognises(path: Path) -> bool:
    """Whether a file is in this format, as its own metadata says."""
    from safetensors import SafetensorError, safe_open

    try:
        require_header(path)
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError, ValueError, RuntimeError):  # RuntimeError: of torch, without enough memory
        return False


def require_header(path: Path) -> None:
    """Refuse a file whose header is too long, before safetensors reads it.

    Raises:
        ValueError: it is longer. OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > metadata.LONGEST_HEADER:
        raise ValueError(f"a header of {length} bytes, where {metadata.LONGEST_HEADER} are the most")


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        RequestError: the file is missing, damaged or not in our format.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise RequestError(f"there is no checkpoint {path}")
    try:
        require_header(path)
        with safe_open(path, framework="pt") as file:
            known = file.metadata() or {}
            if (format := known.get("format")) == FORMAT:
                about = metadata.about(
                    metadata.parse(known["retinanet.settings"]),
                    metadata.parse(known["retinanet.classes"]),
                    metadata.parse(known.get("retinanet.extra", "{}")),
                )
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except KeyError as error:
        raise RequestError(f"{path} cannot be read as a checkpoint (its metadata lacks {error})") from error
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise RequestError(f"{path} cannot be read as a checkpoint ({reason}); is the file complete?") from error
    if format != FORMAT:
        raise RequestError(
            f"{path} is a safetensors file but not a retinanet checkpoint (its metadata names the format "
            f"{shown(format)}, not {FORMAT!r})"
        )
    return Checkpoint(state, *about)
