"""The figures of a run's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retinanet.common.printable import printable
from retinanet.inference.class_colours import colour as class_colour
from retinanet.inference.class_colours import hexadecimal
from retinanet.report.page import Figure, count, score, share
from retinanet.report.svg import INK, SERIES, chart, legend_above, log_axis

if TYPE_CHECKING:
    from retinanet.evaluation.loss_distribution import LossCurves
    from retinanet.evaluation.pr_curves import ClassCurve, Curves

Array = NDArray[np.float64]
NAMED = len(SERIES)
"""Up to this many classes have a curve in the colour of their class. Of more classes a few have a name."""
ENDS = 3
"""Of more classes this many of the best and of the worst have a name; the others are faint."""
FAINT = 60
"""The largest number of faint curves."""
LOG = 5
"""From this ratio of the highest to the lowest loss on, the axis is logarithmic."""
POINTS = 160
"""Points of a curve; more would not be visible."""


def column(rows: Sequence[Mapping[str, Any]], name: str) -> Array:
    """A column of metrics.csv; NaN where it is empty."""
    return np.array([float(row[name]) if row.get(name) not in (None, "") else np.nan for row in rows], np.float64)


def series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[Array, Array]:
    """Steps and values of a column of metrics.csv, without empty and infinite values."""
    values = column(rows, name)
    finite = np.isfinite(values)
    return column(rows, "step")[finite], values[finite]


def smooth(values: Array) -> Array:
    """At each point the mean of the values before it, over a thirtieth of the run."""
    width = max(1, len(values) // 30)
    sums = np.cumsum(np.concatenate([np.zeros(1), values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    result: Array = (sums[ends] - sums[starts]) / (ends - starts)
    return result


def losses(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Training losses over the steps; None if none is recorded."""
    steps, _ = series(rows, "class_loss")
    if not len(steps):
        return None
    ends = []

    def paint(axes: Any) -> None:
        low, high = np.inf, 0.0
        for name, colour in (("class", SERIES[0]), ("box", SERIES[1])):
            x, y = series(rows, f"{name}_loss")
            if not len(x):
                continue
            shown, mean = _thin(len(x), 4 * POINTS), smooth(y)
            axes.plot(x[shown], y[shown], color=colour, alpha=0.3, linewidth=0.7)
            axes.plot(x[shown], mean[shown], color=colour, label=name, marker="o" if len(x) == 1 else "")
            ends.append(f"{name} {mean[-1]:.3g}")
            low, high = min(low, float(y[shown].min())), max(high, float(y[shown].max()))
        axes.set(xlabel="step", ylabel="loss per positive anchor", xlim=_wide(0, steps[-1]))
        if low > 0 and high > LOG * low:
            log_axis(axes, "y")
        else:
            axes.set_ylim(bottom=0)
        legend_above(axes)

    svg = chart("losses", "Training losses of class and box over the steps of the run", paint)
    return Figure(
        svg, "Training losses", f"Thin lines: each step. Thick lines: a running mean. At the end: {', '.join(ends)}."
    )


