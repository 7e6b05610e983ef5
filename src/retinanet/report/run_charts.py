"""The figures of a run's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retinanet.common.printable import printable
from retinanet.report.page import Figure, count, score, share
from retinanet.report.svg import INK, SERIES, chart, log_axis

if TYPE_CHECKING:
    from retinanet.evaluation.loss_distribution import LossCurves
    from retinanet.evaluation.pr_curves import ClassCurve, Curves

Array = NDArray[np.float64]
NAMED = len(SERIES)
"""Up to this many classes have a curve in a colour of their own. With more classes all curves are faint."""
FAINT = 60
"""The largest number of faint curves."""
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
        positive = True
        for name, colour in (("class", SERIES[0]), ("box", SERIES[1])):
            x, y = series(rows, f"{name}_loss")
            if not len(x):
                continue
            shown, mean = _thin(len(x), 4 * POINTS), smooth(y)
            axes.plot(x[shown], y[shown], color=colour, alpha=0.3, linewidth=0.7)
            axes.plot(x[shown], mean[shown], color=colour, label=name, marker="o" if len(x) == 1 else "")
            ends.append(f"{name} {mean[-1]:.3g}")
            positive &= bool((y[shown] > 0).all())
        axes.set(xlabel="step", ylabel="loss per positive anchor", xlim=_wide(0, steps[-1]))
        if positive:
            log_axis(axes, "y")
        else:
            axes.set_ylim(bottom=0)
        axes.legend(loc="upper right")

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
            axes.plot(x, y, color=colour, marker="o" if len(x) <= 60 else "", markersize=3.5, label=name)
        axes.set(xlabel="step", ylabel="validation AP", xlim=_wide(0, last), ylim=(0, 1))
        axes.legend(loc="upper left" if ap[-1] < 0.5 else "lower right")

    best = int(ap.argmax())
    caption = f"The highest AP is {score(ap[best])}, at step {count(steps[best])}"
    caption += "." if best == len(ap) - 1 else f". At the end it is {score(ap[-1])}."
    return Figure(chart("quality", "AP and AP50 of every evaluation", paint), "AP over the run", caption)


def precision_recall(curves: Curves) -> Figure | None:
    """Precision over recall of each class with truth; None if no class has detections and truth."""
    drawn = [curve for curve in curves.per_class if curve.ap50 is not None and len(curve.recall)]
    if not drawn:
        return None

    def few(axes: Any) -> None:
        for curve, colour in zip(drawn, SERIES):
            # The curve starts at recall 0, with the precision of the highest-scoring detection.
            x, y = np.append(0.0, curve.recall), np.append(curve.precision[0], curve.precision)
            shown = _thin(len(x), 2 * POINTS)
            axes.plot(x[shown], y[shown], color=colour, label=_shorten(curve.name))

    def many(axes: Any) -> None:
        x = np.linspace(0, 1, 101)
        every = [_envelope(curve, x) for curve in drawn]
        for index in _thin(len(every), FAINT):
            axes.plot(x, every[index], color=INK, alpha=0.12, linewidth=0.7)
        with_truth = sum(curve.ap50 is not None for curve in curves.per_class)  # a class without detections counts as 0
        mean = np.sum(every, axis=0) / with_truth
        axes.plot(x, mean, color=SERIES[0], linewidth=2, label="mean of the classes")

    def paint(axes: Any) -> None:
        (few if len(drawn) <= NAMED else many)(axes)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
        axes.legend(loc="lower left")

    caption = "The closer a curve is to the upper right corner, the better."
    if len(drawn) > NAMED:
        caption += f" Thin lines: single classes, at most {FAINT} of {len(drawn)}. The area below the mean is AP50."
    return Figure(chart("pr", "Precision over recall, a curve for each class", paint), "Precision and recall", caption)


def f1(curves: Curves) -> Figure | None:
    """F1, precision and recall over the score threshold, as means over the classes."""
    x = np.asarray(curves.thresholds, np.float64)
    if not len(x):
        return None

    def paint(axes: Any) -> None:
        drawn = [curve for curve in curves.per_class if curve.ap50 is not None and len(curve.scores)]
        faint = 0.3 if len(drawn) <= NAMED else 0.12
        for curve in drawn[:FAINT] if len(drawn) > 1 else []:
            order = np.argsort(curve.scores, kind="stable")
            order = order[_thin(len(order), POINTS)]
            axes.plot(curve.scores[order], curve.f1[order], color=INK, alpha=faint, linewidth=0.7)
        for name, colour, line in (("precision", SERIES[1], "--"), ("recall", SERIES[2], "--"), ("f1", SERIES[0], "-")):
            y = np.asarray(getattr(curves, name), np.float64)
            shown = _thin(len(x), POINTS)
            label = "F1" if name == "f1" else name
            axes.plot(
                x[shown], y[shown], color=colour, linestyle=line, label=label, linewidth=2 if name == "f1" else 1.2
            )
        axes.axvline(curves.threshold, color=SERIES[0], linewidth=0.8, linestyle=":")
        axes.set(xlabel="score threshold", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="lower left")

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
        axes.legend(loc="upper left")

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
