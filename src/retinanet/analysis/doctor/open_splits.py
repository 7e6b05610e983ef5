"""Opens all splits of a data set, and reports the splits that cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from retinanet.analysis.doctor.finding import Finding, Severity, counted
from retinanet.common.errors import RequestError
from retinanet.common.text import LIST, read_text
from retinanet.data.dataset import DetectionData, open_data
from retinanet.data.formats import voc
from retinanet.data.formats.split_folders import plain_name
from retinanet.data.layouts import find_layout

SplitProgress = Callable[[str, int, int], None]
ORDER = ("train", "trainval", "val", "test")  # the training set first: its classes are used for the others


def open_all(
    root: str | Path, strict: bool = False, on_progress: SplitProgress | None = None
) -> tuple[dict[str, DetectionData], list[Finding]]:
    """Open every split with references, the training set first. A split that cannot be opened becomes a finding.

    A list that is the union of others, such as VOC's trainval, is not opened: its images are checked in the others.

    Args:
        strict: a split with any fault is refused, as in training.
        on_progress: called with (split, images checked, all images) now and then.

    Raises:
        RequestError: there is no data set, or it has no known layout.
    """
    root = Path(root)
    layout = find_layout(root)
    names = sorted(layout.counts, key=lambda name: (_order(name), list(layout.counts).index(name)))
    findings = [*_empty_lists(root, layout.kind)]
    unions = dict(_unions(root, layout.kind, names))
    opened: dict[str, DetectionData] = {}
    classes: tuple[str, ...] | None = None
    for name in names:
        if name in unions:
            findings.append(unions[name])
            continue
        counter = None if on_progress is None else partial(on_progress, name)
        try:
            data = open_data(root, name, strict=strict, class_names=classes, on_progress=counter, references=True)
        except RequestError as error:
            severity: Severity = "error" if plain_name(name) in ORDER[:3] or len(names) == 1 else "warning"
            remedy = "restore it, or take it out of the data set's description"
            findings.append(Finding("splits.unusable", severity, name, 0, f"cannot be used: {error}", remedy))
            continue
        if classes is None:
            classes = data.class_names
        opened[name] = data
    return opened, findings


def _order(name: str) -> int:
    plain = plain_name(name)
    return ORDER.index(plain) if plain in ORDER else len(ORDER)


def _stems(root: Path, name: str) -> frozenset[str]:
    return frozenset(voc.listed(root / "ImageSets/Main" / f"{name}.txt"))


def _unions(root: Path, kind: str, names: Sequence[str]) -> list[tuple[str, Finding]]:
    """Lists that are the union of others, with a finding for each: VOC's lists overlap by intent."""
    if kind != "Pascal VOC" or len(names) < 3 or not (root / "ImageSets/Main").is_dir():
        return []
    stems = {name: _stems(root, name) for name in names}
    findings = []
    for name in names:
        inner = [other for other in names if other != name and stems[other] < stems[name]]
        if len(inner) < 2 or frozenset().union(*(stems[other] for other in inner)) != stems[name]:
            continue
        sizes = " + ".join(f"{other} ({len(stems[other])})" for other in inner)
        text = f"{name} ({counted(len(stems[name]), 'image')}) is {sizes}: checked as those, and no leak"
        findings.append((name, Finding("splits.union", "note", name, len(stems[name]), text, "nothing")))
    return findings


def _empty_lists(root: Path, kind: str) -> list[Finding]:
    if kind != "Pascal VOC":
        return []
    files = sorted((root / "ImageSets/Main").glob("*.txt"))
    empty = [path.stem for path in files if not read_text(path, LIST).strip()]
    text = "cannot be used: its list of images is empty"
    return [
        Finding("splits.unusable", "error", name, 0, text, f"list images in ImageSets/Main/{name}.txt, or remove it")
        for name in empty
    ]
