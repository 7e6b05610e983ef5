"""Figures as SVG inside a page: its fonts, and colours that follow it from light to dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape

from retinanet.common.printable import printable

# Matplotlib wants real colours; these stand in for the page's and are replaced by them in the finished SVG.
INK = "#010203"
SERIES = tuple(f"#0102{place:02x}" for place in range(0x10, 0x18))
_REAL = {INK: "currentColor"} | {colour: f"var(--s{place})" for place, colour in enumerate(SERIES, 1)}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a class may be called $
    "font.size": 11,
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
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.use": True,
}


def chart(name: str, says: str, paint: Callable[[Any], None], width: float = 4.7, height: float = 3.1) -> Markup:
    """An SVG that ``paint`` draws into matplotlib axes; the same drawing gives the same text.

    Args:
        name: begins the ids inside; different for each figure of a page.
        says: what the figure shows, for those who do not see it.
        paint: draws with INK for text and lines of the page, SERIES for data.
        width, height: in inches; about as many as a phone shows, so that letters keep their size on it.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    with matplotlib.rc_context({"svg.hashsalt": "retinanet", **_STYLE}), warnings.catch_warnings():
        # Matplotlib only measures text, in a font without emoji or Chinese; browsers draw it in fonts of their own.
        warnings.filterwarnings("ignore", "Glyph .* missing from|Matplotlib currently does not support .* natively")
        figure = Figure(figsize=(width, height))
        axes = figure.subplots()
        axes.tick_params(length=0, pad=5)
        axes.set_axisbelow(True)
        paint(axes)
        text = io.StringIO()
        # Not savefig, which lays everything out twice.
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return Markup(_for_page(text.getvalue(), name, says))


def _for_page(text: str, name: str, says: str) -> str:
    """A file of matplotlib's to an element of a page."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # of every element of the page: its own has it
    text = re.sub(r"<g/>\s*|<defs>\s*</defs>\s*", "", text)
    text = re.sub(r"font-family: [^;\"]*;?", "", text)
    text = re.sub(r"font: ([0-9.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub("|".join(_REAL), lambda found: _REAL[found[0]], text)
    # A hundredth of a point is enough.
    text = re.sub(r'(?<= (?:d|x|y)=")[^"]+', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), text)
    used = {ident: f"{name}-{place}" for place, ident in enumerate(_references(text))}
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
    label = escape(printable(says))
    opening = f'<svg viewBox="{box[1]}" width="{size[0]}" height="{size[1]}" role="img" aria-label="{label}"'
    return opening + ">" + re.sub(r"\n\s*", "\n", body).strip()


def _references(text: str) -> list[str]:
    """What other elements point at, in the order of its first mention."""
    return list(dict.fromkeys(re.findall(r'(?:url\(#|href="#)([^")]*)', text)))


def written_out(axes: Any, which: str, base: int = 10) -> None:
    """Make the axis ``which``, x or y, logarithmic, its numbers in full: 0.05, 200."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(base, subs=(1,) if base == 2 else (1, 2, 5), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(
        FuncFormatter(lambda value, _: f"1/{1 / value:g}" if base == 2 and value < 1 else f"{value:g}")
    )
    axis.set_minor_formatter(NullFormatter())
