"""Boxes drawn in images, and sheets of images beside each other, with Pillow alone."""

from __future__ import annotations

import colorsys
import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from retinanet.common.printable import NAME, printable
from retinanet.data.image_io import to_tensor

Colour = tuple[int, int, int]
Area = tuple[float, float, float, float]

# Bright enough to stand out from photographs, and as easy as possible to distinguish for people with colour blindness.
# Neighbours in the list differ most, since few classes are the common case.
PALETTE: tuple[Colour, ...] = (
    (255, 92, 92),  # coral
    (38, 208, 206),  # turquoise
    (255, 196, 37),  # amber
    (122, 140, 255),  # periwinkle
    (139, 220, 80),  # lime
    (255, 122, 214),  # pink
    (64, 170, 255),  # sky
    (255, 146, 51),  # orange
    (190, 130, 255),  # violet
    (80, 224, 150),  # mint
    (240, 232, 92),  # lemon
    (255, 160, 150),  # salmon
)
DARK: Colour = (18, 20, 26)
PAPER: Colour = (250, 250, 248)
INK: Colour = (40, 42, 48)
FAINT: Colour = (125, 128, 136)


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

    Each class has a colour, the same in every image. Lines and text grow with the image. A label stands where it
    hides no other label and stays inside the image; in a crowd lower-scoring boxes may have none.

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
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    values = None if scores is None else np.asarray(scores, np.float64).tolist()
    order = {name: i for i, name in enumerate(class_names if class_names is not None else sorted(set(names)))}
    unit = (canvas.width * canvas.height) ** 0.5
    line = line or max(2, round(unit / 320))
    drawing = ImageDraw.Draw(canvas)

    drawn = range(len(corners)) if values is None else sorted(range(len(corners)), key=lambda i: -values[i])
    for i in reversed(drawn):  # the highest-scoring on top
        frame(drawing, corners[i], colour(order.get(names[i], len(order))), line, canvas.size)

    crowded = len(corners) > 24
    font = load_font(max(11, round(unit / (48 if crowded else 38))))
    taken: list[Area] = []
    for i in drawn:
        number = None if numbers is None else numbers[i]
        name = names[i] if number is None else f"#{number} {names[i]}"
        text = name if values is None else f"{name} {values[i]:.2f}"
        label(drawing, corners[i], text, colour(order.get(names[i], len(order))), font, line, canvas.size, taken)
    return canvas


def to_image(image: Any) -> Image.Image:
    """A new, upright PIL RGB image of an image of any kind."""
    return Image.fromarray(np.ascontiguousarray(to_tensor(image).permute(1, 2, 0).cpu().numpy()))


