"""Names of splits: what train2017 and valid stand for, and the folders and files that are called so."""

from __future__ import annotations

import re
from pathlib import Path

SAME_SPLIT = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}
USUAL = ("train", "val", "test")
IN_NAME = re.compile(r"(?<![a-z])(train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?)(?![a-z])", re.IGNORECASE)


def plain_name(split: str) -> str:
    """train2017 -> train, valid -> val."""
    bare = split.lower().rstrip("0123456789").rstrip("_-. ") or split
    return SAME_SPLIT.get(bare, bare)


def split_in(stem: str) -> str | None:
    """The name of a split in the name of a file: train_labels -> train; None for a name without one."""
    match = IN_NAME.search(stem)
    return match[1] if match else None


def subfolders(folder: Path) -> list[Path]:
    """The visible folders in a folder, in the order of their names."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def split_folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder that are called like a split: train, valid, test2017, …"""
    return {path.name: path for path in subfolders(folder) if plain_name(path.name) in USUAL}


def child(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first subfolder that has one of these (lower-case) names, in upper or lower case."""
    there = {path.name.lower(): path for path in reversed(subfolders(folder))}
    return next((there[name] for name in names if name in there), None)
