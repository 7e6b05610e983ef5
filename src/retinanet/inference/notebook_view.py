"""How detections are shown: in a notebook as an image with a table, elsewhere in the system's image viewer."""

from __future__ import annotations

import base64
import html
import io
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageShow

from retinanet.common.errors import RequestError, WorkError, first_line
from retinanet.common.jupyter import in_notebook
from retinanet.common.printable import NAME, listed, printable
from retinanet.inference.drawing import draw_boxes, to_image

if TYPE_CHECKING:
    from retinanet.inference.detection_rows import Row

SIDE = 800
"""Pixels of the longer side of an image in a notebook: some 100 kB for each."""
MOST_ROWS = 100
"""Rows of the table in a notebook."""
STYLE = "text-align:left;padding:0 1em 0 0;font-variant-numeric:tabular-nums"


def counted(names: list[str], most: int = 5) -> str:
    """The classes of some detections in words: "3 cat, 1 dog"."""
    return listed([f"{count} {printable(name, NAME)}" for name, count in Counter(names).most_common()], most)


def as_html(image: Any, rows: list[Row], class_names: tuple[str, ...], title: str) -> str:
    """A page's element with the image, its boxes and a folded table; without the image where it cannot be read."""
    names = [name for name, *_ in rows]
    try:
        shown = "" if image is None else _picture(to_image(image), rows, class_names)
    except RequestError as error:
        shown = f"<div>{html.escape(printable(first_line(error)))}</div>"
    summary = html.escape(f"{len(rows)} detection{'s' * (len(rows) != 1)}{': ' * bool(rows)}{counted(names)}")
    cells = "".join(_table_row(row) for row in rows[:MOST_ROWS])
    if len(rows) > MOST_ROWS:
        cells += f'<tr><td colspan="6">and {len(rows) - MOST_ROWS} more</td></tr>'
    head = "".join(f'<th style="{STYLE}">{word}</th>' for word in ("class", "score", "x1", "y1", "x2", "y2"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>" if rows else ""
    where = f"<div>{html.escape(printable(title, 200))}</div>" if title else ""
    return f"<div>{where}{shown}<details><summary>{summary}</summary>{table}</details></div>"


def _picture(image: Image.Image, rows: list[Row], class_names: tuple[str, ...]) -> str:
    scale = min(1.0, SIDE / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)
    boxes = [[side * scale for side in box] for *_, box in rows]
    drawn = draw_boxes(small, boxes, [row[0] for row in rows], [row[2] for row in rows], class_names=class_names)
    file = io.BytesIO()
    drawn.save(file, "JPEG", quality=88)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img style="max-width:100%" width="{drawn.width}" src="data:image/jpeg;base64,{data}">'


def _table_row(row: Row) -> str:
    name, _, score, box = row
    cells = [html.escape(printable(name, NAME)), f"{score:.2f}", *(f"{side:.1f}" for side in box)]
    return "<tr>" + "".join(f'<td style="{STYLE}">{cell}</td>' for cell in cells) + "</tr>"


def show(image: Image.Image) -> None:
    """Show an image below the cell of a notebook, or in the system's image viewer.

    Raises:
        WorkError: there is no screen or no viewer.
    """
    if in_notebook():
        from IPython.display import display

        display(image)
        return
    no_screen = sys.platform.startswith("linux") and not (os.getenv("DISPLAY") or os.getenv("WAYLAND_DISPLAY"))
    if no_screen or not ImageShow.show(image, "detections"):
        raise WorkError('there is no screen or image viewer here: write the image with .save("drawn.png") instead')
