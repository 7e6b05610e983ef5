"""The charts on the page of a data set."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from retinanet.common.printable import printable
from retinanet.report.page import Figure, share
from retinanet.report.svg import INK, SERIES, chart, legend_above, log_axis

if TYPE_CHECKING:
    from retinanet.analysis.coverage import Coverage
    from retinanet.analysis.survey import Histogram, SplitSurvey
    from retinanet.config.model_settings import AnchorSettings


def sides(surveys: Mapping[str, SplitSurvey], anchors: AnchorSettings) -> Figure | None:
    """Sizes of the boxes in training, with those of the anchors; None without boxes."""
    histograms = {name: survey.trained.histogram for name, survey in surveys.items() if survey.boxes}
    if not histograms:
        return None
    every = sorted(size * scale for size in anchors.sizes for scale in anchors.scales)

    def paint(axes: Any) -> None:
        low, high = _filled(list(histograms.values()))
        low, high = min(low, every[0] / 1.3), max(high, every[-1] * 1.3)
        _mark(axes, {f"P{level}": size for level, size in zip(anchors.levels, anchors.sizes)}, every)
        _outlines(axes, histograms)
        axes.set(xlabel="√(width × height) in training, pixels", xlim=(low, high))
        _axes(axes)

    caption = (
        "Sizes of the boxes after resizing for training. Dashed lines: the base size of the anchors of each pyramid "
        "level. Ticks at the bottom: every size of anchor. Boxes far from all ticks are hard to detect."
    )
    svg = chart("sides", "Share of boxes by size, with the sizes of the anchors", paint)
    return Figure(svg, "Sizes of boxes", caption)


def shapes(surveys: Mapping[str, SplitSurvey], anchors: AnchorSettings) -> Figure | None:
    """Aspect ratios of the boxes, with those of the anchors; None without boxes."""
    histograms = {name: survey.ratio_histogram for name, survey in surveys.items() if survey.boxes}
    if not histograms:
        return None

    def paint(axes: Any) -> None:
        low, high = _filled(list(histograms.values()))
        low, high = min(low, min(anchors.ratios) / 1.3), max(high, max(anchors.ratios) * 1.3)
        _mark(axes, {f"{ratio:.3g}": ratio for ratio in anchors.ratios}, anchors.ratios)
        _outlines(axes, histograms)
        axes.set(xlabel="height divided by width", xlim=(low, high))
        _axes(axes)

    caption = "1 is a square; 2 is twice as high as wide. Dashed lines: the aspect ratios of the anchors."
    svg = chart("shapes", "Share of boxes by aspect ratio, with those of the anchors", paint)
    return Figure(svg, "Aspect ratios of boxes", caption)


def objects(surveys: Mapping[str, SplitSurvey]) -> Figure:
    """The number of objects in an image."""
    used = [max(i for i, n in enumerate(survey.objects.counts) if n or i == 0) for survey in surveys.values()]
    edges = next(iter(surveys.values())).objects.edges[: max(used) + 2]
    names = [f"{a}" if b - a <= 1 else f"{a}–{b - 1}" for a, b in itertools.pairwise(map(int, edges))]

    def paint(axes: Any) -> None:
        width = 0.8 / len(surveys)
        for i, (name, survey) in enumerate(surveys.items()):
            at = np.arange(len(names)) + (i - (len(surveys) - 1) / 2) * width
            heights = np.array(survey.objects.counts[: len(names)]) / max(1, survey.images)
            axes.bar(at, heights, width * 0.92, color=SERIES[i % len(SERIES)], label=_name(name))
        axes.set_xticks(range(len(names)), names, rotation=40 if len(names) > 9 else 0)
        axes.set(xlabel="objects in an image", ylabel="share of the images")
        axes.grid(axis="x", visible=False)
        _percent(axes)
        if len(surveys) > 1:
            legend_above(axes)

    medians = ", ".join(
        f"{survey.objects_median:g} in {name} (at most {survey.objects_max})" for name, survey in surveys.items()
    )
    svg = chart("objects", "Share of images by number of objects", paint)
    return Figure(svg, "Objects in an image", f"Median number of objects: {medians}.")


def fits(coverages: Mapping[str, Coverage]) -> Figure | None:
    """The IoU of each box with its best anchor; None without boxes."""
    drawn = {name: coverage for name, coverage in coverages.items() if len(coverage.best)}
    if not drawn:
        return None
    edges = np.linspace(0, 1, 41)
    limit = next(iter(drawn.values())).foreground

    def paint(axes: Any) -> None:
        axes.axvline(limit, color=INK, linewidth=0.9, linestyle="--", alpha=0.7)
        for (name, coverage), colour in zip(drawn.items(), SERIES[1::-1] + SERIES[2:]):
            heights = np.histogram(coverage.best, edges)[0] / len(coverage.best)
            axes.stairs(heights, edges, fill=True, color=colour, alpha=0.2)
            axes.stairs(heights, edges, color=colour, linewidth=1.6, label=_name(name))
        axes.set(xlabel="IoU of a box with its best anchor", ylabel="share of the boxes", xlim=(0, 1))
        _percent(axes)
        legend_above(axes)

    below = ", ".join(f"{share(1 - coverage.share)} with {name}" for name, coverage in drawn.items())
    caption = f"Boxes left of {limit:g} (dashed line) have no positive anchor, so they are not trained on: {below}."
    svg = chart("fits", "Share of boxes by the IoU with their best anchor", paint)
    return Figure(svg, "How well the anchors fit", caption)


def _filled(histograms: list[Histogram]) -> tuple[float, float]:
    """The outer edges of all bins that are not empty."""
    used = [i for histogram in histograms for i, number in enumerate(histogram.counts) if number]
    return histograms[0].edges[min(used)], histograms[0].edges[max(used) + 1]


def _outlines(axes: Any, histograms: Mapping[str, Histogram]) -> None:
    for i, (name, histogram) in enumerate(histograms.items()):
        heights = np.array(histogram.counts) / max(1, sum(histogram.counts))
        colour = SERIES[i % len(SERIES)]
        if i == 0:
            axes.stairs(heights, histogram.edges, fill=True, color=colour, alpha=0.2)
        axes.stairs(heights, histogram.edges, color=colour, linewidth=1.6, label=_name(name))
    if len(histograms) > 1:
        legend_above(axes)


def _mark(axes: Any, named: Mapping[str, float], every: Any) -> None:
    """Dashed lines with names at some values of x, and ticks at the bottom for all values."""
    for name, value in named.items():
        axes.axvline(value, color=INK, linewidth=0.8, linestyle="--", alpha=0.5)
        axes.text(value, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=9)
    axes.vlines(every, 0, 0.035, color=INK, linewidth=1.2, transform=axes.get_xaxis_transform())


def _axes(axes: Any) -> None:
    log_axis(axes, "x", base=2)
    axes.set_ylabel("share of the boxes")
    axes.set_ylim(bottom=0)
    axes.grid(axis="x", visible=False)
    _percent(axes)


def _percent(axes: Any) -> None:
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")


def _name(name: str) -> str:
    return printable(name, 30)
