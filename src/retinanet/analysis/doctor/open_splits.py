"""All splits of a data set opened, and what keeps one from being used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from retinanet.analysis.doctor.finding import Finding, Severity, counted
from retinanet.common.errors import RequestError
from retinanet.common.text import LIST, read_text
from retinanet.data.dataset import DetectionData, find_layout, open_data, plain_name
from retinanet.data.formats import voc

Tell = Callable[[str, int, int], None]
ORDER = ("train", "trainval", "val", "test")  # that learnt from first: its classes are those of the others


def open_all(
    root: str | Path, strict: bool = False, on_progress: Tell | None = None
) -> tuple[dict[str, DetectionData], list[Finding]]:
    """Open every split, with references, the one that is learnt from first; what cannot be opened is a finding.

    A list that is the union of others (VOC's trainval of train and val) is not opened: its images are checked there.

    Args:
        strict: a split with any fault is refused, as in training.
        on_progress: called with (split, images checked, images in all) now and then.

    Raises:
        RequestError: there is no data set, or none of a known layout.
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
        telling = None if on_progress is None else _told(on_progress, name)
        try:
            data = open_data(root, name, strict=strict, class_names=classes, on_progress=telling, references=True)
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


def _told(on_progress: Tell, name: str) -> Callable[[int, int], None]:
    return lambda done, total: on_progress(name, done, total)


def _stems(root: Path, name: str) -> frozenset[str]:
    return frozenset(voc.listed(root / "ImageSets/Main" / f"{name}.txt"))


def _unions(root: Path, kind: str, names: Sequence[str]) -> list[tuple[str, Finding]]:
    """VOC's lists overlap by intent: those that are no more than others together."""
    if kind != "Pascal VOC" or len(names) < 3:
        return []
    stems = {name: _stems(root, name) for name in names}
    found = []
    for name in names:
        parts = [part for part in names if part != name and stems[part] < stems[name]]
        if len(parts) < 2 or frozenset().union(*(stems[part] for part in parts)) != stems[name]:
            continue
        sizes = " + ".join(f"{part} ({len(stems[part])})" for part in parts)
        text = f"{name} ({counted(len(stems[name]), 'image')}) is {sizes}: checked as those, and no leak"
        found.append((name, Finding("splits.union", "note", name, len(stems[name]), text, "nothing")))
    return found


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
