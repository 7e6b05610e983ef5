"""The folder that the file names of a COCO JSON are relative to."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.common.errors import RequestError
from retinanet.common.printable import printable
from retinanet.data.formats.listing import shown
from retinanet.data.formats.path_matching import Locator, without_first
from retinanet.data.formats.safe_paths import leaves

TRIED = 16  # images that are looked up in each folder


class ImageFolder(NamedTuple):
    """The folder of the images, and how file names in the JSON lead to them."""

    folder: Path
    """The file names are relative to this folder."""
    steps: int | None
    """How many leading folders of each name to drop, because they are those of another machine (see
    :func:`without_first`). None: the names are used as they are."""
    root: Path
    """Names must not lead out of this folder."""


def find_folder(images: list[Any], path: Path, split: str, root: Path) -> ImageFolder:
    """The folder that holds the most of a few images.

    Args:
        images: the list ``images`` of the JSON.
        path: the JSON.

    Raises:
        RequestError: the images are in none of the usual folders, or only outside the data set.
    """
    names = [i["file_name"] for i in images[:: max(1, len(images) // TRIED)] if _has_name(i)]
    parent = _parent(path)
    top = parent if root.is_relative_to(parent) else root
    bare = split.rstrip("0123456789_-") or split
    usual = (split, f"images/{split}", bare, f"images/{bare}", "", "images", "data", "JPEGImages")
    folders = list(dict.fromkeys([*(parent / name for name in usual), path.parent, root, root / "images"]))
    inside = [[name for name in names if not leaves(name, folder, top)] for folder in folders]
    counts = [sum(os.path.isfile(folder / name) for name in safe) for folder, safe in zip(folders, inside)]
    locator = Locator()
    steps: int | None = None
    tried = [name for name in names if not os.path.isabs(name)]
    # In another spelling, then without the first folder, the first two, and so on.
    while names and not any(counts) and (tried or steps is None):
        counts = [sum(locator.find(folder, name) is not None for name in tried) for folder in folders]
        if not any(counts):
            steps = 0 if steps is None else steps + 1
            tried = [short for name in names if (short := without_first(name, steps))]
    if names and not any(counts):
        example = printable(names[0], 300)
        if not any(safe for folder, safe in zip(folders, inside) if os.path.isdir(folder)):
            raise RequestError(
                f"{path} names images outside the data set, such as {example}, which are not read: "
                "put them into its folder, or links to them, and name them relative to it"
            )
        looked = ", ".join(shown(folder, root) for folder in folders)
        raise RequestError(f"none of the images of {path} was found, such as {example}; looked in {looked}")
    return ImageFolder(folders[counts.index(max(counts))], steps, top)


def _has_name(image: Any) -> bool:
    return isinstance(image, dict) and isinstance(image.get("file_name"), str)


def _parent(path: Path) -> Path:
    """The folder of a JSON, or the one above it if that is called ``annotations``."""
    return path.parent.parent if path.parent.name.lower() in ("annotations", "annotation") else path.parent


def file_of_url(url: str, folder: Path) -> str | None:
    """The end of a URL that is a file in the folder."""
    ends = itertools.takewhile(bool, (without_first(url, first) for first in itertools.count(1)))
    return next((name for name in ends if name and os.path.isfile(folder / name)), None)
