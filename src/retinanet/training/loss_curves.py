"""The course of a run as an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinanet.common.atomic_files import replacing
from retinanet.training.run_folder import read_metrics

CLASS, BOX, AP, AP50 = "#1f77b4", "#ff7f0e", "#2ca02c", "#98c379"


def draw_curves(folder: Path) -> None:
    """Draw metrics.csv of a run folder as curves.png: training losses, learning rate, validation AP over steps."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    rows = read_metrics(folder)
    steps = [row for row in rows if row["class_loss"]]
    measured = [row for row in rows if row["AP"]]
    if not steps:
        return
    figure = Figure(figsize=(10, 4), dpi=110, layout="constrained")
    losses, quality = figure.subplots(1, 2)
    x = _column(steps, "step")
    for name, colour, label in (("class_loss", CLASS, "class"), ("box_loss", BOX, "box")):
        y = _column(steps, name)
        losses.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
        losses.plot(x, _smooth(y), color=colour, label=f"{label} {_smooth(y)[-1]:.3f}")
    losses.set(xlabel="step", ylabel="training loss per positive anchor", yscale="log")
    losses.legend(loc="upper right", frameon=False)
    rate = losses.twinx()
    rate.plot(x, _column(steps, "lr"), color="grey", linewidth=0.8, linestyle=":")
    rate.set_ylabel("learning rate (dotted)", color="grey")
    rate.tick_params(axis="y", labelcolor="grey")
    rate.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    for name, colour in (("AP50", AP50), ("AP", AP)):
        if measured:
            y = _column(measured, name)
            best = int(y.argmax())
            x = _column(measured, "step")
            label = f"{name} {y[-1]:.3f}" + (f", best {y[best]:.3f} at step {x[best]:.0f}" if best < len(y) - 1 else "")
            quality.plot(x, y, color=colour, marker="o", markersize=3, label=label)
    quality.set(xlabel="step", ylabel="validation AP", ylim=(0, 1), xlim=losses.get_xlim())
    if measured:
        quality.legend(loc="lower right", frameon=False)
    for axes in (losses, quality):
        axes.grid(alpha=0.2)
    with replacing(folder / "curves.png") as place:
        figure.savefig(place)


def _column(rows: list[dict[str, str]], name: str) -> NDArray[np.float64]:
    return np.array([float(row[name]) for row in rows])


def _smooth(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """A running mean over a thirtieth of the run, at each point over the steps before it."""
    width = max(1, len(y) // 30)
    sums = np.cumsum(np.concatenate([np.zeros(1), y]))
    ends = np.arange(1, len(y) + 1)
    starts = np.maximum(0, ends - width)
    smooth: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return smooth
