"""Files whose names are written otherwise than on disk: backslashes, percent encoding, another case or accents."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote, unquote_plus

LONGEST = 4096  # characters of a path that Linux opens
DEEPEST = 32  # folders that are left out in front of a name, to see whether it is that of another machine
SEVERAL = 100  # from which on a name that may mean so many is not followed further
DRIVE = re.compile(r"[A-Za-z]:(?=[\\/])")
QUERY = re.compile(r"(?<=.)[?#].*", re.DOTALL)  # of a URL


class Locator:
    """Looks names up in folders, each of which is listed once."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, list[str]]] = {}

    def find(self, folder: str | Path, name: str) -> Path | None:
        """The one file or folder below ``folder`` that ``name`` may mean; None where there is none, or several.

        A name never leads out of the folder.
        """
        found: set[str] = set()
        if len(name) > LONGEST:
            return None
        slashes = name.replace("\\", "/")
        forms = (name, slashes, unquote(name), unquote(slashes), unquote_plus(slashes))
        for form in dict.fromkeys([*forms, *map(str.strip, forms)]):
            steps = [step for step in form.split("/") if step not in ("", ".")]
            if steps and ".." not in steps:
                found.update(self._walk(str(folder), steps))
        return Path(found.pop()) if len(found) == 1 else None

    def find_path(self, path: str) -> Path | None:
        """As :meth:`find`, below the last folder of the path that is there as written."""
        if len(path) > LONGEST:
            return None
        folder, name = os.path.split(path)
        while folder and not os.path.isdir(folder):
            folder, step = os.path.split(folder)
            if not step:
                return None
            name = f"{step}/{name}"
        return self.find(folder, name) if folder else None

    def _walk(self, folder: str, steps: list[str]) -> list[str]:
        """What the steps lead to: the name as written where it is there, else all that differ in case or accents."""
        ends = [folder]
        for step in steps:
            found = []
            for end in ends:
                alike = self._entries(end).get(folded(step), [])
                found += [f"{end}/{one}" for one in ([step] if step in alike else alike)]
            ends = found
            if not 0 < len(ends) < SEVERAL:  # links in circles would double them with every step
                break
        return ends

    def _entries(self, folder: str) -> dict[str, list[str]]:
        known = self._folders.get(folder)
        if known is None:
            known = self._folders[folder] = {}
            try:
                names = os.listdir(folder)
            except (OSError, ValueError):  # ValueError: a zero byte in the name
                names = []
            for name in sorted(names):
                known.setdefault(folded(name), []).append(name)
        return known


def folded(name: str) -> str:
    """The same for names that differ only in case or in how accents are encoded."""
    return unicodedata.normalize("NFC", name).casefold()


def without_first(name: str, steps: int) -> str | None:
    """A path less its root, its ``..`` and its first ``steps`` folders, such as those of another machine; None where
    it has no more, or more than anybody has."""
    if "://" in name:
        name = QUERY.sub("", name)
    parts = [part for part in DRIVE.sub("", name).replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts[steps:]) if steps < min(len(parts), DEEPEST) else None
