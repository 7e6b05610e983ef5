"""Finds files whose names are spelled differently on disk: backslashes, percent encoding, case, accents."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote, unquote_plus

LONGEST_PATH = 4096  # characters: Linux opens no longer path
DEEPEST = 32  # leading folders that may be dropped, because they are those of another machine
MOST_CANDIDATES = 100  # files that a name may stand for; beyond that the search stops
DRIVE = re.compile(r"[A-Za-z]:(?=[\\/])")
QUERY = re.compile(r"(?<=.)[?#].*", re.DOTALL)  # of a URL


class Locator:
    """Finds names in folders; each folder is listed once."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, list[str]]] = {}

    def find(self, folder: str | Path, name: str) -> Path | None:
        """The only file or folder below ``folder`` that ``name`` can stand for; None if there is none, or several.

        A name never leads out of the folder.
        """
        paths: set[str] = set()
        if len(name) > LONGEST_PATH:
            return None
        slashes = name.replace("\\", "/")
        forms = (name, slashes, unquote(name), unquote(slashes), unquote_plus(slashes))
        for form in dict.fromkeys([*forms, *map(str.strip, forms)]):
            steps = [step for step in form.split("/") if step not in ("", ".")]
            if steps and ".." not in steps:
                paths.update(self._walk(str(folder), steps))
        return Path(paths.pop()) if len(paths) == 1 else None

    def find_path(self, path: str) -> Path | None:
        """As :meth:`find`, below the deepest folder of the path that exists as written."""
        if len(path) > LONGEST_PATH:
            return None
        folder, name = os.path.split(path)
        while folder and not os.path.isdir(folder):
            folder, step = os.path.split(folder)
            if not step:
                return None
            name = f"{step}/{name}"
        return self.find(folder, name) if folder else None

    def _walk(self, folder: str, steps: list[str]) -> list[str]:
        """Paths that the steps lead to: exact names where they exist, else all that differ in case or accents."""
        paths = [folder]
        for step in steps:
            longer = []
            for path in paths:
                names = self._entries(path).get(folded(step), [])
                longer += [f"{path}/{name}" for name in ([step] if step in names else names)]
            paths = longer
            if not 0 < len(paths) < MOST_CANDIDATES:  # links in circles double them with every step
                break
        return paths

    def _entries(self, folder: str) -> dict[str, list[str]]:
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = {}
            try:
                names = os.listdir(folder)
            except (OSError, ValueError):  # ValueError: the name has a zero byte
                names = []
            for name in sorted(names):
                known.setdefault(folded(name), []).append(name)
        return known


def folded(name: str) -> str:
    """A key that is equal for names that differ only in case or in the encoding of accents."""
    return unicodedata.normalize("NFC", name).casefold()


def without_first(name: str, steps: int) -> str | None:
    """A path without its root, its ``..`` and its first ``steps`` folders; None if nothing is left.

    It is None for more than DEEPEST steps too.
    """
    if "://" in name:
        name = QUERY.sub("", name)
    parts = [part for part in DRIVE.sub("", name).replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts[steps:]) if steps < min(len(parts), DEEPEST) else None
