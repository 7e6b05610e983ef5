"""The page of a run: how good the detector is, which errors it makes, and what to do next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retinanet.common.coco_numbers import METRICS
from retinanet.config.convert import dotted, to_plain
from retinanet.config.settings import Settings
from retinanet.evaluation.confusion import worst
from retinanet.report import run_charts, thumbnails
from retinanet.report.advice import ERROR_KINDS, HARDLY, advise, most_confused
from retinanet.report.page import (
    NONE,
    Cell,
    Column,
    Fact,
    Table,
    count,
    duration,
    known,
    measured,
    number_cell,
    plain_value,
    plural,
    score,
    share,
    share_cell,
    short,
    write_page,
)
from retinanet.report.run_facts import RunFacts

if TYPE_CHECKING:
    from retinanet.evaluation.confusion import Confusion
    from retinanet.evaluation.pr_curves import ClassCurve
    from retinanet.evaluation.tide import ErrorCosts

MATRIX = 30
"""Up to this many classes the page shows the whole confusion matrix."""
LARGEST = 30
"""The number of entries shown of a larger matrix."""
WORST = 8
"""The number of images shown."""
BACKGROUND = "background"
"""The name of the last row and column of the confusion matrix."""


@dataclass(frozen=True)
class Phase:
    """A part of the bar that shows how the time was spent."""

    name: str
    text: str
    percent: float


@dataclass(frozen=True)
class Square:
    """A cell of the confusion matrix; ``strength`` in 0..1 is that of its colour."""

    text: str
    strength: float
    wrong: bool
    tooltip: str


def write_run_page(path: str | Path, facts: RunFacts) -> None:
    """Write the page of a run as one HTML file.

    Raises:
        WorkError: the file cannot be written, or an image can no longer be read.
    """
    data, confusion = facts.data, facts.confusion
    course = [run_charts.losses(facts.metrics), run_charts.quality(facts.metrics)]
    quality = [run_charts.precision_recall(facts.curves), run_charts.f1(facts.curves)]
    loss = run_charts.loss_distribution(facts.loss_curves) if facts.loss_curves is not None else None
    many = len(confusion.names) > MATRIX
    boxes = plural(int(sum(data.counts())), "box", "boxes")
    write_page(
        path,
        "run.html.jinja",
        title=f"{facts.folder.name}: a run of RetinaNet",
        kicker="Training run",
        heading=facts.folder.name or str(facts.folder),
        under=_under(facts, boxes),
        verdict=_verdict(facts),
        sections=(
            ("numbers", "Numbers"),
            ("next", "What to do next"),
            ("course", "The run"),
            ("classes", "Classes"),
            ("confusion", "Class confusion"),
            ("errors", "Errors"),
            ("images", "Worst images"),
            *((("loss", "Loss"),) if loss else ()),
            ("time", "Time"),
            ("settings", "Settings"),
        ),
        facts=_facts(facts),
        coco=_coco(facts),
        advice=advise(facts),
        course=[figure for figure in course if figure],
        evaluations=_evaluations(facts),
        classes=_classes(facts),
        quality=[figure for figure in quality if figure],
        most_confused=most_confused(confusion),
        matrix=None if many else _matrix(confusion),
        names=[*confusion.names, BACKGROUND],
        confusions=_confusions(confusion) if many else [],
        threshold=score(facts.threshold, 2),
        errors=_errors(facts.errors, facts.threshold),
        ap50=score(facts.errors.ap50),
        gains=(score(facts.errors.false_positives), score(facts.errors.false_negatives)),
        pairs=[thumbnails.pair(data, result, facts.detections) for result in worst(facts.images, WORST)],
        loss=[loss] if loss else [],
        time=_time(facts.seconds_in),
        choices=choices_table(facts.choices),
        changed=_settings(facts.settings, changed=True),
        settings=_settings(facts.settings, changed=False),
    )


def _under(facts: RunFacts, boxes: str) -> str:
    """The line under the heading: the data, and what the run started from."""
    data = facts.data
    line = f"Trained on {facts.source}, evaluated on its split {data.split} ({plural(len(data), 'image')}, {boxes})"
    return f"{line}. Start: {facts.start}" if facts.start else line


def choices_table(choices: Sequence[Mapping[str, Any]]) -> Table:
    """The settings fitted to the data, with the reasons."""
    rows = [[Cell(plain_value(row.get(name, ""))) for name in ("setting", "value", "reason")] for row in choices]
    columns = [Column("setting", False), Column("value", False), Column("reason", False)]
    return Table("table-choices", "Settings that were fitted to the data.", columns, rows, settings=True)


def _verdict(facts: RunFacts) -> str:
    ap, curves = facts.stats.get("AP"), facts.curves
    if not any(facts.data.counts()):
        return f"The split {facts.data.split} has no boxes, so the detector could not be evaluated."
    if not curves.best_f1 and not (ap is not None and ap > 0):
        return "No detection is right yet."
    hardly = "Hardly any detection is right yet. " if curves.best_f1 < HARDLY else ""
    at = min(int(np.searchsorted(curves.thresholds, facts.threshold)), len(curves.thresholds) - 1)
    recall, precision = share(float(curves.recall[at])), share(float(curves.precision[at]))
    mean = " (means over the classes)" if len(facts.per_class) > 1 else ""
    return (
        f"{hardly}At the score threshold {score(facts.threshold, 2)} the detector finds {recall} of the objects, and "
        f"{precision} of its detections are correct{mean}."
    )


def _facts(facts: RunFacts) -> list[Fact]:
    with_boxes = any(curve.ap50 is not None for curve in facts.curves.per_class)
    cards = [
        Fact(score(facts.stats.get("AP")), "AP", "mean over IoU 0.50 to 0.95"),
        Fact(score(facts.stats.get("AP50")), "AP50", "AP at IoU 0.50"),
        Fact(score(facts.curves.best_f1 if with_boxes else None), "best F1", "mean over the classes"),
        Fact(score(facts.threshold, 2), "threshold", "the score with the best F1"),
    ]
    if facts.images:
        right = sum(not result.mistakes for result in facts.images)
        note = f"{count(right)} of {count(len(facts.images))}, at this threshold"
        cards.append(Fact(share(right / len(facts.images)), "images without errors", note))
    epochs = [float(row["epoch"]) for row in facts.metrics if row.get("epoch") not in (None, "")]
    steps = plural(facts.steps, "step") + (f", {short(epochs[-1])} epochs" if epochs else "")
    return [*cards, Fact(duration(facts.seconds), "time", steps)]


def _score_cell(value: Any, bar: bool = False, digits: int = 3) -> Cell:
    """A cell with an AP or the like."""
    valid = measured(value)
    return Cell(score(value, digits), valid, valid if bar else None)


def _coco(facts: RunFacts) -> Table:
    rows = [
        [Cell(name), _score_cell(facts.stats.get(name), bar=True), Cell(meaning)] for name, meaning in METRICS.items()
    ]
    columns = [Column("metric", False), Column("value"), Column("meaning", False)]
    caption = f"COCO's twelve numbers; {NONE} where the data set has no objects of that size."
    return Table("table-coco", caption, columns, rows)


def _evaluations(facts: RunFacts) -> Table:
    writers: dict[str, Callable[[Any], Cell]] = {
        "step": lambda value: number_cell(value, count),
        "epoch": lambda value: number_cell(value, short),
        "AP": _score_cell,
        "AP50": _score_cell,
        "AP75": _score_cell,
        "seconds": lambda value: number_cell(value, duration),
    }
    rows = []
    for row in facts.metrics:
        number = {name: float(value) for name, value in row.items() if value not in (None, "")}
        if "AP" in number:
            rows.append([write(number.get(name)) for name, write in writers.items()])
    columns = [Column("time" if name == "seconds" else name) for name in writers]
    return Table("table-evaluations", "Every evaluation of the run.", columns, rows)


def _classes(facts: RunFacts) -> Table:
    rows = []
    for row, curve in zip(facts.per_class, facts.curves.per_class, strict=True):
        best: list[Any] = [None] * 4
        if curve.ap50 is not None:
            # A class without any right detection has no best threshold.
            best = [curve.best_f1, curve.threshold, *_at(curve, curve.threshold)] if curve.best_f1 else [0.0, *best[1:]]
        rows.append(
            [
                Cell(str(row["name"])),
                number_cell(row["boxes"], count),
                _score_cell(row.get("AP"), bar=True),
                _score_cell(row.get("AP50")),
                *(_score_cell(value, digits=digits) for value, digits in zip(best, (3, 2, 3, 3))),
            ]
        )
    columns = [
        Column("class", False),
        Column("boxes"),
        Column("AP"),
        Column("AP50"),
        Column("best F1"),
        Column("threshold", note="the score threshold with the best F1 of this class"),
        Column("precision", note="at this threshold"),
        Column("recall", note="at this threshold"),
    ]
    caption = "Each class with its best F1, the threshold that gives it, and precision and recall at this threshold."
    return Table("table-classes", caption, columns, rows)


def _at(curve: ClassCurve, threshold: float) -> tuple[float | None, float | None]:
    """Precision and recall of the detections above a threshold."""
    kept = int((np.asarray(curve.scores) > threshold).sum())
    return (float(curve.precision[kept - 1]), float(curve.recall[kept - 1])) if kept else (None, 0.0)


def _matrix(confusion: Confusion) -> list[tuple[str, list[Square]]]:
    """Names and cells of the rows; the colour of a cell shows its share of the row."""
    matrix = np.asarray(confusion.matrix)
    names, last = [*confusion.names, BACKGROUND], len(matrix) - 1
    rows = []
    for i, name in enumerate(names):
        total = max(1, int(matrix[i].sum()))
        cells = []
        for j, number in enumerate(matrix[i].tolist()):
            text = count(number) if number or i < last or j < last else ""  # background on background has no count
            tooltip = f"{name} detected as {names[j]}: {number}, {share(number / total)} of the row"
            cells.append(Square(text, number / total, i != j, tooltip))
        rows.append((name, cells))
    return rows


def _confusions(confusion: Confusion) -> list[Table]:
    """The largest errors of a matrix that is too large to show: between classes, and with the background."""
    classes = np.zeros(confusion.matrix.shape, np.bool_)
    classes[:-1, :-1] = True
    background = (
        "The most frequent objects without a matching detection (detected as background), and detections without a "
        "matching object."
    )
    return [
        _largest(confusion, classes, "table-classes-confused", "The most frequent class confusions."),
        _largest(confusion, ~classes, "table-missed", background),
    ]


def _largest(confusion: Confusion, where: NDArray[np.bool_], name: str, caption: str) -> Table:
    matrix = np.array(confusion.matrix)
    totals = matrix.sum(axis=1)
    np.fill_diagonal(matrix, 0)
    matrix[~where] = 0
    names = [*confusion.names, BACKGROUND]
    order = np.argsort(-matrix, axis=None, kind="stable")[:LARGEST]
    rows = []
    for truth, detected in zip(*np.unravel_index(order, matrix.shape)):
        if number := int(matrix[truth, detected]):
            cells = [Cell(names[truth]), Cell(names[detected]), number_cell(number, count)]
            rows.append([*cells, share_cell(number / totals[truth])])
    columns = [Column("true class", False), Column("detected as", False), Column("count"), Column("share of the class")]
    return Table(name, caption, columns, rows)


def _errors(errors: ErrorCosts, threshold: float) -> Table:
    top = max([*errors.cost.values(), 1e-9])
    rows = [
        [
            Cell(kind),
            Cell(ERROR_KINDS[kind]),
            number_cell(errors.counts[kind], count),
            Cell(score(cost), cost, max(0.0, cost) / top),
        ]
        for kind, cost in sorted(errors.cost.items(), key=lambda item: -item[1])
    ]
    columns = [Column("kind", False), Column("meaning", False), Column("count"), Column("AP50 lost")]
    caption = (
        f"Count: errors at the score threshold {score(threshold, 2)}. AP50 lost: how much higher AP50, which takes "
        "detections of all scores, would be without this kind of error."
    )
    return Table("table-errors", caption, columns, rows)


def _time(seconds_in: Mapping[str, float]) -> list[Phase]:
    spent = {name: seconds for name, seconds in seconds_in.items() if known(seconds) and seconds > 0}
    total = sum(spent.values())
    return [
        Phase(name, f"{duration(seconds)} ({share(seconds / total)})", round(100 * seconds / total, 2))
        for name, seconds in spent.items()
    ]


def _settings(settings: Settings, changed: bool) -> Table:
    """All settings, or those that differ from their defaults."""
    defaults = dotted(to_plain(Settings()))
    rows = []
    for name, value in dotted(to_plain(settings)).items():
        differs = value != defaults.get(name)
        if differs or not changed:
            default = plain_value(defaults[name]) if name in defaults else NONE
            cells = [Cell(name), Cell(plain_value(value), tone="" if differs else "faint")]
            rows.append([*cells, Cell(default, tone="faint")])
    columns = [Column("setting", False), Column("value", False), Column("default", False)]
    name = "table-changed" if changed else "table-settings"
    caption = "Settings of this run that differ from the defaults." if changed else "Every setting of this run."
    return Table(name, caption, columns, rows, settings=True)
