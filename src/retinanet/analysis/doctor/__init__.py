"""Finds what is wrong with a data set, or will be wrong when a RetinaNet is trained on it.

``open_all`` opens every split and reports the splits that cannot be used. ``examine`` runs all other checks. Each theme
has a file: ``fault_checks`` (faults that the readers repaired or left out), ``file_checks``, ``label_checks`` (classes
and their numbers), ``box_checks``, ``split_checks`` (balance of a split, differences between splits), ``image_checks``
(pixels) and ``settings_checks`` (what the settings of this detector do to the data).
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
from retinanet.analysis.near_duplicates import ImageFigures
from retinanet.config.model_settings import ModelSettings
from retinanet.data.dataset import DetectionData

__all__ = ["Finding", "examine", "open_all"]


def examine(
    splits: Mapping[str, DetectionData],
    settings: ModelSettings,
    figures: Mapping[str, ImageFigures] | None = None,
    strict: bool = False,
    read: bool = True,
) -> list[Finding]:
    """All findings, errors first.

    Args:
        splits: as :func:`open_all` returns them. Examples name file and line if they were opened with references.
        settings: of the model that is to be trained.
        figures: of each split, from :func:`retinanet.analysis.near_duplicates.inspect_images`; without them the
            pixels are not checked.
        strict: what training repairs is an error too, as it is for ``data.strict``.
        read: include the faults that the readers reported; False where ``data.report`` is shown separately.
    """
    if len({data.class_names for data in splits.values()}) > 1:
        raise ValueError("open all splits with the class_names of the first one, as open_all does")
    opened = [Split(name, data, settings) for name, data in splits.items()]
    return rank(_all(opened, settings, figures or {}, strict, read))


def _all(
    opened: list[Split], settings: ModelSettings, figures: Mapping[str, ImageFigures], strict: bool, read: bool
) -> Iterator[Finding]:
    for split in opened:
        if read:
            yield from fault_checks.check(split, strict)
        yield from label_checks.check(split)
        yield from box_checks.check(split)
        yield from settings_checks.check(split, settings, opened)
        if split.name in figures:
            yield from image_checks.check(split, figures[split.name])
    yield from file_checks.check(opened)
    yield from label_checks.check_together(opened)
    yield from split_checks.check(opened)
    yield from image_checks.check_together(opened, figures)
