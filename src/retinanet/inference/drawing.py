"""Labelled boxes drawn in images, with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from retinanet.common.errors import RequestError
from retinanet.data.image_io import to_tensor
from retinanet.inference.class_colours import Colour, colour, text_colour
from retinanet.inference.fonts import font_with, load_font, one_line, shortened

Area = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom are not inside."""

NAME = 32
"""Characters of a class name in a label."""
CROWD = 20
"""With more labels than this, text is smaller."""
HIDDEN = 0.03
"""The largest share of a label that another one may hide."""
GAP = 1
"""Pixels between two labels."""


@dataclass(frozen=True)
class Mark:
    """A box to draw: corners x1 y1 x2 y2 in pixels, a line around it, and a label, which may be empty."""

    box: Sequence[float]
    colour: Colour
    text: str = ""
    line: int = 2


def draw_boxes(
    image: Any,
    boxes: Any,
    names: Sequence[str],
    scores: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    numbers: Sequence[int | None] | None = None,
    line: int | None = None,
) -> Image.Image:
    """The image as an RGB image of its own size with labelled boxes.

    Each class has a colour, the same in every image. Lines and text grow with the image. All boxes are drawn before the
    labels, so no line crosses a label. A label stands where it hides no other one, inside the image; in a crowd
    lower-scoring boxes may have none.

    Args:
        image: a path, a PIL image, an RGB array (H, W, 3) uint8 or a tensor (3, H, W) uint8; it is not changed.
        boxes: (n, 4), x1 y1 x2 y2 in pixels of the image, a tensor or an array.
        names: the class name of each box.
        scores: (n,) in 0..1, written behind the names.
        class_names: all classes, whose order gives the colours; by default the names in the image, sorted.
        numbers: track numbers, written before the names; None for an object without.
        line: width of the lines in pixels.
    """
    canvas = to_image(image)
    corners = np.asarray(boxes, np.float64).reshape(-1, 4).tolist()
    for i, corner in enumerate(corners):
        if any(map(math.isnan, corner)):
            raise RequestError(f"box {i} has a side that is not a number, {corner}: leave it out")
    if numbers is not None and len(numbers) != len(corners):
        raise RequestError(f"{len(numbers)} numbers for {len(corners)} boxes: give one for each")
    values = None if scores is None else np.asarray(scores, np.float64).tolist()
    order = {name: i for i, name in enumerate(class_names if class_names is not None else sorted(set(names)))}
    line = line or line_width(canvas.size)
    size = font_size(canvas.size, len(corners))
    marks = []
    for i in range(len(corners)) if values is None else sorted(range(len(corners)), key=lambda i: -values[i]):
        label = order.get(names[i], len(order))
        number = None if numbers is None else numbers[i]
        front = "" if number is None else f"#{number} "
        back = "" if values is None else f" {values[i]:.2f}"
        text = _label_text(front, names[i], back, label, size, canvas.width)
        marks.append(Mark(corners[i], colour(label), text, line))
    paint(canvas, marks, size)
    return canvas


def to_image(image: Any) -> Image.Image:
    """A new, upright PIL RGB image of an image of any kind."""
    return Image.fromarray(np.ascontiguousarray(to_tensor(image).permute(1, 2, 0).cpu().numpy()))


def line_width(size: tuple[int, int]) -> int:
    """Pixels of a line in an image of this size: 1 at 300 pixels, 2 at 640, 5 at 2000, 14 at 8000."""
    # Slower than the image, because people enlarge large images to see something.
    root: float = (size[0] * size[1]) ** 0.375
    return max(1, round(root / 60))


def font_size(size: tuple[int, int], labels: int = 1) -> int:
    """Pixels of the letters in an image of this size: 9 at 300 pixels, 14 at 640; fewer in a crowd."""
    crowd: float = max(0.7, min(1.0, (CROWD / max(1, labels)) ** 0.5))
    root: float = (size[0] * size[1]) ** 0.375
    return max(9, round(crowd * root / 8.2))