def quality(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """AP of every evaluation; None if there was none."""
    steps, ap = series(rows, "AP")
    if not len(steps) or not (ap >= 0).any():
        return None
    last = max(steps[-1], *series(rows, "class_loss")[0][-1:], 1)

    def paint(axes: Any) -> None:
        for name, colour in (("AP50", SERIES[2]), ("AP", SERIES[0])):
            x, y = series(rows, name)
            marker = "o" if len(x) <= 60 else ""
            axes.plot(x, y, color=colour, marker=marker, markersize=4, label=name, clip_on=False)
        axes.set(xlabel="step", ylabel="validation AP", xlim=_wide(0, last), ylim=(0, 1))
        legend_above(axes)

    best = int(ap.argmax())
    caption = f"The highest AP is {score(ap[best])}, at step {count(steps[best])}"
    caption += "." if best == len(ap) - 1 else f". At the end it is {score(ap[-1])}."
    return Figure(chart("quality", "AP and AP50 of every evaluation", paint), "AP over the run", caption)


def precision_recall(curves: Curves) -> Figure | None:
    """Precision over recall of each class with truth; None if no class has detections and truth."""
    with_truth = [(label, curve) for label, curve in enumerate(curves.per_class) if curve.ap50 is not None]
    drawn = [(label, curve) for label, curve in with_truth if len(curve.recall)]
    if not drawn:
        return None
    many = len(drawn) > NAMED

    def paint(axes: Any) -> None:
        (_many_curves if many else _few_curves)(axes, drawn, len(with_truth))
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
        legend_above(axes)

    caption = "The closer a curve is to the upper right corner, the better."
    if many:
        caption += (
            f" Of {len(drawn)} classes with detections the {ENDS} with the highest and with the lowest AP50 are named. "
            "The area below the mean is AP50."
        )
    return Figure(chart("pr", "Precision over recall, a curve for each class", paint), "Precision and recall", caption)


def _few_curves(axes: Any, drawn: Sequence[tuple[int, ClassCurve]], _: int) -> None:
    for label, curve in drawn:
        # The curve starts at recall 0, with the precision of the highest-scoring detection.
        x, y = np.append(0.0, curve.recall), np.append(curve.precision[0], curve.precision)
        shown = _thin(len(x), 2 * POINTS)
        colour = hexadecimal(class_colour(label))
        axes.plot(x[shown], y[shown], color=colour, label=_shorten(curve.name))


def _many_curves(axes: Any, drawn: Sequence[tuple[int, ClassCurve]], classes: int) -> None:
    """The mean, the best and the worst classes with names, and the others as faint lines."""
    x = np.linspace(0, 1, 101)
    every = [_envelope(curve, x) for _, curve in drawn]
    for index in _thin(len(every), FAINT):
        axes.plot(x, every[index], color=INK, alpha=0.12, linewidth=0.7)
    mean = np.sum(every, axis=0) / classes  # a class without detections counts as 0
    axes.plot(x, mean, color=SERIES[0], linewidth=2.6, label="mean of the classes")
    for sign, dashes in ((-1, "-"), (1, "--")):  # of equals those with more boxes, which say more
        ranked = sorted(range(len(drawn)), key=lambda i: (sign * (drawn[i][1].ap50 or 0), -drawn[i][1].boxes))
        for index, colour in zip(ranked[:ENDS], SERIES[1:]):
            name = f"{_shorten(drawn[index][1].name)} {drawn[index][1].ap50:.2f}"
            axes.plot(x, every[index], color=colour, linestyle=dashes, linewidth=1.2, label=name)


def f1(curves: Curves) -> Figure | None:
    """F1, precision and recall over the score threshold, as means over the classes."""
    x = np.asarray(curves.thresholds, np.float64)
    if not len(x):
        return None

    def paint(axes: Any) -> None:
        drawn = [curve for curve in curves.per_class if curve.ap50 is not None and len(curve.scores)]
        last = max((float(curve.scores[0]) for curve in drawn), default=0.0)
        faint = 0.3 if len(drawn) <= NAMED else 0.12
        for curve in drawn[:FAINT] if len(drawn) > 1 else []:
            order = np.argsort(curve.scores, kind="stable")
            order = order[_thin(len(order), POINTS)]
            axes.plot(curve.scores[order], curve.f1[order], color=INK, alpha=faint, linewidth=0.7)
        for name, colour, line in (("precision", SERIES[1], "--"), ("recall", SERIES[2], "--"), ("f1", SERIES[0], "-")):
            y = np.asarray(getattr(curves, name), np.float64)
            if name == "precision":  # above the highest score there is nothing to be right or wrong
                y = np.where(last < x, np.nan, y)
            shown = _thin(len(x), POINTS)
            label = "F1" if name == "f1" else name
            axes.plot(
                x[shown], y[shown], color=colour, linestyle=line, label=label, linewidth=2 if name == "f1" else 1.2
            )
        axes.axvline(curves.threshold, color=SERIES[0], linewidth=0.8, linestyle=":")
        axes.set(xlabel="score threshold", ylabel="mean over the classes", xlim=(0, 1), ylim=(0, 1.02))
        legend_above(axes)

    caption = (
        f"Means over the classes. Thin lines: F1 of single classes. The highest F1 is {score(curves.best_f1)}, at the "
    )
    caption += f"threshold {score(curves.threshold, 2)} (dotted line)."
    return Figure(chart("f1", "F1, precision and recall over the score threshold", paint), "Score threshold", caption)


def loss_distribution(curves: LossCurves) -> Figure | None:
    """The share of the loss that easy and hard examples make up; None without examples."""
    if not curves.positives.examples and not curves.negatives.examples:
        return None
    kinds = (("positives", curves.positives, SERIES[0]), ("negatives", curves.negatives, SERIES[1]))

    def paint(axes: Any) -> None:
        for name, curve, colour in kinds:
            if curve.examples:
                shown = _thin(len(curve.fraction), 2 * POINTS)
                axes.plot(curve.fraction[shown], curve.cumulative[shown], color=colour, label=name)
        axes.set(xlabel="share of the examples, easiest first", ylabel="share of the loss", xlim=(0, 1), ylim=(0, 1.02))
        legend_above(axes)

    lines = [
        f"The hardest {100 * part:g} % of {count(curve.examples)} {name} make up {share(curve.hardest(part))} of it."
        for (name, curve, _), part in zip(kinds, (0.2, 0.01))
        if curve.examples
    ]
    caption = "The loss of each kind, summed up from the easiest example to the hardest. " + " ".join(lines)
    return Figure(chart("loss-distribution", caption, paint), "Where the class loss comes from", caption)


def _envelope(curve: ClassCurve, recalls: Array) -> Array:
    """The highest precision at or beyond each recall, as COCO computes it; 0 beyond the last recall."""
    best = np.maximum.accumulate(np.asarray(curve.precision, np.float64)[::-1])[::-1]
    result: Array = np.append(best, 0.0)[np.searchsorted(curve.recall, recalls)]
    return result


def _shorten(name: str) -> str:
    name = " ".join(printable(name, 22).split())
    return f" {name}" if name.startswith("_") else name  # matplotlib leaves names with "_" out of legends


def _thin(number: int, points: int) -> NDArray[np.int64]:
    """At most ``points`` of ``number`` indices, evenly spread, with the first and the last."""
    if number <= points:
        return np.arange(number)
    return np.unique(np.linspace(0, number - 1, points).round().astype(np.int64))


def _wide(low: float, high: float) -> tuple[float, float]:
    return low, max(high, low + 1)
