"""The page of a data set: its contents, its problems, and how well RetinaNet's anchors cover its boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.config.model_settings import ModelSettings
from retinanet.report import data_charts, thumbnails
from retinanet.report.page import (
    NONE,
    THIN,
    Cell,
    Column,
    Fact,
    Table,
    count,
    known,
    number_cell,
    plural,
    share,
    share_cell,
    short,
    write_page,
)
from retinanet.report.run_page import choices_table

if TYPE_CHECKING:
    from retinanet.analysis.coverage import Coverage
    from retinanet.analysis.doctor import Finding
    from retinanet.analysis.survey import SplitSurvey
    from retinanet.data import DetectionData


@dataclass(frozen=True)
class DataFacts:
    """All facts that the page of a data set shows.

    Attributes:
        root: the DATA argument. kind: the layout's name.
        surveys, splits: by the name of the split, the training set first.
        findings: problems of the data set.
        coverages: by the name of the anchors, the better ones last: "the paper's anchors", "fitted anchors".
        choices: rows of setting, value and reason, of the settings fitted to the data.
        samples: the largest number of images shown.
        model: its anchors are marked in the charts; by default the paper's.
    """

    root: str | Path
    kind: str
    surveys: Mapping[str, SplitSurvey]
    findings: Sequence[Finding]
    coverages: Mapping[str, Coverage]
    choices: Sequence[Mapping[str, Any]]
    splits: Mapping[str, DetectionData]
    samples: int = 12
    model: ModelSettings = field(default_factory=ModelSettings)

    def of(self, severity: str) -> list[Finding]:
        """The findings of a severity."""
        return [finding for finding in self.findings if finding.severity == severity]


def write_data_page(path: str | Path, facts: DataFacts) -> None:
    """Write the page of a data set as one HTML file.

    Raises:
        WorkError: the file cannot be written, or an image can no longer be read.
    """
    root, surveys, coverages = Path(facts.root), facts.surveys, facts.coverages
    anchors = facts.model.anchors
    boxes = [data_charts.sides(surveys, anchors), data_charts.shapes(surveys, anchors)]
    fits = data_charts.fits(coverages)
    chosen = thumbnails.choose(facts.splits, facts.samples)
    write_page(
        path,
        "data.html.jinja",
        title=f"{root.name}: a data set for RetinaNet",
        kicker="Data set",
        heading=root.name or str(root),
        under=f"{facts.kind} layout, {root}",
        verdict=_verdict(facts),
        sections=(
            ("findings", "Problems"),
            ("contents", "Contents"),
            ("boxes", "Boxes"),
            ("anchors", "Anchors"),
            *((("choices", "Suggested settings"),) if facts.choices else ()),
            ("images", "Images"),
        ),
        facts=_facts(surveys),
        findings=facts.of("error") + facts.of("warning"),
        notes=facts.of("note"),
        splits=_splits(surveys),
        sizes=_sizes(surveys),
        classes=_classes(surveys),
        objects=[data_charts.objects(surveys)] if surveys else [],
        boxes=[figure for figure in boxes if figure],
        sides=_sides(surveys),
        coverage=_coverage(coverages),
        by_size=_shares(coverages, "size"),
        by_class=_shares(coverages, "class"),
        by_level=_levels(coverages),
        fits=[fits] if fits else [],
        choices=choices_table(facts.choices),
        images=[thumbnails.labelled(facts.splits[split], index, split) for split, index in chosen],
    )


def _verdict(facts: DataFacts) -> str:
    """Whether the data set is ready for training, and how many boxes the anchors cover."""
    errors, warnings = len(facts.of("error")), len(facts.of("warning"))
    check = f"check {plural(warnings, 'warning')}"
    if not any(survey.boxes for survey in facts.surveys.values()):
        text = "There are no boxes to train on."
    elif errors:
        text = f"Fix {plural(errors, 'error')} before training" + (f", and {check}." if warnings else ".")
    else:
        text = "The data set is ready for training" + (f"; {check}." if warnings else ".")
    covered = {name: coverage.share for name, coverage in facts.coverages.items() if len(coverage.best)}
    if covered:
        (first, low), *_ = covered.items()
        *_, (last, high) = covered.items()
        text += f" RetinaNet can be trained on {share(low)} of the boxes with {first}"
        text += f", and on {share(high)} with {last}." if high - low >= 0.005 else "."
    return text


def _facts(surveys: Mapping[str, SplitSurvey]) -> list[Fact]:
    if not surveys:
        return []
    images, boxes = (sum(getattr(survey, name) for survey in surveys.values()) for name in ("images", "boxes"))
    first = next(iter(surveys.values()))
    imbalance = ""
    if first.imbalance > 1 and len(first.classes) > 1:
        imbalance = f"the most frequent has {short(first.imbalance)} times the boxes of the rarest"
    median = f"{short(first.trained.size.p50)}{THIN}px" if first.boxes else NONE
    return [
        Fact(count(images), "images", f"in {plural(len(surveys), 'split')}"),
        Fact(count(boxes), "boxes", f"{boxes / max(1, images):.3g} per image"),
        Fact(count(len(first.classes)), "classes", imbalance),
        Fact(_pixels(first.image_median), "median image", f"{_pixels(first.trained_median)} in training"),
        Fact(median, "median box", "√(width × height) in training"),
    ]


def _pixels(size: tuple[int, int]) -> str:
    """Width times height of a (height, width)."""
    return f"{size[1]}{THIN}×{THIN}{size[0]}"


def _splits(surveys: Mapping[str, SplitSurvey]) -> Table:
    rows = []
    for name, survey in surveys.items():
        objects = (survey.objects_median, survey.objects_max)
        numbers = (survey.images, survey.empties, survey.boxes, survey.crowds, *objects)
        rows.append(
            [
                Cell(name),
                *(number_cell(float(number), short if number % 1 else count) for number in numbers),
                Cell(_pixels(survey.image_smallest), float(math.prod(survey.image_smallest))),
                Cell(_pixels(survey.image_largest), float(math.prod(survey.image_largest))),
            ]
        )
    titles = ("images", "without boxes", "boxes", "regions to ignore", "boxes an image (median)", "most in one image")
    columns = [Column("split", False), *map(Column, titles), Column("smallest image"), Column("largest image")]
    caption = "The splits. Regions to ignore are COCO's crowds and VOC's difficult boxes."
    return Table("table-splits", caption, columns, rows)


def _sizes(surveys: Mapping[str, SplitSurvey]) -> Table:
    """The most frequent sizes of images."""
    rows = [
        [
            Cell(name),
            Cell(_pixels((height, width)), float(height * width)),
            number_cell(number, count),
            share_cell(number / max(1, survey.images)),
        ]
        for name, survey in surveys.items()
        for height, width, number in survey.image_sizes
    ]
    distinct = ", ".join(f"{count(survey.distinct_sizes)} in {name}" for name, survey in surveys.items())
    columns = [Column("split", False), Column("width × height"), Column("images"), Column("share")]
    return Table("table-sizes", f"The most frequent image sizes. Different sizes: {distinct}.", columns, rows)


def _classes(surveys: Mapping[str, SplitSurvey]) -> Table:
    """Boxes of each class in each split; the bars are logarithmic."""
    if not surveys:
        return Table("table-classes", "", (), ())
    by_split = [{row.name: row for row in survey.classes} for survey in surveys.values()]
    most = max((row.boxes for classes in by_split for row in classes.values()), default=0)
    rows = []
    for name in dict.fromkeys(name for classes in by_split for name in classes):
        cells = [Cell(name)]
        for classes in by_split:
            boxes = classes[name].boxes if name in classes else 0
            bar = math.log10(1 + boxes) / math.log10(1 + most) if most else 0.0
            cells.append(Cell(count(boxes), boxes, bar, tone="" if boxes else "bad"))
        first = by_split[0].get(name)
        cells.append(number_cell(first.images if first else 0, count))
        cells.append(number_cell(first.size if first and first.boxes else None, short))
        rows.append(cells)
    columns = [
        Column("class", False),
        *(Column(f"boxes in {name}") for name in surveys),
        Column(f"images in {next(iter(surveys.values())).split}"),
        Column("median size", note="of its boxes, in pixels after resizing for training"),
    ]
    caption = (
        "Boxes of each class, with bars on a logarithmic scale. Sizes are √(width × height) in pixels in training."
    )
    return Table("table-classes", caption, columns, rows)


def _sides(surveys: Mapping[str, SplitSurvey]) -> Table:
    """Percentiles of the values in the charts."""
    rows = []
    for name, survey in surveys.items():
        if not survey.boxes:
            continue
        for what, values in (
            ("√(width × height) in the files, px", survey.stored.size),
            ("√(width × height) in training, px", survey.trained.size),
            ("shorter side in training, px", survey.trained.shorter),
            ("height ÷ width", survey.ratios),
        ):
            percentiles = (values.p1, values.p5, values.p25, values.p50, values.p75, values.p95, values.p99)
            rows.append([Cell(name), Cell(what), *(number_cell(value, short) for value in percentiles)])
    percents = ("1 %", "5 %", "25 %", "50 %", "75 %", "95 %", "99 %")
    columns = [Column("split", False), Column("value", False), *map(Column, percents)]
    return Table("table-sides", "Percentiles: this share of the boxes has a smaller value.", columns, rows)


def _coverage(coverages: Mapping[str, Coverage]) -> Table:
    rows = [
        [
            Cell(name),
            share_cell(coverage.share),
            number_cell(coverage.without, share),
            number_cell(coverage.anchors, count),
            number_cell(coverage.positives, short),
            number_cell(coverage.ratio if known(coverage.ratio) else None, short),
        ]
        for name, coverage in coverages.items()
    ]
    columns = [
        Column("anchors", False),
        Column("boxes covered"),
        Column("images without a positive anchor", note="of the images that have boxes"),
        Column("anchors an image"),
        Column("positive anchors an image"),
        Column("background anchors for each positive"),
    ]
    sampled = max((coverage.sampled for coverage in coverages.values()), default=0)
    caption = f"How well the anchors cover the boxes. Anchors are counted in {plural(sampled, 'image')}."
    return Table("table-coverage", caption, columns, rows)


def _shares(coverages: Mapping[str, Coverage], by: str) -> Table:
    """The share of the boxes covered, by "size" or "class", with a column for each set of anchors."""
    columns_of = [
        {name: (boxes, covered) for name, boxes, covered in getattr(coverage, f"per_{by}")}
        for coverage in coverages.values()
    ]
    rows = []
    for name in dict.fromkeys(name for column in columns_of for name in column):
        boxes = max((column[name][0] for column in columns_of if name in column), default=0)
        cells = [Cell(name), number_cell(boxes, count)]
        for column in columns_of:
            covered = column[name][1] if name in column and boxes else None
            cells.append(share_cell(covered, tone="bad" if covered is not None and covered < 0.5 else ""))
        if boxes or by == "class":
            rows.append(cells)
    columns = [Column(by, False), Column("boxes"), *(Column(name) for name in coverages)]
    what = "by size in training" if by == "size" else "by class"
    return Table(f"table-by-{by}", f"Share of the boxes that an anchor covers, {what}.", columns, rows)


def _levels(coverages: Mapping[str, Coverage]) -> Table:
    shares = [dict(coverage.per_level) for coverage in coverages.values()]
    levels = sorted({level for each in shares for level in each})
    rows = [[Cell(f"P{level}"), *(share_cell(each.get(level)) for each in shares)] for level in levels]
    columns = [Column("level", False), *(Column(name) for name in coverages)]
    caption = f"Share of the boxes whose best anchor lies on this pyramid level; {NONE} if there is no such level."
    return Table("table-levels", caption, columns, rows)
