"""What the charts of a run name, and in which colours."""

import re

import numpy as np
import pytest

from retinanet.evaluation.pr_curves import ClassCurve, Curves
from retinanet.inference.class_colours import colour, hexadecimal
from retinanet.report import run_charts


def curve(name, ap50, boxes=10, scores=(0.9, 0.5, 0.3)):
    values = np.array(scores)
    return ClassCurve(name, boxes, values, np.full(len(values), ap50 or 0.0), np.linspace(0.1, 0.9, len(values)), ap50)


def curves(per_class):
    line = np.linspace(0, 1, 101)
    return Curves(per_class, line, 1 - line, 1 - line, 1 - line, 0.4, 0.7)


def texts(figure):
    return re.findall(r"<text[^>]*>([^<]*)</text>", figure.svg)


def test_few_classes_have_the_colours_of_their_boxes():
    figure = run_charts.precision_recall(curves([curve("a", 0.5), curve("absent", None, 0), curve("c", 0.9)]))
    assert {"a", "c"} < set(texts(figure))
    assert "absent" not in texts(figure)
    assert [hexadecimal(colour(label)) in figure.svg for label in range(3)] == [True, False, True]


def test_of_many_classes_the_best_and_the_worst_are_named():
    classes = [curve(f"class{i}", i / 80, boxes=5) for i in range(80)] + [curve("large", 79 / 80, boxes=50)]
    figure = run_charts.precision_recall(curves(classes))
    named = [text for text in texts(figure) if text[:5] in ("class", "large", "mean ")]
    assert named == [
        *("mean of the classes", "large 0.99", "class79 0.99", "class78 0.97"),
        *("class0 0.00", "class1 0.01", "class2 0.03"),
    ]
    assert "Of 81 classes" in figure.caption


@pytest.mark.parametrize("count", [1, 8])
def test_a_legend_grows_the_chart_and_not_into_it(count):
    """The names stand above the highest tick of the axis."""
    figure = run_charts.precision_recall(curves([curve(f"name{i}", 0.5) for i in range(count)]))
    placed = {
        text: float(place.split()[-1])
        for place, text in re.findall(r'<text[^>]*?transform="translate\(([^)]*)\)[^>]*>([^<]*)<', figure.svg)
        or re.findall(r'<text[^>]*? x="[^"]*" y="([^"]*)"[^>]*>([^<]*)<', figure.svg)
    }
    names = [y for text, y in placed.items() if text.startswith("name")]
    assert len(names) == count
    assert max(names) < placed["1.0"]
    height = float(re.search(r'viewBox="0 0 \S+ ([0-9.]+)"', figure.svg)[1])
    assert height == pytest.approx(72 * (3.1 + 0.19 * (-(-count // 5) - 1)), abs=0.1)


def test_precision_ends_with_the_highest_score():
    """Above it there is no detection that could be right or wrong."""
    ends = []
    for top in (0.25, 0.75):
        svg = run_charts.f1(curves([curve("a", 0.5, scores=(top, 0.1))])).svg
        paths = re.findall(r'<path d="([^"]*)"[^>]*style="([^"]*)"', svg)
        curve_of = {}  # series -> x of the longest of its lines; the others are those of the legend
        for points, style in paths:
            for series in re.findall(r"dasharray.*var\(--(s\d)\)", style):
                x = [float(value) for value in re.findall(r"[ML] (\S+)", points)]
                curve_of[series] = max(curve_of.get(series, []), x, key=len)
        start, end = curve_of["s3"][0], curve_of["s3"][-1]
        ends.append((curve_of["s2"][-1] - start) / (end - start))
    assert ends == pytest.approx([0.25, 0.75], abs=0.02)


@pytest.mark.parametrize(
    ("losses", "ticks"), [((1.4, 1.2, 1.0), {"0.0", "0.5", "1.0"}), ((2.0, 0.2, 0.1), {"0.1", "0.5"})]
)
def test_losses_that_hardly_fall_are_on_a_linear_axis(losses, ticks):
    rows = [{"step": str(i), "class_loss": str(v), "box_loss": str(v)} for i, v in enumerate(losses, 1)]
    assert ticks <= set(texts(run_charts.losses(rows)))
