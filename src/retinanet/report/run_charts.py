"""The figures of a run's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retinanet.common.printable import printable
from retinanet.report.page import Figure, count, score, share
from retinanet.report.svg import INK, SERIES, chart, written_out

if TYPE_CHECKING:
    from retinanet.evaluation.loss_distribution import LossCurves
    from retinanet.evaluation.pr_curves import ClassCurve, Curves

Array = NDArray[np.float64]
NAMED = len(SERIES)
"""Up to so many classes have a curve of their own colour; of more, all are faint, with their mean."""
FAINT = 60
"""Up to so many faint curves are drawn."""
POINTS = 160
"""Points of a curve; a page does not show more."""


def column(rows: Sequence[Mapping[str, Any]], name: str) -> Array:
    """A column of metrics.csv; NaN where it is empty."""
    return np.array([float(row[name]) if row.get(name) not in (None, "") else np.nan for row in rows], np.float64)


def course(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[Array, Array]:
    """Steps and values of a column of metrics.csv, where it has a finite value."""
    values = column(rows, name)
    there = np.isfinite(values)
    return column(rows, "step")[there], values[there]


def smooth(values: Array) -> Array:
    """A running mean over a thirtieth of the run, at each point over the steps before it."""
    width = max(1, len(values) // 30)
    sums = np.cumsum(np.concatenate([np.zeros(1), values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - width)
    result: Array = (sums[ends] - sums[starts]) / (ends - starts)
    return result


def losses(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Training losses over the steps; None where none is recorded."""
    steps, _ = course(rows, "class_loss")
    if not len(steps):
        return None
    ends = []

    def paint(axes: Any) -> None:
        positive = True
        for name, colour in (("class", SERIES[0]), ("box", SERIES[1])):
            x, y = course(rows, f"{name}_loss")
            if not len(x):
                continue
            some, mean = _thin(len(x), 4 * POINTS), smooth(y)
            axes.plot(x[some], y[some], color=colour, alpha=0.3, linewidth=0.7)
            axes.plot(x[some], mean[some], color=colour, label=name, marker="o" if len(x) == 1 else "")
            ends.append(f"{name} {mean[-1]:.3g}")
            positive &= bool((y[some] > 0).all())
        axes.set(xlabel="step", ylabel="loss per positive anchor", xlim=_wide(0, steps[-1]))
        if positive:
            written_out(axes, "y")
        else:
            axes.set_ylim(bottom=0)
        axes.legend(loc="upper right")

    svg = chart("losses", "Training losses of class and box over the steps of the run", paint)
    return Figure(svg, "Training losses", f"Thin: each step; thick: a running mean. At the end: {', '.join(ends)}.")


def quality(rows: Sequence[Mapping[str, Any]]) -> Figure | None:
    """AP of every evaluation; None where there was none."""
    steps, ap = course(rows, "AP")
    if not len(steps) or not (ap >= 0).any():
        return None
    last = max(steps[-1], *course(rows, "class_loss")[0][-1:], 1)

    def paint(axes: Any) -> None:
        for name, colour in (("AP50", SERIES[2]), ("AP", SERIES[0])):
            x, y = course(rows, name)
            axes.plot(x, y, color=colour, marker="o" if len(x) <= 60 else "", markersize=3.5, label=name)
        axes.set(xlabel="step", ylabel="AP in validation", xlim=_wide(0, last), ylim=(0, 1))
        axes.legend(loc="upper left" if ap[-1] < 0.5 else "lower right")

    best = int(ap.argmax())
    said = f"Highest AP {score(ap[best])} at step {count(steps[best])}"
    said += "." if best == len(ap) - 1 else f"; at the end {score(ap[-1])}."
    return Figure(chart("quality", "AP and AP50 of every evaluation", paint), "AP over the run", said)


