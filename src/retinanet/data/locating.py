"""Files whose names are written otherwise than on disk: backslashes, percent encoding, another case or accents."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote

DRIVE = re.compile(r"[A-Za-z]:(?=[\\/])")


class Locator:
    """Looks names up in folders, each of which is listed once."""

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, list[str]]] = {}

    def find(self, folder: str | Path, name: str) -> Path | None:
        """The one file or folder below ``folder`` that ``name`` may mean; None where there is none, or several.

        A name never leads out of the folder.
        """
        slashes = name.replace("\\", "/")
        found: set[str] = set()
        for form in dict.fromkeys((name, slashes, unquote(name), unquote(slashes))):
            steps = [step for step in form.split("/") if step not in ("", ".")]
            if steps and ".." not in steps:
                found.update(self._walk(str(folder), steps))
        return Path(found.pop()) if len(found) == 1 else None

    def find_path(self, path: str) -> Path | None:
        """As :meth:`find`, below the last folder of the path that is there as written."""
        folder, name = os.path.split(path)
        while folder and not os.path.isdir(folder):
            folder, step = os.path.split(folder)
            if not step:
                return None
            name = f"{step}/{name}"
        return self.find(folder, name) if folder else None

    def _walk(self, folder: str, steps: list[str]) -> list[str]:
        """What the steps lead to: the name as written where it is there, else all that differ in case or accents."""
        entries = self._entries(folder)
        alike = entries.get(folded(steps[0]), [])
        chosen = [steps[0]] if steps[0] in alike else alike
        ends = [f"{folder}/{one}" for one in chosen]
        return ends if len(steps) == 1 else [end for inner in ends for end in self._walk(inner, steps[1:])]

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
    it has no more."""
    parts = [part for part in DRIVE.sub("", name).replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return "/".join(parts[steps:]) if steps < len(parts) else None
