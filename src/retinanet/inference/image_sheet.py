"""A sheet of images below each other, the ground truth beside the detections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from retinanet.inference.class_colours import Colour
from retinanet.inference.drawing import draw_boxes, to_image
from retinanet.inference.fonts import load_font, one_line, shortened

PAPER: Colour = (250, 250, 248)
INK: Colour = (40, 42, 48)
FAINT: Colour = (125, 128, 136)
HEADINGS = ("ground truth", "detections")


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
        for column, (word, (panel, count)) in enumerate(zip(HEADINGS, panels)):
            left = margin + column * (width + gap)
            drawing.text((left, base), word, fill=INK, font=caption, anchor="ls")
            start = left + drawing.textlength(word + " ", font=caption)
            drawing.text((start, base), str(count), fill=FAINT, font=caption, anchor="ls")
            page.paste(panel, (left + (width - panel.width) // 2, y + head))
        if title:
            room = width - drawing.textlength(f"{HEADINGS[0]} 0000 ", font=caption)
            text = shortened(one_line(title, 300), small_font, room, keep_end=True)
            drawing.text((margin + width, base), text, fill=FAINT, font=small_font, anchor="rs")
        y += height
    return page
