"""Our own checkpoint: one safetensors file, everything but the weights as JSON in its metadata.

    retinanet.settings   the model's settings, with preprocessing and post-processing
    retinanet.classes    the class names, in the order of the labels
    retinanet.extra      whatever else is worth keeping; of a training run the step and what was measured there

Reading one executes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from retinanet.config import ModelSettings, SettingsError, from_plain, to_plain
from retinanet.errors import RequestError
from retinanet.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "retinanet-1"


class Checkpoint(NamedTuple):
    state: dict[str, Tensor]
    settings: ModelSettings
    class_names: tuple[str, ...]
    extra: dict[str, Any]


def save(
    path: str | Path,
    state: Mapping[str, Tensor],
    settings: ModelSettings,
    class_names: Sequence[str],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint beside ``path`` and rename it into place: there is never half a file under that name.

    Raises:
        WorkError: the file cannot be written (a full disk, no permission).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    metadata = {
        "format": FORMAT,
        "retinanet.settings": json.dumps(to_plain(settings)),
        "retinanet.classes": json.dumps(list(class_names)),
        "retinanet.extra": json.dumps(dict(extra or {})),
    }
    with replacing(path, SafetensorError, needs=sum(tensor.nbytes for tensor in state.values())) as place:
        place.touch()
        mode = place.stat().st_mode
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, place, metadata)
        place.chmod(mode)  # as any file of this user's: safetensors writes what nobody else may read


def recognises(path: Path) -> bool:
    """Whether a file is in this format, as its own metadata says."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        return False


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        RequestError: where the file is missing, damaged or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise RequestError(f"there is no checkpoint {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise RequestError(
                    f"{path} is a safetensors file but not a retinanet checkpoint (its metadata names the format "
                    f"{metadata.get('format')!r}, not {FORMAT!r})"
                )
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        settings = from_plain(ModelSettings, json.loads(metadata["retinanet.settings"]))
        names = tuple(json.loads(metadata["retinanet.classes"]))
        extra = json.loads(metadata.get("retinanet.extra", "{}"))
    except (SafetensorError, OSError, KeyError, TypeError, json.JSONDecodeError, SettingsError) as error:
        raise RequestError(f"{path} cannot be read as a checkpoint ({error}); is the file complete?") from error
    return Checkpoint(state, settings, names, extra)
