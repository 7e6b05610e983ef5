import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinanet.report import page
from retinanet.report.run_charts import _shorten
from retinanet.report.svg import INK, SERIES, chart, log_axis


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (page.count, 0, "0"),
        (page.count, 1234567.4, "1 234 567"),
        (page.count, None, "–"),
        (page.score, 0.12345, "0.123"),
        (page.score, -1.0, "–"),
        (page.score, math.nan, "–"),
        (page.share, 0, "0 %"),
        (page.share, 1, "100 %"),
        (page.share, 0.0004, "< 0.1 %"),
        (page.share, 0.9996, "> 99.9 %"),
        (page.share, 0.034, "3.4 %"),
        (page.share, 0.5, "50 %"),
        (page.share, math.inf, "–"),
        (page.short, 0.012345, "0.0123"),
        (page.short, 54321, "54 321"),
        (page.short, None, "–"),
        (page.duration, 3.21, "3.2 s"),
        (page.duration, 59, "59 s"),
        (page.duration, 125, "2 min 5 s"),
        (page.duration, 3600, "1 h"),
        (page.duration, 7500, "2 h 5 min"),
        (page.duration, math.nan, "–"),
        (page.plain_value, None, "none"),
        (page.plain_value, True, "true"),
        (page.plain_value, (1.0, 2.5), "1, 2.5"),
        (page.plain_value, {}, "none"),
    ],
)
def test_numbers_in_words(write, value, text):
    assert write(value).replace(page.THIN, " ") == text


@given(st.floats(0, 1))
def test_a_share_is_all_or_nothing_only_if_it_is(value):
    said = page.share(value).replace(page.THIN, " ")
    assert (said == "0 %") == (value == 0)
    assert (said == "100 %") == (value == 1)


@given(st.text(max_size=40))
def test_prose_holds_no_element_but_code(text):
    html = str(page.prose(text))
    assert "<" not in html.replace("<code>", "").replace("</code>", "")
    assert html.count("<code>") == html.count("</code>")


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("try `--a.b 1`, or more", "try <code>--a.b 1</code>, or more"),
        ("--model.nms-iou 0.75, where", "<code>--model.nms-iou 0.75</code>, where"),
        ("see --data.x.", "see <code>--data.x</code>."),
        ("`--a` and --b", "<code>--a</code> and <code>--b</code>"),
        ("a -- b, x--y, <b>", "a -- b, x--y, &lt;b&gt;"),
    ],
)
def test_options_are_code(text, html):
    assert str(page.prose(text)) == html


def test_a_chart_follows_the_page():
    def paint(axes):
        axes.plot([1, 1000], [1, 2], color=SERIES[2], label="<a> $x_1$")
        axes.text(10, 1, "ink", color=INK)
        log_axis(axes, "x")
        axes.legend()

    svg = chart("one", 'says "so"', paint)
    assert svg == chart("one", 'says "so"', paint)
    assert "var(--s3)" in svg
    assert "currentColor" in svg
    assert "#" not in svg.replace("#one-", "").replace(
        "&#34;", ""
    )  # no colour, and no reference, that is not of the page
    assert "&lt;a&gt; $x_1$" in svg
    assert ">200<" in svg  # the axis in full, not as powers
    assert 'role="img" aria-label="says &#34;so&#34;"' in svg
    assert svg.startswith("<svg viewBox=")
    assert "font-family" not in svg
    for gone in ("<style", "<metadata", "DOCTYPE", "xlink", "http"):
        assert gone not in svg


def test_two_charts_of_a_page_share_no_id():
    import re

    def paint(axes):
        axes.plot([0, 1], [0, 1], marker="o")

    ids = [set(re.findall(r'id="([^"]*)"', chart(name, "x", paint))) for name in ("a", "b")]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_the_pages_fetch_nothing_by_their_own_files():
    for path in page.TEMPLATES.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "http:" not in text
        assert "https:" not in text
        assert "@import" not in text


def test_templates_are_where_the_wheel_takes_files_from():
    assert page.TEMPLATES.is_relative_to(Path(page.__file__).parents[1])
    assert {path.name for path in page.TEMPLATES.iterdir()} == {
        "base.html.jinja",
        "data.html.jinja",
        "parts.html.jinja",
        "run.html.jinja",
        "script.js",
        "style.css",
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["🐢", "猫", "سلحفاة", "कछुआ", "_under", "$x_1^2"])
def test_a_class_of_any_letters_is_in_the_legend_without_a_warning(name):
    def paint(axes):
        axes.plot([0, 1], label=_shorten(name))
        axes.legend()

    assert name in chart("x", "says", paint)
