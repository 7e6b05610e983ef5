"""Find the file of a model's name, and download it where that is needed."""

from __future__ import annotations

from pathlib import Path

from retinanet.checkpoints.download import cached_file
from retinanet.checkpoints.hub import fetch
from retinanet.checkpoints.locate import TORCHVISION, in_folder, recognise
from retinanet.common.errors import RequestError, WorkError


def find(source: str | Path) -> Path:
    """The checkpoint file that ``source`` names, downloaded where it is neither here nor in the cache.

    Raises:
        RequestError: there is no such model.
        WorkError: it cannot be downloaded now, and is not in the cache.
    """
    kind, name, hub = recognise(source)
    if kind == "path":
        path = Path(name)
        if not path.is_dir() and not path.is_file():  # a pipe or a device may have no end
            raise RequestError(f"{name} is neither a file nor a folder: give a run folder or a checkpoint file")
        return in_folder(path) if path.is_dir() else path
    if kind == "hub":
        assert hub is not None
        try:
            return fetch(*hub)
        except (RequestError, WorkError) as error:
            if "://" in name:
                raise
            raise type(error)(f"there is no file or folder {name} here, and {error}") from error
    if kind == "torchvision":
        from torchvision.models import detection

        name = getattr(detection, TORCHVISION[name]).COCO_V1.url
    return cached_file(name)
