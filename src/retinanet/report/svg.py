"""Charts as SVG inside a page. They use the page's fonts, and its colours in the light and the dark mode."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape

from retinanet.common.printable import printable

# Matplotlib needs real colours. These ones stand for the page's colours, which replace them in the finished SVG.
INK = "#010203"
SERIES = tuple(f"#0102{i:02x}" for i in range(0x10, 0x18))
_REAL = {INK: "currentColor"} | {colour: f"var(--s{i})" for i, colour in enumerate(SERIES, 1)}

LETTERS = 56
"""Letters of a legend that fit beside each other; a line and a gap take as much room as five."""
ROW = 0.19
"""Height of a row of a legend in inches."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $
    "font.size": 12,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.7,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.use": True,
}


def chart(name: str, description: str, paint: Callable[[Any], None], width: float = 4.7, height: float = 3.1) -> Markup:
    """An SVG element that ``paint`` draws into matplotlib axes; the same drawing gives the same text.

    Args:
        name: the prefix of all ids inside; each chart of a page needs another one.
        description: what the chart shows, for screen readers.
        paint: draws with the colours INK for axes and text, and SERIES for data.
        width, height: in inches, about the width of a phone, so that text keeps its size there.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    with matplotlib.rc_context({"svg.hashsalt": "retinanet", **_STYLE}), warnings.catch_warnings():
        # Matplotlib only measures the text, in a font without emoji or Chinese. The browser draws it in its own fonts.
        warnings.filterwarnings("ignore", "Glyph .* missing from|Matplotlib currently does not support .* natively")
        figure = Figure(figsize=(width, height))
        axes = figure.subplots()
        axes.tick_params(length=0, pad=5)
        axes.set_axisbelow(True)
        paint(axes)
        text = io.StringIO()
        # savefig would compute the layout twice.
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return Markup(_for_page(text.getvalue(), name, description))


def _for_page(text: str, name: str, description: str) -> str:
    """Matplotlib's SVG file as an element of a page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # it would apply to the whole page
    text = re.sub(r"<g/>\s*|<defs>\s*</defs>\s*", "", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    text = re.sub(r"font: ([0-9.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub("|".join(_REAL), lambda found: _REAL[found[0]], text)
    # Two decimals are precise enough and make the page smaller.
    text = re.sub(r'(?<= (?:d|x|y)=")[^"]+', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), text)
    used = {ident: f"{name}-{i}" for i, ident in enumerate(_references(text))}
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{used[found[1]]}"' if found[1] in used else "", text)
    text = re.sub(
        r'(url\(#|href="#)([^")]*)', lambda found: found[1] + used[found[2]] if found[2] in used else found[0], text
    )
    text = text.replace("xlink:href", "href").replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    text = text.replace(' version="1.1"', "")
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="([^"]*)"', head)
    assert box is not None
    size = box[1].split()[2:]
    label = escape(printable(description))
    opening = f'<svg viewBox="{box[1]}" width="{size[0]}" height="{size[1]}" role="img" aria-label="{label}"'
    return opening + ">" + re.sub(r"\n\s*", "\n", body).strip()


def _references(text: str) -> list[str]:
    """The ids that other elements refer to, in the order of their first use."""
    return list(dict.fromkeys(re.findall(r'(?:url\(#|href="#)([^")]*)', text)))


def legend_above(axes: Any) -> None:
    """A legend above the axes, where it lies on no line; the figure grows with its rows."""
    names = axes.get_legend_handles_labels()[1]
    if names:
        columns = min(len(names), max(1, LETTERS // (5 + max(map(len, names)))))
        axes.figure.set_figheight(axes.figure.get_figheight() + ROW * (math.ceil(len(names) / columns) - 1))
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=columns,
            borderaxespad=0.1,
            handlelength=1.3,
            handletextpad=0.5,
            columnspacing=1.2,
            labelspacing=0.25,
        )


def log_axis(axes: Any, which: str, base: int = 10) -> None:
    """Make an axis, "x" or "y", logarithmic, with numbers such as 0.05 and 200 instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(base, subs=(1,) if base == 2 else (1, 2, 5), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"1/{1 / value:g}" if base == 2 and value < 1 else f"{value:g}")
    )
    axis.set_minor_formatter(NullFormatter())
