"""Checkpoints: our own format, and what ``retinanet.load`` takes."""

from __future__ import annotations

from pathlib import Path

from retinanet.checkpoints import native
from retinanet.checkpoints.native import Checkpoint
from retinanet.errors import RequestError

__all__ = ["Checkpoint", "find", "native"]


def find(source: str | Path) -> Path:
    """The checkpoint file that ``source`` means: the file itself, or the best (else the last) one of a run folder."""
    path = Path(source)
    if path.is_dir():
        for name in ("best.safetensors", "last.safetensors"):
            if (path / name).is_file():
                return path / name
        raise RequestError(
            f"{path} is a folder without best.safetensors or last.safetensors: give a run folder or a file"
        )
    if not path.is_file():
        raise RequestError(f"there is no model {path}: give a run folder or a checkpoint file")
    if path.suffix != ".safetensors":
        raise RequestError(f"{path} is not a checkpoint that can be loaded: give a run folder or a .safetensors file")
    return path
