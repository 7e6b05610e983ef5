"""The page of a data set: what is in it, what is wrong with it, and what RetinaNet will see of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.config.settings import ModelSettings
from retinanet.report import data_charts, thumbnails
from retinanet.report.page import NONE, Cell, Column, Fact, Table, count, plural, share, short, write_page
from retinanet.report.run_page import choices_table

if TYPE_CHECKING:
    from retinanet.analysis.coverage import Coverage
    from retinanet.analysis.doctor import Finding
    from retinanet.analysis.survey import SplitSurvey
    from retinanet.data import DetectionData


def write_data_page(
    path: str | Path,
    *,
    root: str | Path,
    kind: str,
    surveys: Mapping[str, SplitSurvey],
    findings: Sequence[Finding],
    coverages: Mapping[str, Coverage],
    choices: Sequence[Mapping[str, Any]],
    splits: Mapping[str, DetectionData],
    samples: int = 12,
    model: ModelSettings | None = None,
) -> None:
    """Write the page of a data set as one HTML file.

    Args:
        root: the DATA argument. kind: the layout's name.
        surveys, splits: by the name of the split, the one that is learnt from first.
        coverages: by a name for the anchors, the better ones last: "the paper's anchors", "fitted anchors".
        choices: rows of setting, value and reason.
        samples: the most images shown.
        model: whose anchors are marked in the figures; the paper's by default.

    Raises:
        WorkError: the file cannot be written, or an image cannot be read any more.
    """
    root = Path(root)
    anchors = (model or ModelSettings()).anchors
    boxes = [figure for figure in (data_charts.sides(surveys, anchors), data_charts.shapes(surveys, anchors)) if figure]
    fits = data_charts.fits(coverages)
    chosen = thumbnails.choose(splits, samples)
    write_page(
        path,
        "data.html.jinja",
        title=f"{root.name}: a data set for RetinaNet",
        kicker="Data set",
        heading=root.name or str(root),
        under=f"{kind} layout, {root}",
        verdict=_verdict(surveys, findings, coverages),
        sections=(
            ("findings", "Findings"),
            ("contents", "What is there"),
            ("boxes", "The boxes"),
            ("seen", "What RetinaNet will see"),
            *((("choices", "Settings that suit"),) if choices else ()),
            ("images", "Images"),
        ),
        facts=_facts(surveys),
        findings=[one for severity in ("error", "warning") for one in findings if one.severity == severity],
        notes=[one for one in findings if one.severity == "note"],
        splits=_splits(surveys),
        sizes=_sizes(surveys),
        classes=_classes(surveys),
        objects=[data_charts.objects(surveys)] if surveys else [],
        boxes=boxes,
        sides=_sides(surveys),
        coverage=_coverage(coverages),
        by_size=_shares(coverages, "size", "table-by-size", "per_size"),
        by_class=_shares(coverages, "class", "table-by-class", "per_class"),
        by_level=_levels(coverages),
        fits=[fits] if fits else [],
        choices=choices_table(choices),
        images=[thumbnails.labelled(splits[split], index, split) for split, index in chosen],
    )


def _verdict(surveys: Mapping[str, SplitSurvey], findings: Sequence[Finding], coverages: Mapping[str, Coverage]) -> str:
    """One sentence on whether to train, and one on the anchors."""
    errors = sum(one.severity == "error" for one in findings)
    warnings = sum(one.severity == "warning" for one in findings)
    look = f"{plural(warnings, 'thing')} {'is' if warnings == 1 else 'are'} worth a look"
    if not any(one.boxes for one in surveys.values()):
        said = "There are no boxes to learn from."
    elif errors:
        said = f"{plural(errors, 'thing')} should be put right before training" + (
            f", and {look}." if warnings else "."
        )
    elif warnings:
        said = f"It can be trained on as it is; {look}."
    else:
        said = "It can be trained on as it is."
    there = [one for one in coverages.values() if len(one.best)]
    if there:
        first, last = there[0].share, there[-1].share
        said += f" RetinaNet can learn {share(first)} of the boxes with {next(iter(coverages))}"
        said += f", {share(last)} with {list(coverages)[-1]}." if last - first >= 0.005 else "."
    return said


def _facts(surveys: Mapping[str, SplitSurvey]) -> list[Fact]:
    all_ = list(surveys.values())
    if not all_:
        return []
    images_, boxes = sum(one.images for one in all_), sum(one.boxes for one in all_)
    first = all_[0]
    return [
        Fact(count(images_), "images", f"in {plural(len(all_), 'split')}"),
        Fact(count(boxes), "boxes", f"{boxes / max(1, images_):.3g} an image"),
        Fact(count(len(first.classes)), "classes", _imbalance(first)),
        Fact(_pixels(first.image_median), "median image", f"{_pixels(first.trained_median)} in training"),
        Fact(
            f"{short(first.trained.size.p50)}\u202fpx" if first.boxes else NONE, "median box", "its side, in training"
        ),
    ]


def _imbalance(one: SplitSurvey) -> str:
    return (
        f"the commonest {short(one.imbalance)} times the rarest" if one.imbalance > 1 and len(one.classes) > 1 else ""
    )


def _pixels(size: tuple[int, int]) -> str:
    """Width times height of a (height, width)."""
    return f"{size[1]}\u202f×\u202f{size[0]}"


def _splits(surveys: Mapping[str, SplitSurvey]) -> Table:
    rows = []
    for name, one in surveys.items():
        numbers = (one.images, one.empties, one.boxes, one.crowds, one.objects_median, one.objects_max)
        rows.append(
            [
                Cell(name),
                *(Cell(short(number) if number % 1 else count(number), float(number)) for number in numbers),
                Cell(_pixels(one.image_smallest), float(math.prod(one.image_smallest))),
                Cell(_pixels(one.image_largest), float(math.prod(one.image_largest))),
            ]
        )
    titles = ("images", "without boxes", "boxes", "regions to ignore", "median an image", "most in one")
    columns = [Column("split", False), *map(Column, titles), Column("smallest image"), Column("largest image")]
    return Table(
        "table-splits", "The splits. Regions to ignore are COCO's crowds and VOC's difficult boxes.", columns, rows
    )


def _sizes(surveys: Mapping[str, SplitSurvey]) -> Table:
    """The commonest sizes of images."""
    rows = []
    for name, one in surveys.items():
        for height, width, number in one.image_sizes:
            part = number / max(1, one.images)
            rows.append(
                [
                    Cell(name),
                    Cell(_pixels((height, width)), float(height * width)),
                    Cell(count(number), number),
                    Cell(share(part), part, part),
                ]
            )
    distinct = ", ".join(f"{count(one.distinct_sizes)} in {name}" for name, one in surveys.items())
    columns = [Column("split", False), Column("width × height"), Column("images"), Column("share")]
    return Table("table-sizes", f"The commonest sizes of images, of {distinct}.", columns, rows)


def _classes(surveys: Mapping[str, SplitSurvey]) -> Table:
    """Boxes of each class in each split; the bars are logarithmic."""
    if not surveys:
        return Table("table-classes", "", (), ())
    first = next(iter(surveys.values()))
    most = max((one.boxes for survey in surveys.values() for one in survey.classes), default=0)

    def bar(number: int) -> float:
        return math.log10(1 + number) / math.log10(1 + most) if most else 0.0

    by_split = [{one.name: one for one in survey.classes} for survey in surveys.values()]
    names = list(dict.fromkeys(name for classes in by_split for name in classes))
    rows = []
    for name in names:
        cells = [Cell(name)]
        for classes in by_split:
            boxes = classes[name].boxes if name in classes else 0
            cells.append(Cell(count(boxes), boxes, bar(boxes), tone="" if boxes else "bad"))
        mine = by_split[0].get(name)
        cells.append(Cell(count(mine.images if mine else 0), mine.images if mine else 0))
        size = mine.size if mine and mine.boxes else None
        cells.append(Cell(short(size), size))
        rows.append(cells)
    columns = [
        Column("class", False),
        *(Column(f"boxes in {name}") for name in surveys),
        Column(f"images in {first.split}"),
        Column("median side", note="of its boxes, in pixels as trained on"),
    ]
    says = "Boxes of each class; bars are on a logarithmic scale. Sides are in pixels as trained on."
    return Table("table-classes", says, columns, rows)


def _sides(surveys: Mapping[str, SplitSurvey]) -> Table:
    """Percentiles of what the figures show."""
    rows = []
    for name, one in surveys.items():
        if not one.boxes:
            continue
        for what, values in (
            ("side in the files, px", one.stored.size),
            ("side as trained on, px", one.trained.size),
            ("shorter side as trained on, px", one.trained.shorter),
            ("height ÷ width", one.ratios),
        ):
            five = (values.p1, values.p5, values.p25, values.p50, values.p75, values.p95, values.p99)
            rows.append([Cell(name), Cell(what), *(Cell(short(value), value) for value in five)])
    percents = ("1 %", "5 %", "25 %", "50 %", "75 %", "95 %", "99 %")
    columns = [Column("split", False), Column("of the boxes", False), *map(Column, percents)]
    return Table("table-sides", "How many of 100 boxes are smaller than this.", columns, rows)


def _coverage(coverages: Mapping[str, Coverage]) -> Table:
    rows = []
    for name, one in coverages.items():
        rows.append(
            [
                Cell(name),
                Cell(share(one.share), one.share, one.share),
                Cell(share(one.without), one.without),
                Cell(count(one.anchors), one.anchors),
                Cell(short(one.positives), one.positives),
                Cell(
                    short(one.ratio) if math.isfinite(one.ratio) else NONE,
                    one.ratio if math.isfinite(one.ratio) else None,
                ),
            ]
        )
    columns = [
        Column("anchors", False),
        Column("boxes covered"),
        Column("images without a positive", note="of the images that have boxes"),
        Column("anchors an image"),
        Column("positives an image"),
        Column("background for each positive"),
    ]
    sampled = max((one.sampled for one in coverages.values()), default=0)
    says = f"What the anchors cover; anchors are counted in {plural(sampled, 'image')}."
    return Table("table-coverage", says, columns, rows)


def _shares(coverages: Mapping[str, Coverage], of: str, ident: str, field: str) -> Table:
    """The share of the boxes covered, by size or class, one column a set of anchors."""
    parts = [{name: (boxes, part) for name, boxes, part in getattr(one, field)} for one in coverages.values()]
    names = list(dict.fromkeys(name for part in parts for name in part))
    rows = []
    for name in names:
        boxes = max((part[name][0] for part in parts if name in part), default=0)
        cells = [Cell(name), Cell(count(boxes), boxes)]
        for part in parts:
            value = part[name][1] if name in part and boxes else None
            cells.append(Cell(share(value), value, value, tone="bad" if value is not None and value < 0.5 else ""))
        if boxes or of == "class":
            rows.append(cells)
    columns = [Column(of, False), Column("boxes"), *(Column(name) for name in coverages)]
    what = "by size, as trained on" if of == "size" else "by class"
    return Table(ident, f"Share of the boxes that have an anchor which may learn them, {what}.", columns, rows)


def _levels(coverages: Mapping[str, Coverage]) -> Table:
    parts = [dict(one.per_level) for one in coverages.values()]
    levels = sorted({level for part in parts for level in part})
    rows = []
    for level in levels:
        cells = [Cell(f"P{level}")]
        cells += [Cell(share(part.get(level)), part.get(level), part.get(level)) for part in parts]
        rows.append(cells)
    columns = [Column("level", False), *(Column(name) for name in coverages)]
    says = "The pyramid level on which boxes have their best anchor; – where there is no such level."
    return Table("table-levels", says, columns, rows)
