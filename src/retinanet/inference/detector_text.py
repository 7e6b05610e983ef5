"""What is known of a detector, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retinanet import checkpoints
from retinanet.common.printable import NAME, listed, printable
from retinanet.config.model_settings import ModelSettings


def model_line(class_names: Sequence[str], settings: ModelSettings, about: Mapping[str, Any]) -> str:
    """Classes, backbone, image size and origin of a model, for a short line."""
    count = len(class_names)
    resizing = settings.preprocessing
    parts = [
        f"{count} class{'es' * (count != 1)} ({listed([printable(name, NAME) for name in class_names], 3)})",
        settings.backbone.name,
        "images of any size" if resizing.resize == "none" else f"{resizing.size} px",
        f"from {checkpoints.origin(about) or 'this project'}",
    ]
    if assumed := assumptions(about):
        parts.append(f"{len(assumed)} assumptions")
    return ", ".join(parts)


def assumptions(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Sentences on what had to be assumed of another project's file; without what is no text, as files may hold."""
    lines = about.get("assumed")
    lines = lines if isinstance(lines, list | tuple) else ()
    return tuple(printable(line) for line in lines if isinstance(line, str))
