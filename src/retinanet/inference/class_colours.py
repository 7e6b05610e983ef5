"""The colour of each class: the same in drawn images, in reports and on the server's page."""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]

# Strong enough for thin lines on bright and on dark photographs. Neighbours in the list differ most, also for people
# with colour blindness, since few classes are the common case.
PALETTE: tuple[Colour, ...] = (
    (230, 48, 62),  # red
    (28, 126, 236),  # blue
    (250, 150, 8),  # amber
    (24, 162, 92),  # green
    (152, 62, 224),  # violet
    (8, 176, 190),  # turquoise
    (240, 74, 160),  # pink
    (132, 176, 20),  # lime
    (92, 84, 245),  # indigo
    (238, 96, 26),  # orange
    (10, 138, 150),  # petrol
    (196, 140, 10),  # ochre
)
BLACK: Colour = (16, 18, 22)
WHITE: Colour = (255, 255, 255)
BRIGHT = 0.27
"""Relative luminance from which black text is easier to read than white text."""


def colour(index: int) -> Colour:
    """The colour of a class: the palette, then hues a golden angle apart."""
    if index < len(PALETTE):
        return PALETTE[index]
    step = index - len(PALETTE)
    red, green, blue = colorsys.hls_to_rgb(step * 0.618034 % 1, (0.52, 0.42, 0.62)[step % 3], 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)


def text_colour(back: Colour) -> Colour:
    """Black or white, whichever is easier to read on ``back``."""
    return BLACK if luminance(back) > BRIGHT else WHITE


def luminance(rgb: Colour) -> float:
    """Relative luminance in 0..1, as WCAG defines it for sRGB."""
    red, green, blue = (v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def hexadecimal(rgb: Colour) -> str:
    """#rrggbb, as web pages and matplotlib write colours."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)