def precision_recall(curves: Curves) -> Figure | None:
    """Precision against recall of each class with truth; None where no class has any."""
    there = [curve for curve in curves.per_class if curve.ap50 is not None and len(curve.recall)]
    if not there:
        return None

    def few(axes: Any) -> None:
        for curve, colour in zip(there, SERIES):
            # The curve begins where nothing is found yet, at the precision of the surest detection.
            x, y = np.append(0.0, curve.recall), np.append(curve.precision[0], curve.precision)
            some = _thin(len(x), 2 * POINTS)
            axes.plot(x[some], y[some], color=colour, label=_shorten(curve.name))

    def many(axes: Any) -> None:
        x = np.linspace(0, 1, 101)
        every = [_envelope(curve, x) for curve in there]
        for place in _thin(len(every), FAINT):
            axes.plot(x, every[place], color=INK, alpha=0.12, linewidth=0.7)
        without = sum(curve.ap50 is not None for curve in curves.per_class) - len(there)  # nothing found: no precision
        mean = np.sum(every, axis=0) / (len(every) + without)
        axes.plot(x, mean, color=SERIES[0], linewidth=2, label="mean of the classes")

    def paint(axes: Any) -> None:
        (few if len(there) <= NAMED else many)(axes)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
        axes.legend(loc="lower left")

    said = "The further a curve reaches to the upper right, the better."
    if len(there) > NAMED:
        said += f" Thin: each of {len(there)} classes, at most {FAINT} drawn; the area below the mean is AP50."
    return Figure(chart("pr", "Precision against recall, a curve for each class", paint), "Precision and recall", said)


def f1(curves: Curves) -> Figure | None:
    """F1, precision and recall against the score threshold, as means over the classes."""
    x = np.asarray(curves.thresholds, np.float64)
    if not len(x):
        return None

    def paint(axes: Any) -> None:
        there = [curve for curve in curves.per_class if curve.ap50 is not None and len(curve.scores)]
        faint = 0.3 if len(there) <= NAMED else 0.12
        for curve in there[:FAINT] if len(there) > 1 else []:
            order = np.argsort(curve.scores, kind="stable")
            order = order[_thin(len(order), POINTS)]
            axes.plot(curve.scores[order], curve.f1[order], color=INK, alpha=faint, linewidth=0.7)
        for name, colour, line in (("precision", SERIES[1], "--"), ("recall", SERIES[2], "--"), ("f1", SERIES[0], "-")):
            y = np.asarray(getattr(curves, name), np.float64)
            some = _thin(len(x), POINTS)
            label = "F1" if name == "f1" else name
            axes.plot(x[some], y[some], color=colour, linestyle=line, label=label, linewidth=2 if name == "f1" else 1.2)
        axes.axvline(curves.threshold, color=SERIES[0], linewidth=0.8, linestyle=":")
        axes.set(xlabel="score threshold", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="lower left")

    said = f"Means over the classes; thin: F1 of single classes. F1 is highest, {score(curves.best_f1)}, "
    said += f"with detections above {score(curves.threshold, 2)} (dotted)."
    return Figure(chart("f1", "F1, precision and recall against the score threshold", paint), "The threshold", said)


def hardness(difficulty: LossCurves) -> Figure | None:
    """How much of the loss the easy examples make; None where there are no examples."""
    if not difficulty.positives.examples and not difficulty.negatives.examples:
        return None
    kinds = (("positives", difficulty.positives, SERIES[0]), ("negatives", difficulty.negatives, SERIES[1]))

    def paint(axes: Any) -> None:
        for name, curve, colour in kinds:
            if curve.examples:
                some = _thin(len(curve.fraction), 2 * POINTS)
                axes.plot(curve.fraction[some], curve.cumulative[some], color=colour, label=name)
        axes.set(xlabel="share of the examples, easiest first", ylabel="share of the loss", xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="upper left")

    said = [
        f"The hardest {100 * part:g} % of {count(curve.examples)} {name} carry {share(curve.hardest(part))} of it."
        for (name, curve, _), part in zip(kinds, (0.2, 0.01))
        if curve.examples
    ]
    text = "Loss summed up from the easiest example to the hardest, each kind by itself. " + " ".join(said)
    return Figure(chart("hardness", text, paint), "Where the class loss comes from", text)


def _envelope(curve: ClassCurve, recalls: Array) -> Array:
    """The highest precision at a recall of at least each of ``recalls``, as COCO reads it; 0 beyond the last."""
    best = np.maximum.accumulate(np.asarray(curve.precision, np.float64)[::-1])[::-1]
    place = np.searchsorted(curve.recall, recalls)
    result: Array = np.append(best, 0.0)[place]
    return result


def _shorten(name: str) -> str:
    name = " ".join(printable(name, 22).split())
    return f" {name}" if name.startswith("_") else name  # which matplotlib leaves out of legends


def _thin(number: int, points: int) -> NDArray[np.int64]:
    """At most ``points`` of ``number`` places, evenly spread, the ends among them."""
    if number <= points:
        return np.arange(number)
    return np.unique(np.linspace(0, number - 1, points).round().astype(np.int64))


def _wide(low: float, high: float) -> tuple[float, float]:
    return low, max(high, low + 1)
