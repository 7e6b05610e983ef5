"""The page of a run: how good the detector is, what it gets wrong, and what to do next."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retinanet.config.settings import Settings, dotted, to_plain
from retinanet.report import run_charts, thumbnails
from retinanet.report.advice import WORDS, RunFacts, confused, reading
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
    plain_value,
    plural,
    score,
    share,
    short,
    write_page,
)

if TYPE_CHECKING:
    from retinanet.analysis.coverage import Coverage
    from retinanet.data import DetectionData
    from retinanet.evaluation.confusion import Confusion, ImageResult
    from retinanet.evaluation.loss_distribution import LossCurves
    from retinanet.evaluation.pr_curves import ClassCurve, Curves
    from retinanet.evaluation.tide import ErrorCosts
    from retinanet.inference.detections import Detections

MATRIX = 30
"""Up to so many classes the confusion matrix is shown whole."""
WORST = 8
"""Images shown."""
MEANING = {
    "AP": "mean over IoU 0.50 to 0.95",
    "AP50": "at IoU 0.50",
    "AP75": "at IoU 0.75",
    "APs": "small objects, below 32² pixels",
    "APm": "medium objects, 32² to 96² pixels",
    "APl": "large objects, from 96² pixels",
    "AR1": "recall with 1 detection an image",
    "AR10": "recall with 10 detections an image",
    "AR100": "recall with 100 detections an image",
    "ARs": "recall of small objects",
    "ARm": "recall of medium objects",
    "ARl": "recall of large objects",
}


@dataclasses.dataclass(frozen=True)
class Slice:
    """A part of the bar of time."""

    name: str
    said: str
    percent: float


@dataclasses.dataclass(frozen=True)
class Square:
    """A cell of the confusion matrix."""

    text: str
    strength: float
    off: bool
    says: str


def write_run_page(
    path: str | Path,
    facts: RunFacts,
    data: DetectionData,
    found: Mapping[int, Detections],
    curves: Curves,
    errors: ErrorCosts,
    confusion: Confusion,
    judged_worst: Sequence[ImageResult],
    difficulty: LossCurves | None = None,
    judged: Sequence[ImageResult] | None = None,
    coverage: Coverage | None = None,
) -> None:
    """Write the page of a run as one HTML file.

    Args:
        data: the split that was measured on. found: what was found in it, by place.
        judged_worst: images to show, the worst first. judged: all of them, to count those without a fault.
        difficulty: of the class loss. coverage: of the boxes that were learnt from.

    Raises:
        WorkError: the file cannot be written, or an image cannot be read any more.
    """
    figures = [run_charts.losses(facts.metrics), run_charts.quality(facts.metrics)]
    quality = [run_charts.precision_recall(curves), run_charts.f1(curves)]
    hardness = run_charts.hardness(difficulty) if difficulty is not None else None
    many = len(confusion.names) > MATRIX
    write_page(
        path,
        "run.html.jinja",
        title=f"{facts.folder.name}: a run of RetinaNet",
        kicker="Training run",
        heading=facts.folder.name or str(facts.folder),
        under=f"{facts.data}, measured on {facts.split} ({plural(len(data), 'image')}, "
        f"{plural(int(sum(data.counts())), 'box', 'boxes')})",
        verdict=_verdict(facts, curves, data),
        sections=(
            ("numbers", "Numbers"),
            ("next", "What to do next"),
            ("course", "The run"),
            ("classes", "Classes"),
            ("confusion", "Confusions"),
            ("errors", "ErrorCosts"),
            ("images", "Worst images"),
            *((("loss", "Loss"),) if hardness else ()),
            ("time", "Time"),
            ("settings", "Settings"),
        ),
        facts=_facts(facts, curves, judged),
        coco=_coco(facts),
        advice=reading(facts, curves, errors, confusion, coverage),
        course=[figure for figure in figures if figure],
        evaluations=_evaluations(facts),
        classes=_classes(facts, curves),
        quality=[figure for figure in quality if figure],
        pair=confused(confusion),
        matrix=None if many else _matrix(confusion),
        names=[*confusion.names, "nothing"],
        confusions=_confusions(confusion) if many else [],
        threshold=score(facts.threshold, 2),
        errors=_errors(errors),
        ap50=score(errors.ap50),
        gains=(score(errors.false_positives), score(errors.false_negatives)),
        pairs=[(one, *thumbnails.pair(data, one, found)) for one in judged_worst[:WORST]],
        hardness=[hardness] if hardness else [],
        time=_time(facts.seconds_in),
        choices=choices_table(facts.choices),
        changed=_settings(facts.settings, changed=True),
        settings=_settings(facts.settings, changed=False),
    )


def choices_table(choices: Sequence[Mapping[str, Any]]) -> Table:
    """What was chosen from the data, and why."""
    rows = [
        [Cell(str(one.get("setting", ""))), Cell(plain_value(one.get("value"))), Cell(str(one.get("reason", "")))]
        for one in choices
    ]
    columns = [Column("setting", False), Column("value", False), Column("why", False)]
    return Table("table-choices", "Chosen from the data, and why.", columns, rows, named=True)


def _verdict(facts: RunFacts, curves: Curves, data: DetectionData) -> str:
    ap = facts.stats.get("AP")
    if not any(data.counts()):
        return f"The split {facts.split} has no boxes, so nothing could be measured."
    if not curves.best_f1 and not (ap is not None and ap > 0):
        return "The detector finds nothing right yet."
    place = int(np.searchsorted(curves.thresholds, facts.threshold)) if len(curves.thresholds) else 0
    place = min(place, len(curves.thresholds) - 1)
    recall, precision = float(curves.recall[place]), float(curves.precision[place])
    several = "On average over the classes it" if len(facts.per_class) > 1 else "It"
    return (
        f"{several} finds {share(recall)} of the objects, and {share(precision)} of what it finds is right, "
        f"counting detections above {score(facts.threshold, 2)}."
    )


def _facts(facts: RunFacts, curves: Curves, judged: Sequence[ImageResult] | None) -> list[Fact]:
    stats = facts.stats
    said = [
        Fact(score(stats.get("AP")), "AP", "mean over IoU 0.50 to 0.95"),
        Fact(score(stats.get("AP50")), "AP50", "boxes that overlap by half"),
        Fact(
            score(curves.best_f1 if any(c.ap50 is not None for c in curves.per_class) else None),
            "best F1",
            "mean over the classes",
        ),
        Fact(score(facts.threshold, 2), "threshold", "the score where F1 is best"),
    ]
    if judged:
        right = sum(not one.missed.any() and bool(np.all(one.correct)) for one in judged)
        said.append(
            Fact(share(right / len(judged)), "images without a fault", f"{count(right)} of {count(len(judged))}")
        )
    epochs = [float(row["epoch"]) for row in facts.metrics if row.get("epoch") not in (None, "")]
    steps = plural(facts.steps, "step") + (f", {short(epochs[-1])} epochs" if epochs else "")
    return [*said, Fact(duration(facts.seconds), "time", steps)]


def _scored(value: Any, bar: bool = False, digits: int = 3) -> Cell:
    """A cell with an AP or the like."""
    known_value = measured(value)
    return Cell(score(value, digits), known_value, known_value if bar else None)


def _coco(facts: RunFacts) -> Table:
    rows = [[Cell(name), _scored(facts.stats.get(name), bar=True), Cell(meaning)] for name, meaning in MEANING.items()]
    columns = [Column("measure", False), Column("value"), Column("what it is", False)]
    return Table("table-coco", "COCO's twelve numbers; – where there is no truth of that size.", columns, rows)


def _evaluations(facts: RunFacts) -> Table:
    rows = []
    for row in facts.metrics:
        number = {name: float(value) for name, value in row.items() if value not in (None, "")}
        if "AP" in number:
            scores = [_scored(number.get(name)) for name in ("AP", "AP50", "AP75")]
            step, epoch = (
                Cell(text(number.get(name)), number.get(name)) for name, text in (("step", count), ("epoch", short))
            )
            rows.append([step, epoch, *scores, Cell(duration(number.get("seconds")), number.get("seconds"))])
    columns = [Column(name) for name in ("step", "epoch", "AP", "AP50", "AP75", "time")]
    return Table("table-evaluations", "Every evaluation of the run.", columns, rows)


def _classes(facts: RunFacts, curves: Curves) -> Table:
    rows = []
    for row, curve in zip(facts.per_class, curves.per_class, strict=True):
        best: list[Any] = [None] * 4
        if curve.ap50 is not None:
            best = [curve.best_f1, curve.threshold, *_at(curve, curve.threshold)]
        f1, threshold, precision, recall = best
        rows.append(
            [
                Cell(str(row["name"])),
                Cell(count(row["boxes"]), row["boxes"]),
                _scored(row.get("AP"), bar=True),
                _scored(row.get("AP50")),
                _scored(f1),
                _scored(threshold, digits=2),
                _scored(precision),
                _scored(recall),
            ]
        )
    columns = [
        Column("class", False),
        Column("boxes"),
        Column("AP"),
        Column("AP50"),
        Column("best F1"),
        Column("threshold", note="the score above which this class has its best F1"),
        Column("precision", note="at this threshold"),
        Column("recall", note="at this threshold"),
    ]
    says = "Each class, with its best F1, the threshold that gives it, and precision and recall there."
    return Table("table-classes", says, columns, rows)


def _at(curve: ClassCurve, threshold: float) -> tuple[float | None, float | None]:
    """Precision and recall of the detections above a threshold."""
    kept = int((np.asarray(curve.scores) > threshold).sum())
    return (float(curve.precision[kept - 1]), float(curve.recall[kept - 1])) if kept else (None, 0.0)


def _matrix(confusion: Confusion) -> list[tuple[str, list[Square]]]:
    """Rows of the matrix with the colour of each cell: its share of its row."""
    matrix = np.asarray(confusion.matrix)
    names = [*confusion.names, "nothing"]
    rows = []
    for i, name in enumerate(names):
        total = max(1, int(matrix[i].sum()))
        cells = [
            Square(
                count(number) if number or i < len(matrix) - 1 or j < len(matrix) - 1 else "",
                float(number) / total,
                i != j,
                f"{name} found as {names[j]}: {number}, {share(float(number) / total)} of the row",
            )
            for j, number in enumerate(matrix[i])
        ]
        rows.append((name, cells))
    return rows


def _confusions(confusion: Confusion) -> list[Table]:
    """A matrix too large to be read: its largest entries off the diagonal, between classes and with the background."""
    inner = np.zeros(confusion.matrix.shape, np.bool_)
    inner[:-1, :-1] = True
    return [
        _largest(confusion, inner, "table-classes-confused", "Most frequently taken for another class."),
        _largest(
            confusion, ~inner, "table-missed", "Most frequently missed (found as nothing), or found where nothing is."
        ),
    ]


def _largest(confusion: Confusion, where: NDArray[np.bool_], name: str, says: str, most: int = 30) -> Table:
    matrix = np.array(confusion.matrix)
    totals = matrix.sum(axis=1)
    np.fill_diagonal(matrix, 0)
    matrix[~where] = 0
    names = [*confusion.names, "nothing"]
    flat = matrix.ravel()
    order = np.argsort(-flat, kind="stable")[:most]
    rows = []
    for place in order[flat[order] > 0]:
        truth, taken = divmod(int(place), len(names))
        part = matrix[truth, taken] / totals[truth]
        number = int(matrix[truth, taken])
        rows.append(
            [Cell(names[truth]), Cell(names[taken]), Cell(count(number), number), Cell(share(part), part, part)]
        )
    columns = [Column("what it is", False), Column("found as", False), Column("how often"), Column("of what it is")]
    return Table(name, says, columns, rows)


def _errors(errors: ErrorCosts) -> Table:
    top = max([*errors.cost.values(), 1e-9])
    rows = [
        [
            Cell(kind),
            Cell(WORDS[kind]),
            Cell(count(errors.counts[kind]), errors.counts[kind]),
            Cell(score(cost), cost, max(0.0, cost) / top),
        ]
        for kind, cost in sorted(errors.cost.items(), key=lambda item: -item[1])
    ]
    columns = [Column("kind", False), Column("what it is", False), Column("how many"), Column("AP50 lost")]
    return Table("table-errors", "How much higher AP50 would be without each kind of error.", columns, rows)


TIMES = ("data", "forward", "backward", "optimiser", "evaluation", "other")


def _parts(seconds_in: Mapping[str, float]) -> Iterator[tuple[str, float, float]]:
    """Name, seconds and share of what time was spent on, in the order of a step."""
    order = [*(name for name in TIMES if name in seconds_in), *(name for name in seconds_in if name not in TIMES)]
    total = sum(value for value in seconds_in.values() if known(value)) or 1.0
    for name in order:
        if known(seconds_in[name]):
            yield name, seconds_in[name], max(0.0, seconds_in[name]) / total


def _time(seconds_in: Mapping[str, float]) -> list[Slice]:
    return [
        Slice(name, f"{duration(seconds)} ({share(part)})", round(100 * part, 2))
        for name, seconds, part in _parts(seconds_in)
        if seconds > 0
    ]


def _settings(settings: Settings, changed: bool) -> Table:
    """All settings, or those that are not as they are by themselves."""
    usual = dotted(to_plain(Settings()))
    rows = []
    for name, value in dotted(to_plain(settings)).items():
        differs = value != usual.get(name)
        if differs or not changed:
            shown = [Cell(name), Cell(plain_value(value), tone="" if differs else "faint")]
            rows.append([*shown, Cell(plain_value(usual[name]) if name in usual else NONE, tone="faint")])
    columns = [Column("setting", False), Column("value", False), Column("default", False)]
    name = "table-changed" if changed else "table-settings"
    says = "Settings of this run that are not the defaults." if changed else "Every setting of this run."
    return Table(name, says, columns, rows, named=True)
