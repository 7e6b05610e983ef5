"""One-line messages about files that are no checkpoints: what they are, and what to do."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from retinanet.common.fields import name as printable
from retinanet.weight_files.torch_files import open_archive

KERAS = "a Keras (HDF5) file: its RetinaNets are other networks, and cannot be converted; train with retinanet train"
BEGINNINGS = (
    (b"\x89HDF\r\n\x1a\n", KERAS),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: fetch that with git lfs pull"),
    (b"\x89PNG", "an image (PNG): give a checkpoint"),
    (b"\xff\xd8\xff", "an image (JPEG): give a checkpoint"),
    (b"GIF8", "an image (GIF): give a checkpoint"),
    (b"RIFF", "an image or a video (RIFF): give a checkpoint"),
    (b"\x1f\x8b", "compressed (gzip): unpack it first"),
    (b"7z\xbc\xaf", "compressed (7z): unpack it first"),
    (b"BZh", "compressed (bzip2): unpack it first"),
    (b"\xfd7zXZ", "compressed (xz): unpack it first"),
    (b"(\xb5/\xfd", "compressed (zstd): unpack it first"),
    (b"GGUF", "a language model (GGUF): give a detector's checkpoint"),
    (b"%PDF", "a PDF document: give a checkpoint"),
    (b"<?xml", "an XML file, such as OpenVINO's: give the checkpoint it was exported from"),
)

MODELS = (
    *("torch.nn.", "torchvision.", "timm.", "__main__.", "ultralytics.", "retinanet.", "odtk.", "detectron2."),
    *("model.", "models.", "the source"),
)
"""Beginnings of the names of networks' classes."""
UNLIKE = {
    "regressionModel.output.weight": (
        "of yhenon's pytorch-retinanet, which resizes by scikit-image, whose filter is another in each of its "
        "versions, pads by up to 32 pixels more than are needed and clips boxes to that padding"
    ),
    "box_head.8.weight": (
        "of NVIDIA's retinanet-examples (ODTK), whose boxes and anchors include their last pixel, one pixel more than "
        "the sides of any here"
    ),
}
"""Tensors of RetinaNets that would give other boxes here than in their projects, and why."""


def unlike(names: Collection[str]) -> str | None:
    """Why a known RetinaNet with tensors of these names cannot be converted; None for any other."""
    return next((why for name, why in UNLIKE.items() if name in names), None)


def line(path: Path, head: bytes) -> str:
    """One line about ``path``, which begins with ``head`` (up to 4096 bytes) and is in no format of weights."""
    if not head:
        return f"{path} is empty: fetch or save it again"
    for beginning, what in BEGINNINGS:
        if head.startswith(beginning):
            return f"{path} is {what}"
    if head.lstrip()[:512].lower().startswith((b"<!doctype html", b"<html")):
        return f"{path} is a web page, not a checkpoint: open the URL in a browser and save the file it offers"
    if head.startswith(b"PK\x03\x04"):
        return f"{path} is a zip archive{_inside(path)}, but not one that torch.save writes: give the checkpoint itself"
    if head[257:262] == b"ustar":
        return f"{path} is a tar archive: unpack it, and give the checkpoint in it"
    if head[0] == 8 and len(head) > 1 and head[1] < 32 and head[2:3] in (b"\x12", b"\x3a", b"\x1a", b"\x42"):
        return f"{path} is an ONNX model: give the checkpoint that it was exported from"
    text = _text(head)
    if text is not None:
        return f"{path} is a text file that begins with {text!r}: give a checkpoint"
    start = head[:8].hex(" ")
    return f"{path} is no known checkpoint (it begins with {start}): give a .safetensors, .pth or .pkl file"


def refused(path: Path, name: str) -> str:
    """One line about a file whose pickle names something that is not allowed."""
    if name == "a TorchScript program":
        return f"{path} is a TorchScript program, not weights: save the model's state_dict() and give that"
    line = f"{path} names {printable(name)}, which weights do not need; nothing of it was executed"
    if name.startswith((*MODELS, "the source")):
        other = ", of another package that is called retinanet" * name.startswith("retinanet.")
        return (
            f"{line}: it holds a whole model as an object{other}; save its state_dict() where you trust it, and give it"
        )
    return f"{line}: do not open it elsewhere unless you trust its source"


def without_weights(path: Path, value: Any) -> str:
    """One line about a file of ``value``, in which no weights were found."""
    if isinstance(value, dict):
        keys = ", ".join(printable(key)[:40] for key in list(value)[:8])
        return f"{path} holds no weights (at its top level: {keys or 'nothing'}): give a model's file"
    return f"{path} holds no mapping of names to tensors: save a model's state_dict() and give that"


def _inside(path: Path) -> str:
    try:
        with path.open("rb") as file, open_archive(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return ""
    return f" with {', '.join(printable(name)[:40] for name in names[:3])}" if names else ""


def _text(head: bytes) -> str | None:
    """The first words of a text; None where it is none."""
    text = io.TextIOWrapper(io.BytesIO(head), encoding="utf-8", errors="replace").read()
    if text.count("�") > 1 or any(ord(c) < 32 and c not in "\t\n\r\f" for c in text):
        return None
    return " ".join(text.split())[:40]
