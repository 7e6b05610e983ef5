"""The paper's figures, drawn as in the paper, and a plot for each table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from retinanet.common.atomic_files import replacing
from retinanet.losses import pointwise

if TYPE_CHECKING:
    from retinanet.evaluation.loss_distribution import LossCurves
    from retinanet.paper.experiments import Experiment
    from retinanet.paper.table_report import Row

OURS, PAPER = "#1f77b4", "#999999"
COLOURS = ("#1f77b4", "#9467bd", "#2ca02c", "#ff7f0e", "#d62728")
GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)


def _axes(width: float = 6.0, height: float = 4.2, columns: int = 1) -> tuple[Any, list[Any]]:
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    matplotlib.rcParams["svg.hashsalt"] = "retinanet"  # the same figure gives the same file
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for each in axes:
        each.grid(alpha=0.2)
    return figure, list(axes)


def save(figure: Any, folder: Path, name: str) -> None:
    """Write a figure as name.svg and name.png."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{name}.svg") as temporary:
        figure.savefig(temporary, metadata={"Date": None})
    with replacing(folder / f"{name}.png") as temporary:
        figure.savefig(temporary)


def focal_loss() -> Any:
    """Figure 1: the focal loss over the probability of the ground-truth class."""
    figure, (axes,) = _axes()
    p_t = torch.linspace(0.001, 1, 1000, dtype=torch.float64)
    for gamma, colour in zip(GAMMAS, COLOURS):
        loss = pointwise.focal(torch.logit(p_t), gamma).nan_to_num(nan=0.0)  # the logit of p_t = 1 is infinite
        name = f"γ = {gamma:g}" + (" (cross entropy)" if gamma == 0 else "")
        axes.plot(p_t, loss, color=colour, label=name)
    axes.axvspan(0.6, 1, color="#2ca02c", alpha=0.06)
    axes.text(0.8, 4.4, "well-classified\nexamples", ha="center", va="top", color="#2ca02c")
    axes.set(xlabel="probability of ground-truth class p_t", ylabel="loss", xlim=(0, 1), ylim=(0, 5))
    axes.legend(frameon=False)
    return figure


def star_loss() -> Any:
    """Figure 5: FL* and the focal loss over x_t = y x."""
    return _over_x("loss", lambda loss, x: loss(x))


