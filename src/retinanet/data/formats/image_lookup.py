"""Finds the images that an annotation file names: relative to some folder, by another machine's path, or by a stem."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from retinanet.data.faults import RENAMED, Report
from retinanet.data.formats.listing import image_files, shown
from retinanet.data.formats.path_matching import LONGEST_PATH, folded, without_first
from retinanet.data.formats.safe_paths import OUTSIDE, leaves
from retinanet.data.image_io import SUFFIXES


class ImageLookup:
    """Finds images below ``root``. The folders are listed once, and only if a name is not relative to a base."""

    def __init__(self, root: Path, bases: Sequence[Path]) -> None:
        """
        Args:
            bases: names are relative to the first of these folders in which they exist.
        """
        self._root, self._bases = root, list(dict.fromkeys([*bases, root]))
        self._index: dict[str, list[Path]] | None = None

    def locate(self, name: str, where: str, report: Report) -> Path | None:
        """The image of a name; the path that it should have, if there is none.

        Returns:
            None if the name leads out of the data set, which is reported.

        Args:
            where: the row or entry that names it, for the report.
        """
        path = self.find(name)
        if path is None:
            if len(name) > LONGEST_PATH or leaves(name, self._bases[0], self._root):
                report.add(OUTSIDE, "left out", f"{where}: {name}")
                return None
            return self._bases[0] / name
        plain = folded_steps(name)
        if has_suffix(name) and plain != folded_steps(str(path))[-len(plain) :]:
            report.add(RENAMED, "repaired", f"{where}: {name} is {shown(path, self._root)}")
        return path

    def find(self, name: str) -> Path | None:
        """The image of a name, or None. A name without a suffix is that of the only image with this stem."""
        if not name or len(name) > LONGEST_PATH or "\0" in name:
            return None
        for base in self._bases:
            path = base / name
            if os.path.isfile(path) and has_suffix(name) and not leaves(name, base, self._root):
                return path
        steps = folded_steps(name)
        if not steps:
            return None
        paths = self._listed().get(steps[-1], [])
        if len(paths) > 1:  # the one with the most folders of the name
            shared = [
                _shared(steps, folded_steps(str(path.with_suffix("") if not has_suffix(name) else path)))
                for path in paths
            ]
            paths = [path for path, count in zip(paths, shared) if count == max(shared)]
        return paths[0] if len(paths) == 1 else None

    def _listed(self) -> dict[str, list[Path]]:
        """All images by their folded names, with and without suffix."""
        if self._index is None:
            self._index = {}
            for path in image_files(self._root):
                for key in {folded(path.name), folded(path.stem)}:
                    self._index.setdefault(key, []).append(path)
        return self._index


def has_suffix(name: str) -> bool:
    """Whether a name ends like that of an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES


def folded_steps(name: str) -> list[str]:
    """The folders and the name of a path, in one spelling."""
    return folded(without_first(name, 0) or "").split("/") if name else []


def _shared(first: list[str], second: list[str]) -> int:
    """How many of the last steps of two paths are the same."""
    count = 0
    for one, other in zip(reversed(first), reversed(second)):
        if one != other:
            break
        count += 1
    return count