def colour(index: int) -> Colour:
    """The colour of a class: the palette, then hues a golden angle apart."""
    if index < len(PALETTE):
        return PALETTE[index]
    step = index - len(PALETTE)
    red, green, blue = colorsys.hls_to_rgb(step * 0.618034 % 1, (0.66, 0.56, 0.76)[step % 3], 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


@lru_cache(maxsize=64)
def load_font(size: int, bold: bool = False) -> Any:
    # Pillow's own font has no letter beyond English ones. Matplotlib's wheel brings one that has, and draws no curve.
    found = importlib.util.find_spec("matplotlib")
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / f"DejaVuSans{'-Bold' * bold}.ttf"
        if path.is_file():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


def frame(drawing: ImageDraw.ImageDraw, box: np.ndarray, inner: Colour, line: int, size: tuple[int, int]) -> None:
    """A box of ``line`` pixels in colour with a thin dark edge on both sides, kept inside the image."""
    edge = max(1, line // 3)
    width, height = size
    x1, y1 = (int(min(max(v, 0), limit - 1)) for v, limit in zip(np.floor(box[:2]), size))
    x2 = int(min(max(np.ceil(box[2]) - 1, x1), width - 1))
    y2 = int(min(max(np.ceil(box[3]) - 1, y1), height - 1))
    drawing.rectangle((x1 - edge, y1 - edge, x2 + edge, y2 + edge), outline=DARK, width=line + 2 * edge)
    drawing.rectangle((x1, y1, x2, y2), outline=inner, width=line)


def label(
    drawing: ImageDraw.ImageDraw,
    box: np.ndarray,
    text: str,
    back: Colour,
    font: Any,
    line: int,
    size: tuple[int, int],
    taken: list[Area],
) -> None:
    """Write the text where it hides no other label: above the box, in its upper corner, below it, in its lower one."""
    text = _one_line(text, NAME)
    ascent, descent = font.getmetrics()
    pad = max(2, font.size // 4)
    width = min(drawing.textlength(text, font=font) + 2 * pad, size[0])
    height = ascent + descent + pad // 2
    edge = max(1, line // 3)
    x1, y1, x2, y2 = (float(v) for v in box)
    left, right = x1 - edge, x2 + edge - width
    above, below, top, bottom = y1 - height, y2, y1 + line, y2 - line - height
    positions = [
        (left, above),
        (left, top),
        (right, above),
        (left, below),
        (right, below),
        (right, top),
        (left, bottom),
    ]
    best, least = None, 0.12  # the largest share of a label that may be hidden
    for x, y in positions:
        x, y = max(0.0, min(x, size[0] - width)), max(0.0, min(y, size[1] - height))
        area = (x, y, x + width, y + height)
        hidden = sum(_overlap(area, other) for other in taken) / (width * height)
        if hidden < least:
            best, least = area, hidden
        if hidden == 0:
            break
    if best is None:
        return
    taken.append(best)
    x, y = round(best[0]), round(best[1])
    drawing.rectangle((x, y, round(best[2]) - 1, round(best[3]) - 1), fill=back, outline=DARK, width=edge)
    drawing.text(
        (x + pad, y + height / 2), text, fill=DARK if _bright(back) else (255, 255, 255), font=font, anchor="lm"
    )


def _one_line(text: str, most: int) -> str:
    """Class and file names may hold line breaks, which Pillow refuses to measure, and be of any length."""
    return printable(" ".join(text.split()), most)


def _overlap(a: Area, b: Area) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _bright(rgb: Colour) -> bool:
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 110


# ------------------------------------------------------------------------------------------------------------- sheets


@dataclass
class Row:
    """One image of a sheet: boxes (n, 4) and names of the ground truth; those of the detections, with scores."""

    image: Any
    truth: tuple[Any, Sequence[str]]
    found: tuple[Any, Sequence[str], Any]
    title: str = ""


def sheet(
    rows: Iterable[Row], *, class_names: Sequence[str] | None = None, limit: int = 8, width: int = 560
) -> Image.Image:
    """Images below each other, the ground truth of each on the left and its detections on the right.

    Args:
        rows: the images; no more than ``limit`` of them are read.
        class_names: all classes, whose order gives the colours.
        limit: the most images.
        width: of one panel in pixels; images are scaled to it, tall ones to less.
    """
    pairs = []
    for _, row in zip(range(limit), rows):
        image = to_image(row.image)
        scale = min(width / image.width, width / image.height)
        small = image.resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
        )
        panels = []
        for boxes, names, scores in ((*row.truth, None), row.found):
            scaled = np.asarray(boxes, np.float64).reshape(-1, 4) * scale
            panels.append((draw_boxes(small, scaled, names, scores, class_names=class_names), len(names)))
        pairs.append((row.title, panels))
    if not pairs:
        raise ValueError("a sheet needs at least one image")

    margin, gap = width // 20, width // 40
    caption, small_font = load_font(max(13, width // 32), bold=True), load_font(max(11, width // 42))
    head = 2 * caption.size
    heights = [head + panels[0][0].height + gap for _, panels in pairs]
    page = Image.new("RGB", (2 * width + gap + 2 * margin, sum(heights) + 2 * margin - gap), PAPER)
    drawing = ImageDraw.Draw(page)
    y = margin
    for (title, panels), height in zip(pairs, heights):
        base = y + head - caption.size * 0.55
        for column, (word, (panel, count)) in enumerate(zip(("truth", "found"), panels)):
            left = margin + column * (width + gap)
            drawing.text((left, base), word, fill=INK, font=caption, anchor="ls")
            start = left + drawing.textlength(word + " ", font=caption)
            drawing.text((start, base), str(count), fill=FAINT, font=caption, anchor="ls")
            page.paste(panel, (left + (width - panel.width) // 2, y + head))
        if title:
            room = width - drawing.textlength("truth 0000 ", font=caption)
            text = _shorten(drawing, _one_line(title, 300), small_font, room)
            drawing.text((margin + width, base), text, fill=FAINT, font=small_font, anchor="rs")
        y += height
    return page


def _shorten(drawing: ImageDraw.ImageDraw, text: str, font: Any, room: float) -> str:
    """The end of a long text, which tells file names apart better than their beginning."""
    if drawing.textlength(text, font=font) <= room:
        return text
    while text and drawing.textlength("…" + text, font=font) > room:
        text = text[1:]
    return "…" + text