def paint(canvas: Image.Image, marks: Sequence[Mark], size: int) -> None:
    """Draw the marks into the image, those that come first on top: all lines first, then all labels.

    Args:
        size: of the letters, in pixels.
    """
    drawing = ImageDraw.Draw(canvas)
    frames = [_frame(mark.box, canvas.size) for mark in marks]
    for mark, (x1, y1, x2, y2) in zip(reversed(marks), reversed(frames)):
        if min(x2 - x1, y2 - y1) > 2 * mark.line:
            drawing.rectangle((x1, y1, x2 - 1, y2 - 1), outline=mark.colour, width=mark.line)
        else:  # all of it is line, which Pillow would draw beyond the box
            drawing.rectangle((x1, y1, x2 - 1, y2 - 1), fill=mark.colour)
    taken: list[Area] = []
    for mark, frame in zip(marks, frames):
        if not mark.text:
            continue
        text = one_line(mark.text, 2 * NAME)
        font = font_with(text, size, bold=True) or load_font(size, bold=True)
        ascent, descent = font.getmetrics()
        pad = max(2, round(0.3 * size))
        text = shortened(text, font, canvas.width - 2 * pad)
        width = min(round(font.getlength(text)) + 2 * pad, canvas.width)
        area = _free_area(frame, (width, ascent + descent + pad // 2), mark.line, canvas.size, taken)
        if area is None:
            continue
        taken.append(area)
        left, top, right, bottom = area
        drawing.rectangle((left, top, right - 1, bottom - 1), fill=mark.colour)
        baseline = top + (bottom - top + ascent - descent) / 2
        drawing.text((left + pad, round(baseline)), text, fill=text_colour(mark.colour), font=font, anchor="ls")


def _label_text(front: str, name: str, back: str, label: int, size: int, width: int) -> str:
    """A label of track number, class name and score; of a long name the beginning, so that its score stays."""
    name = one_line(name, NAME)
    font = font_with(name, size, bold=True)
    if font is None:  # squares would stand for every letter
        return f"{front}class {label}{back}"
    return front + shortened(name, font, width - size - font.getlength(front + back)) + back


def _frame(box: Sequence[float], size: tuple[int, int]) -> Area:
    """The pixels that a box reaches into, inside the image; at least one."""
    width, height = size
    x1, y1 = (int(min(max(v, 0), limit - 1)) for v, limit in zip(np.floor(box[:2]), size))
    x2 = int(min(max(np.ceil(box[2]), x1 + 1), width))
    y2 = int(min(max(np.ceil(box[3]), y1 + 1), height))
    return x1, y1, x2, y2


def _free_area(
    frame: Area, label: tuple[int, int], line: int, size: tuple[int, int], taken: Iterable[Area]
) -> Area | None:
    """Where a label (width, height) hides no other one, or hides least; None where it hides too much."""
    width, height = label
    best, least = None, HIDDEN
    for x, y in _positions(frame, label, line):
        x, y = max(0, min(x, size[0] - width)), max(0, min(y, size[1] - height))
        around = (x - GAP, y - GAP, x + width + GAP, y + height + GAP)
        hidden = sum(_overlap(around, other) for other in taken) / (width * height)
        if hidden < least:
            best, least = (x, y, x + width, y + height), hidden
        if hidden == 0:
            break
    return best


def _positions(frame: Area, label: tuple[int, int], line: int) -> Iterator[tuple[int, int]]:
    """Left and top of a label: above the box, inside it at the top, below it, inside it at the bottom."""
    x1, y1, x2, y2 = frame
    width, height = label
    middle = (x1 + x2 - width) // 2
    for y, inset in ((y1 - height, 0), (y1 + line, line), (y2, 0), (y2 - line - height, line)):
        for x in (x1 + inset, x2 - inset - width, middle):
            yield x, y


def _overlap(a: Area, b: Area) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
