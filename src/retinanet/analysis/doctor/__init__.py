"""What is wrong with a data set, or will be when a RetinaNet learns from it, before any training.

``open_all`` opens every split, and says what keeps one from being used; ``examine`` looks for all else. Each theme has
its file: ``faults`` (what the readers had to repair or leave out), ``files``, ``labels`` (classes and their numbers),
``boxes``, ``splits`` (balance and what differs between splits), ``looks`` (inside the images) and ``training``
(what this detector's settings make of the data).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from retinanet.analysis.doctor import (
    box_checks,
    fault_checks,
    file_checks,
    image_checks,
    label_checks,
    settings_checks,
    split_checks,
)
from retinanet.analysis.doctor.finding import Finding, Split, rank
from retinanet.analysis.doctor.open_splits import open_all
from retinanet.analysis.near_duplicates import Looks
from retinanet.config.settings import ModelSettings
from retinanet.data.dataset import DetectionData

__all__ = ["Finding", "examine", "open_all"]


def examine(
    splits: Mapping[str, DetectionData],
    settings: ModelSettings,
    looks: Mapping[str, Looks] | None = None,
    strict: bool = False,
    read: bool = True,
) -> list[Finding]:
    """Everything found, errors first.

    Args:
        splits: as :func:`open_all` gives them; examples name file and line where they were opened with references.
        settings: the model that is to learn from them.
        looks: what :func:`retinanet.analysis.near_duplicates.look` saw of each split; without it the images
            are not judged.
        strict: what training repairs is an error too, as it is for ``data.strict``.
        read: tell what reading the annotations found too; False where ``data.report`` is told by itself.
    """
    if len({data.class_names for data in splits.values()}) > 1:
        raise ValueError("open all splits with the class_names of the first one, as open_all does")
    opened = [Split(name, data, settings) for name, data in splits.items()]
    return rank(_all(opened, settings, looks or {}, strict, read))


def _all(
    opened: list[Split], settings: ModelSettings, seen: Mapping[str, Looks], strict: bool, read: bool
) -> Iterator[Finding]:
    for split in opened:
        if read:
            yield from fault_checks.check(split, strict)
        yield from label_checks.check(split)
        yield from box_checks.check(split)
        yield from settings_checks.check(split, settings, opened)
        if split.name in seen:
            yield from image_checks.check(split, seen[split.name])
    yield from file_checks.check(opened)
    yield from label_checks.check_together(opened)
    yield from split_checks.check(opened)
    yield from image_checks.check_together(opened, seen)
