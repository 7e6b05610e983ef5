"""Checkpoints: our own format, and the readers of other projects' files.

Each project has a module of its own, with its names for the weights and its conventions. All of them give a
:class:`Checkpoint`, whose settings hold every convention that the boxes depend on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.checkpoints import native
from retinanet.checkpoints.class_names import with_names
from retinanet.checkpoints.fetch import find
from retinanet.checkpoints.native import Checkpoint, threshold
from retinanet.common.errors import RequestError
from retinanet.common.printable import printable
from retinanet.config.convert import overlaid

if TYPE_CHECKING:
    from retinanet.checkpoints.backbone_file import BackboneFile

__all__ = ["Checkpoint", "backbone", "find", "load", "native", "origin", "threshold"]

KNOWN = "torchvision's, Detectron2's, MMDetection's, Detectron's and DeepForest's RetinaNets and our own files"


def load(
    source: str | Path, given: Mapping[str, Any] | None = None, class_names: Sequence[str] | None = None
) -> Checkpoint:
    """The checkpoint of any known source, under our names. Nothing in a file is executed.

    Args:
        source: a file, a run folder, or one of the names in :mod:`retinanet.checkpoints.locate`.
        given: model settings, as nested dicts, that override those of the file and those assumed for it.
        class_names: replace those of the file, see :func:`retinanet.checkpoints.class_names.with_names`.

    Raises:
        RequestError: there is no such source, the class names do not fit, or it holds no RetinaNet that can be used.
        WorkError: it has to be downloaded, and cannot be.
    """
    loaded = _load(find(source), given or {})
    return loaded if class_names is None else with_names(loaded, class_names)


def _load(path: Path, given: Mapping[str, Any]) -> Checkpoint:
    if native.recognises(path):
        own = native.load(path)
        return own._replace(settings=overlaid(own.settings, given))
    from retinanet.checkpoints import backbone_file
    from retinanet.checkpoints.foreign import detectron, detectron2, mmdetection, torchvision
    from retinanet.weight_files import not_checkpoints, reader

    contents = reader.read(path)
    for project in (torchvision, detectron2, mmdetection, detectron):
        if project.recognises(contents):
            return project.convert(contents, given)
    if why := not_checkpoints.unlike(contents.tensors.keys()):
        raise RequestError(f"{path} is {why}: it would give other boxes here; train with retinanet train instead")
    what = reader.describe(contents)
    if (kind := backbone_file.seems(contents)) is not None:
        what = f"it seems to hold {kind}: {what}"
    raise RequestError(f"{path} is no known RetinaNet: {what}; known are {KNOWN}")


def backbone(source: str | Path, name: str | None = None) -> BackboneFile | None:
    """The backbone whose weights a file holds; None for a detector, and for a file that holds neither.

    Args:
        name: of the timm model that it has to be.

    Raises:
        RequestError: there is no such file, or it cannot be read.
    """
    from retinanet.checkpoints import backbone_file
    from retinanet.checkpoints.foreign import detectron, detectron2, mmdetection, torchvision
    from retinanet.weight_files import not_checkpoints, reader

    path = find(source)
    if native.recognises(path):
        return None
    contents = reader.read(path)
    if any(project.recognises(contents) for project in (torchvision, detectron2, mmdetection, detectron)):
        return None
    if not_checkpoints.unlike(contents.tensors.keys()):
        return None
    return backbone_file.recognise(contents, name)


def origin(extra: Mapping[str, Any]) -> str | None:
    """The project and network that a checkpoint comes from; None for one that was trained here.

    A converted file keeps its origin. A model trained here from another project's weights has none.

    Args:
        extra: of the :class:`Checkpoint`.
    """
    text = extra.get("origin")
    return printable(text) if isinstance(text, str) and text else None
