"""The figures of a data set's page."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from retinanet.common.printable import printable
from retinanet.report.page import Figure, share
from retinanet.report.svg import INK, SERIES, chart, written_out

if TYPE_CHECKING:
    from retinanet.analysis.coverage import Coverage
    from retinanet.analysis.survey import Histogram, SplitSurvey
    from retinanet.config.settings import AnchorSettings


def sides(surveys: Mapping[str, SplitSurvey], anchors: AnchorSettings) -> Figure | None:
    """Sizes of the boxes as trained on, with the anchors'; None without boxes."""
    parts = {name: one.trained.histogram for name, one in surveys.items() if one.boxes}
    if not parts:
        return None
    every = sorted(size * scale for size in anchors.sizes for scale in anchors.scales)

    def paint(axes: Any) -> None:
        low, high = _filled(list(parts.values()))
        low, high = min(low, every[0] / 1.3), max(high, every[-1] * 1.3)
        _mark(axes, {f"P{level}": size for level, size in zip(anchors.levels, anchors.sizes)}, every)
        _outlines(axes, parts)
        axes.set(xlabel="√(width × height) in pixels as trained on", xlim=(low, high))
        _axes(axes, "boxes")

    said = (
        "Boxes by size after the images are resized. Dashed: the base size of the anchors of each pyramid level; "
        "ticks at the foot: every size of anchor. Boxes far from all ticks are hard to learn."
    )
    return Figure(
        chart("sides", "Share of boxes by size, with the sizes of the anchors", paint), "Sizes of boxes", said
    )


def shapes(surveys: Mapping[str, SplitSurvey], anchors: AnchorSettings) -> Figure | None:
    """Shapes of the boxes, with the anchors'; None without boxes."""
    parts = {name: one.ratio_histogram for name, one in surveys.items() if one.boxes}
    if not parts:
        return None

    def paint(axes: Any) -> None:
        low, high = _filled(list(parts.values()))
        low, high = min(low, min(anchors.ratios) / 1.3), max(high, max(anchors.ratios) * 1.3)
        _mark(axes, {f"{ratio:.3g}": ratio for ratio in anchors.ratios}, anchors.ratios)
        _outlines(axes, parts)
        axes.set(xlabel="height divided by width", xlim=(low, high))
        _axes(axes, "boxes")

    said = "Boxes by shape: 1 is a square, 2 twice as high as wide. Dashed: the shapes of the anchors."
    return Figure(chart("shapes", "Share of boxes by shape, with the shapes of the anchors", paint), "Shapes", said)


def objects(surveys: Mapping[str, SplitSurvey]) -> Figure:
    """How many objects an image has."""
    used = [max(i for i, n in enumerate(one.objects.counts) if n or i == 0) for one in surveys.values()]
    edges = next(iter(surveys.values())).objects.edges[: max(used) + 2]
    names = [f"{a}" if b - a <= 1 else f"{a}–{b - 1}" for a, b in itertools.pairwise(map(int, edges))]

    def paint(axes: Any) -> None:
        width = 0.8 / len(surveys)
        for place, (name, one) in enumerate(surveys.items()):
            at = np.arange(len(names)) + (place - (len(surveys) - 1) / 2) * width
            heights = np.array(one.objects.counts[: len(names)]) / max(1, one.images)
            axes.bar(at, heights, width * 0.92, color=SERIES[place % len(SERIES)], label=_name(name))
        axes.set_xticks(range(len(names)), names, rotation=40 if len(names) > 9 else 0)
        axes.set(xlabel="objects in an image", ylabel="share of the images")
        axes.grid(axis="x", visible=False)
        _percent(axes)
        if len(surveys) > 1:
            axes.legend()

    median = ", ".join(f"{one.objects_median:g} in {name} (at most {one.objects_max})" for name, one in surveys.items())
    svg = chart("objects", "Share of images by number of objects", paint)
    return Figure(svg, "Objects in an image", f"Half of the images have this many or fewer: {median}.")


def fits(coverages: Mapping[str, Coverage]) -> Figure | None:
    """How well the best anchor of each box fits; None without boxes."""
    there = {name: one for name, one in coverages.items() if len(one.best)}
    if not there:
        return None
    edges = np.linspace(0, 1, 41)
    limit = next(iter(there.values())).foreground

    def paint(axes: Any) -> None:
        axes.axvline(limit, color=INK, linewidth=0.9, linestyle="--", alpha=0.7)
        for (name, one), colour in zip(there.items(), SERIES[1::-1] + SERIES[2:]):
            heights = np.histogram(one.best, edges)[0] / len(one.best)
            axes.stairs(heights, edges, fill=True, color=colour, alpha=0.2)
            axes.stairs(heights, edges, color=colour, linewidth=1.6, label=_name(name))
        axes.set(xlabel="IoU of a box with its best anchor", ylabel="share of the boxes", xlim=(0, 1))
        _percent(axes)
        axes.legend(loc="upper left")

    below = ", ".join(f"{share(1 - one.share)} with {name}" for name, one in there.items())
    said = f"Boxes left of {limit:g} (dashed) have no anchor that may learn them: {below}."
    return Figure(
        chart("fits", "Share of boxes by the IoU with their best anchor", paint), "How well anchors fit", said
    )


def _filled(parts: list[Histogram]) -> tuple[float, float]:
    """From the first edge to the last one between which there is anything."""
    used = [i for part in parts for i, number in enumerate(part.counts) if number]
    return parts[0].edges[min(used)], parts[0].edges[max(used) + 1]


def _outlines(axes: Any, parts: Mapping[str, Histogram]) -> None:
    for place, (name, part) in enumerate(parts.items()):
        heights = np.array(part.counts) / max(1, sum(part.counts))
        colour = SERIES[place % len(SERIES)]
        if not place:
            axes.stairs(heights, part.edges, fill=True, color=colour, alpha=0.2)
        axes.stairs(heights, part.edges, color=colour, linewidth=1.6, label=_name(name))
    if len(parts) > 1:
        axes.legend(loc="upper right")


def _mark(axes: Any, named: Mapping[str, float], every: Any) -> None:
    """Lines with names for some values of x, and ticks at the foot for all."""
    for name, value in named.items():
        axes.axvline(value, color=INK, linewidth=0.8, linestyle="--", alpha=0.5)
        axes.text(value, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=9)
    axes.vlines(every, 0, 0.035, color=INK, linewidth=1.2, transform=axes.get_xaxis_transform())


def _axes(axes: Any, of: str) -> None:
    written_out(axes, "x", base=2)
    axes.set_ylabel(f"share of the {of}")
    axes.set_ylim(bottom=0)
    axes.grid(axis="x", visible=False)
    _percent(axes)


def _percent(axes: Any) -> None:
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def _name(name: str) -> str:
    return printable(name, 30)
