"""What images look like: which are copies of each other or nearly so, their colours, whether they show anything.

Two images look alike where their brightness rises and falls in the same places: each becomes the differences
between neighbouring cells of a 16 x 16 grey image, 480 numbers of length 1, and the product of two such vectors is
their likeness, from -1 to 1. Unlike a hash of signs this is exact where an image is flat (a clear sky, the glass of a
microscope): what hardly rises hardly counts. And all pairs are one matrix product, taken in blocks.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from retinanet.data import image_io
from retinanet.data.dataset import DetectionData, spread
from retinanet.data.pixel_formats import to_rgb
from retinanet.data.validate import Progress

CELLS = 16
"""Cells a side that images are compared in. Fine enough that images of one kind (blood cells on the same glass)
differ, coarse enough that compression and another size do not show."""
ALIKE = 0.75
"""Likeness from which images count as nearly the same. Measured on BCCD, COCO128 and tiny COCO: different images
reach 0.47 at most; JPEG at quality 30, half the size, a gamma of 0.7 and a blur of 2 pixels together leave 0.96 at
least, a crop of 2 % at each side 0.79."""
FLAT = 1.5
"""Root mean square of the differences, in grey levels of 0..255, below which an image shows too little to be told
from others: such images are only compared byte by byte."""
BLANK = 1.0  # standard deviation of the grey cells: one colour all over, give or take compression
GREY = 2.0  # mean distance of R, G and B from each other: JPEG's colours of a grey image stay below
LARGEST = 1 << 30  # bytes of a file whose content is compared
SMALL = 4 * CELLS  # pixels a side that an image is reduced to before it is looked at
BLOCK = 256  # images compared with all others at a time: 20 MB for 20 000 others
PARTNERS = 8  # pairs kept of each image, the likest: the frames of a fixed camera are all alike
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".bmp": "BMP"}
FORMATS |= {".webp": "WEBP", ".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF"}


@dataclass(frozen=True)
class Looks:
    """What n of a split's images look like, as flat arrays."""

    total: int
    """Images in the split."""
    indices: NDArray[np.int64]  # (n,) places in the split, rising
    contents: NDArray[np.uint64]  # (n,) hash of the file's bytes
    cells: NDArray[np.float16]  # (n, 16, 16) grey, 0..255
    means: NDArray[np.float32]  # (n, 3) mean R, G and B, 0..255
    grey: NDArray[np.bool_]  # (n,) R, G and B are the same all over
    failed: tuple[tuple[int, str], ...] = ()
    """Images that cannot be decoded, and why."""
    disguised: tuple[tuple[int, str], ...] = ()
    """Images of another format than their name's ending says, and which."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def contrast(self) -> NDArray[np.float32]:
        """(n,) standard deviation of the grey cells, 0..127."""
        return self.cells.astype(np.float32).std(axis=(1, 2))

    @property
    def blank(self) -> NDArray[np.bool_]:
        """(n,) one colour all over."""
        return self.contrast < BLANK


@dataclass(frozen=True)
class Pairs:
    """P pairs of images that are the same file or look alike."""

    first: NDArray[np.int64]  # (P,) places in the one split
    second: NDArray[np.int64]  # (P,) places in the other split, or in the same one and then later than the first
    exact: NDArray[np.bool_]  # (P,) the files are the same, byte by byte
    likeness: NDArray[np.float32]  # (P,) 1 for copies

    def __len__(self) -> int:
        return len(self.first)


def look(
    data: DetectionData,
    indices: Sequence[int] | NDArray[np.int64] | None = None,
    on_progress: Progress | None = None,
    limit: int | None = None,
) -> Looks:
    """Decode images, small and in threads (1 to 3 ms each), and note what they look like.

    Args:
        indices: the images; all by default.
        on_progress: called with (images looked at, images in all) now and then.
        limit: look at no more than so many, evenly spread over ``indices``.
    """
    chosen = np.arange(len(data)) if indices is None else np.unique(np.asarray(indices, np.int64))
    chosen = chosen[spread(len(chosen), limit)]
    rows: list[tuple[int, int, NDArray[np.float16], NDArray[np.float32], bool]] = []
    failed, disguised = [], []
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        for done, (i, seen) in enumerate(zip(chosen.tolist(), pool.map(_look, map(data.path, chosen.tolist()))), 1):
            if on_progress and (done == len(chosen) or done % 64 == 0):
                on_progress(done, len(chosen))
            if isinstance(seen, str):
                failed.append((i, seen))
                continue
            rows.append((i, *seen[:4]))
            if seen[4]:
                disguised.append((i, seen[4]))
    return Looks(
        total=len(data),
        indices=np.array([row[0] for row in rows], np.int64),
        contents=np.array([row[1] for row in rows], np.uint64),
        cells=np.array([row[2] for row in rows], np.float16).reshape(-1, CELLS, CELLS),
        means=np.array([row[3] for row in rows], np.float32).reshape(-1, 3),
        grey=np.array([row[4] for row in rows], np.bool_),
        failed=tuple(failed),
        disguised=tuple(disguised),
    )


def _look(path: os.PathLike[str]) -> tuple[int, NDArray[np.float16], NDArray[np.float32], bool, str] | str:
    """Hash of the bytes, grey cells, mean colour, whether it is grey, its format if a false one; or what is wrong."""
    try:
        if os.path.getsize(path) > LARGEST:
            return f"it has more than {LARGEST} bytes"
        with open(path, "rb") as file:
            content = file.read()
        with image_io.opened(io.BytesIO(content)) as image:
            kind = image.format or ""
            orientation = image.getexif().get(image_io.ORIENTATION, 1) if "exif" in image.info else 1
            if kind == "JPEG":
                image.draft("RGB", (SMALL, SMALL))  # decodes at an eighth of the size, or a quarter, or a half
            small = to_rgb(image).resize((SMALL, SMALL), Image.Resampling.BOX, reducing_gap=2.0)
    except Exception as error:  # whatever a damaged file makes of a decoder
        return image_io.what_is_wrong(error)
    if orientation in image_io.UPRIGHT:
        small = small.transpose(image_io.UPRIGHT[orientation])
    pixels = np.asarray(small, np.float32).reshape(CELLS, SMALL // CELLS, CELLS, SMALL // CELLS, 3)
    colours = pixels.mean(axis=(1, 3))  # (16, 16, 3)
    grey = colours @ np.array([0.299, 0.587, 0.114], np.float32)
    colourless = bool(np.abs(pixels - pixels.mean(axis=-1, keepdims=True)).mean() * 1.5 < GREY)
    expected = FORMATS.get(os.path.splitext(path)[1].lower())
    true = kind if expected and kind not in (expected, "MPO") else ""
    digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
    return digest, grey.astype(np.float16), colours.mean(axis=(0, 1)), colourless, true


def slopes(cells: NDArray[np.float16]) -> NDArray[np.float32]:
    """(n, 16, 16) -> (n, 480): differences between neighbours, of length 1; all 0 for images that show too little."""
    grey = cells.astype(np.float32)
    across = np.diff(grey, axis=2).reshape(len(grey), -1)
    down = np.diff(grey, axis=1).reshape(len(grey), -1)
    vectors = np.concatenate([across, down], axis=1)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    shown = length >= FLAT * np.sqrt(vectors.shape[1])
    return np.where(shown, vectors / np.maximum(length, 1e-6), 0).astype(np.float32)


def near(one: Looks, other: Looks | None = None, alike: float = ALIKE) -> Pairs:
    """Pairs of images that are copies or look alike, within ``one`` or between ``one`` and ``other``.

    Each image of ``one`` is paired with the first of its copies and with at most 8 others, the likest; that is enough
    to know which have a partner, and to tie all that are alike into groups. 20 000 images are compared with each
    other in some 6 s on one core.
    """
    within, target = other is None, one if other is None else other
    a = slopes(one.cells)
    b = a if within else slopes(target.cells)
    rows, columns = _copies(one.contents, target.contents, within)
    likeness = np.ones(len(rows), np.float32)
    found = [(rows, columns, likeness)]
    for start in range(0, len(a), BLOCK):
        shift = start if within else 0
        product = a[start : start + BLOCK] @ b[shift:].T
        if within:  # each pair once, its later image second
            product[np.tril_indices(len(product))] = -1
        if product.shape[1] > PARTNERS:
            best = np.argpartition(product, -PARTNERS, axis=1)[:, -PARTNERS:]
        else:
            best = np.broadcast_to(np.arange(product.shape[1]), product.shape)
        scores = np.take_along_axis(product, best, 1)
        i, j = np.nonzero(scores >= alike)
        found.append((i + start, best[i, j] + shift, scores[i, j]))
    rows, columns, scores = (np.concatenate(parts) for parts in zip(*found))
    # Copies look alike too, but for those that show too little: each pair once, copies first.
    _, place = np.unique(rows * max(1, len(b)) + columns, return_index=True)
    exact = one.contents[rows[place]] == target.contents[columns[place]]
    return Pairs(
        first=one.indices[rows[place]],
        second=target.indices[columns[place]],
        exact=exact,
        likeness=np.where(exact, 1, np.minimum(scores[place], 1)).astype(np.float32),
    )


def _copies(a: NDArray[np.uint64], b: NDArray[np.uint64], within: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each value of a the first equal one of b; in ``within`` a is b, and the first comes first."""
    values, first = np.unique(b, return_index=True)
    if not len(values):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    place = np.minimum(np.searchsorted(values, a), len(values) - 1)
    rows = np.flatnonzero(values[place] == a)
    columns = first[place[rows]]
    if within:
        rows, columns = columns[columns < rows], rows[columns < rows]
    return rows.astype(np.int64), columns.astype(np.int64)


def groups(first: NDArray[np.int64], second: NDArray[np.int64]) -> list[list[int]]:
    """Sets of images that the pairs tie together, each rising, in the order of their first images (union-find)."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        while (up := parent.setdefault(i, i)) != i:
            parent[i] = parent[up]
            i = parent[i]
        return i

    for a, b in zip(first.tolist(), second.tolist()):
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    found: dict[int, list[int]] = {}
    for i in sorted(parent):
        found.setdefault(root(i), []).append(i)
    return [members for _, members in sorted(found.items())]