def star_derivative() -> Any:
    """Figure 6: their derivatives."""

    def derivative(loss: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_(True)
        return torch.autograd.grad(loss(x).sum(), x)[0]

    return _over_x("derivative with respect to x_t", derivative)


def _over_x(name: str, shown: Callable[[Callable[[torch.Tensor], torch.Tensor], torch.Tensor], torch.Tensor]) -> Any:
    figure, (axes,) = _axes()
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    curves = (
        ("CE", "black", lambda x: pointwise.focal(x, 0.0)),
        ("FL γ = 2", COLOURS[0], lambda x: pointwise.focal(x, 2.0)),
        ("FL* γ = 2, β = 1", COLOURS[2], lambda x: pointwise.focal_star(x, 2.0, 1.0)),
        ("FL* γ = 4, β = 0", COLOURS[3], lambda x: pointwise.focal_star(x, 4.0, 0.0)),
    )
    for label, colour, loss in curves:
        axes.plot(x, shown(loss, x), color=colour, label=label)
    axes.set(xlabel="x_t", ylabel=name, xlim=(-5, 5))
    axes.legend(frameon=False)
    return figure


def cumulative_loss(by_gamma: Mapping[float, LossCurves]) -> Any:
    """Figure 4: cumulative normalised loss of positives and of negatives, easiest first."""
    figure, (positives, negatives) = _axes(10, 4.2, 2)
    for gamma, colour in zip(by_gamma, COLOURS):
        for axes, part in ((positives, by_gamma[gamma].positives), (negatives, by_gamma[gamma].negatives)):
            axes.plot(part.fraction, part.cumulative, color=colour, label=f"γ = {gamma:g}")
    for axes, name in ((positives, "foreground"), (negatives, "background")):
        axes.set(xlabel=f"fraction of {name} examples", ylabel="cumulative normalised loss", xlim=(0, 1), ylim=(0, 1))
        axes.legend(frameon=False, loc="upper left")
    return figure


def plot_table(experiment: Experiment, rows: Sequence[Row]) -> Any:
    """AP of each cell with the spread over seeds, and the paper's AP on a second axis."""
    if experiment.name == "table-1e":
        return _time(rows)
    if experiment.name == "figure-7":
        return _sweep(rows)
    figure, (axes,) = _axes(max(6.0, 0.95 * len(rows)))
    positions = range(len(rows))
    axes.errorbar(
        positions,
        [row.mean() for row in rows],
        yerr=[0.0 if math.isnan(row.spread()) else row.spread() for row in rows],
        color=OURS,
        marker="o",
        linestyle="none",
        capsize=3,
    )
    if _grows(rows):
        axes.plot(positions, [row.mean() for row in rows], color=OURS, alpha=0.4)
    for position, row in zip(positions, rows):
        if row.failed:
            axes.annotate(row.failed[0], (position, 0), ha="center", va="bottom", color="#d62728", rotation=90)
    axes.set(ylabel="AP here (%)", ylim=(0, None))
    axes.set_xticks(positions, ["\n".join(str(v) for v in row.cell.values.values() if v != "") for row in rows])
    axes.set_xlabel(" / ".join(rows[0].cell.values))
    axes.yaxis.label.set_color(OURS)
    cited = [(i, row.cell.paper["AP"]) for i, row in enumerate(rows) if _is_number(row.cell.paper.get("AP"))]
    if cited:
        right = axes.twinx()
        right.plot(*zip(*cited), color=PAPER, marker="s", markersize=4, linestyle=":")
        right.set_ylabel("AP in the paper, on COCO (%)", color=PAPER)
        right.set_ylim(0, None)
    return figure


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _grows(rows: Sequence[Row]) -> bool:
    """Whether the first varied setting is a number that grows from cell to cell, so that a line may join the points."""
    values = [next(iter(row.cell.values.values())) for row in rows]
    return all(map(_is_number, values)) and values == sorted(set(values))


def _time(rows: Sequence[Row]) -> Any:
    """Figure 2: AP over time per image, one curve for each backbone."""
    figure, axes = _axes(10, 4.2, 2)
    for side, title in zip(axes, ("here", "in the paper (COCO, M40)")):
        for colour, name in zip(COLOURS, dict.fromkeys(row.cell.values["backbone"] for row in rows)):
            group = [row for row in rows if row.cell.values["backbone"] == name]
            here = side is axes[0]
            cited = [(row.cell.paper["ms"], row.cell.paper["AP"]) for row in group]
            points = [(row.mean("ms"), row.mean()) for row in group] if here else cited
            label = name if here else f"ResNet-{50 if colour == COLOURS[0] else 101}"
            side.plot(*zip(*points), color=colour, marker="o", label=label)
            for row, point in zip(group, points):
                size = row.cell.values["size"] if here else (400, 500, 600, 700, 800)[group.index(row)]
                side.annotate(str(size), point, xytext=(3, -9), textcoords="offset points", fontsize=8)
        side.set(xlabel="time per image (ms)", ylabel="AP (%)", title=title)
        side.legend(frameon=False, loc="lower right")
    return figure


def _sweep(rows: Sequence[Row]) -> Any:
    """Figure 7: the curves of FL*, in blue those whose AP is within a tenth of the best."""
    figure, (axes,) = _axes()
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    top = max((row.mean() for row in rows if row.values("AP")), default=math.nan)
    for row in rows:
        gamma, beta = row.cell.values["gamma"], row.cell.values["beta"]
        good = row.mean() >= 0.9 * top
        axes.plot(x, pointwise.focal_star(x, gamma, beta), color=OURS if good else "#ff7f0e", alpha=0.8, linewidth=1)
    axes.plot(x, pointwise.focal(x, 0.0), color="black", linewidth=1.5, label="CE")
    axes.plot([], [], color=OURS, label="FL*, within a tenth of the best AP")
    axes.plot([], [], color="#ff7f0e", label="FL*, lower")
    axes.set(xlabel="x_t", ylabel="loss", xlim=(-5, 5), ylim=(0, 5))
    axes.legend(frameon=False)
    return figure
