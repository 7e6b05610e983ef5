"""Copies and near-duplicates among images, and figures of their pixels: colours, contrast, damaged files.

Two images are similar if their brightness rises and falls at the same positions. An image becomes a vector of length 1:
the 480 differences between neighbouring cells of a 16 x 16 grey image. The product of two such vectors is their
similarity, from -1 to 1. Unlike a hash of signs, this works for images that are mostly flat (a clear sky, the glass of
a microscope), because small differences count little. All pairs are one matrix product, computed in blocks.
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
"""Images are compared as CELLS x CELLS cells. That is fine enough that images of one kind (blood cells on the same
glass) differ, and coarse enough that compression and resizing make no difference."""
SIMILAR = 0.75
"""Similarity from which images count as near-duplicates. On BCCD, COCO128 and tiny COCO different images reach 0.47 at
most. JPEG at quality 30, half the size, a gamma of 0.7 and a blur of 2 pixels together leave 0.96 at least, a crop of
2 % at each side 0.79."""
FLAT = 1.5
"""Root mean square of the differences, in grey levels of 0..255, below which an image shows too little to be compared.
Such images are only compared byte by byte."""
BLANK = 1.0  # standard deviation of the grey cells of an image of one colour; compression adds a little
GREY = 2.0  # mean distance of R, G and B from each other: JPEG's colours of a grey image stay below
LARGEST = 1 << 30  # bytes: larger files are not read
SMALL = 4 * CELLS  # pixels a side to which an image is reduced first
BLOCK = 256  # images that are compared with all others at a time: 20 MB for 20 000 others
PARTNERS = 8  # the most similar pairs that are kept of each image: the frames of a fixed camera are all similar
FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG", ".bmp": "BMP"}
FORMATS |= {".webp": "WEBP", ".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF"}


@dataclass(frozen=True)
class ImageFigures:
    """Figures of the pixels of n of a split's images, as flat arrays."""

    total: int
    """Number of images in the split."""
    indices: NDArray[np.int64]  # (n,) indices of the images in the split, ascending
    contents: NDArray[np.uint64]  # (n,) hash of the file's bytes
    cells: NDArray[np.float16]  # (n, 16, 16) grey, 0..255
    means: NDArray[np.float32]  # (n, 3) mean R, G and B, 0..255
    grey: NDArray[np.bool_]  # (n,) R, G and B are the same everywhere
    failed: tuple[tuple[int, str], ...] = ()
    """Images that cannot be decoded, each with the reason."""
    other_format: tuple[tuple[int, str], ...] = ()
    """Images whose format does not agree with their suffix, each with the format."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def contrast(self) -> NDArray[np.float32]:
        """(n,) standard deviation of the grey cells, 0..127."""
        return self.cells.astype(np.float32).std(axis=(1, 2))

    @property
    def blank(self) -> NDArray[np.bool_]:
        """(n,) the image has one colour everywhere."""
        return self.contrast < BLANK


@dataclass(frozen=True)
class Pairs:
    """P pairs of images that are the same file or similar."""

    first: NDArray[np.int64]  # (P,) indices in the first split
    second: NDArray[np.int64]  # (P,) indices in the second split; within one split larger than those of ``first``
    exact: NDArray[np.bool_]  # (P,) the files are the same, byte by byte
    similarity: NDArray[np.float32]  # (P,) 1 for copies

    def __len__(self) -> int:
        return len(self.first)


def inspect_images(
    data: DetectionData,
    indices: Sequence[int] | NDArray[np.int64] | None = None,
    on_progress: Progress | None = None,
    limit: int | None = None,
) -> ImageFigures:
    """Decode images at a small size, in threads (1 to 3 ms each), and return their figures.

    Args:
        indices: the images; all by default.
        on_progress: called with (images inspected, all images) now and then.
        limit: inspect at most this many, evenly spread over ``indices``.
    """
    chosen = np.arange(len(data)) if indices is None else np.unique(np.asarray(indices, np.int64))
    chosen = chosen[spread(len(chosen), limit)]
    rows: list[tuple[int, int, NDArray[np.float16], NDArray[np.float32], bool]] = []
    failed, other_format = [], []
    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool:
        for done, (i, figures) in enumerate(
            zip(chosen.tolist(), pool.map(_inspect, map(data.path, chosen.tolist()))), 1
        ):
            if on_progress and (done == len(chosen) or done % 64 == 0):
                on_progress(done, len(chosen))
            if isinstance(figures, str):
                failed.append((i, figures))
                continue
            rows.append((i, *figures[:4]))
            if figures[4]:
                other_format.append((i, figures[4]))
    return ImageFigures(
        total=len(data),
        indices=np.array([row[0] for row in rows], np.int64),
        contents=np.array([row[1] for row in rows], np.uint64),
        cells=np.array([row[2] for row in rows], np.float16).reshape(-1, CELLS, CELLS),
        means=np.array([row[3] for row in rows], np.float32).reshape(-1, 3),
        grey=np.array([row[4] for row in rows], np.bool_),
        failed=tuple(failed),
        other_format=tuple(other_format),
    )


def _inspect(path: os.PathLike[str]) -> tuple[int, NDArray[np.float16], NDArray[np.float32], bool, str] | str:
    """Hash of the bytes, grey cells, mean colour, whether it is grey, its format if the suffix is wrong.

    A string instead is the reason why the image cannot be decoded.
    """
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
    except Exception as error:  # decoders raise nearly anything for a damaged file
        return image_io.why_unreadable(error)
    if orientation in image_io.UPRIGHT:
        small = small.transpose(image_io.UPRIGHT[orientation])
    pixels = np.asarray(small, np.float32).reshape(CELLS, SMALL // CELLS, CELLS, SMALL // CELLS, 3)
    colours = pixels.mean(axis=(1, 3))  # (16, 16, 3)
    grey = colours @ np.array([0.299, 0.587, 0.114], np.float32)
    colourless = bool(np.abs(pixels - pixels.mean(axis=-1, keepdims=True)).mean() * 1.5 < GREY)
    expected = FORMATS.get(os.path.splitext(path)[1].lower())
    other = kind if expected and kind not in (expected, "MPO") else ""
    digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
    return digest, grey.astype(np.float16), colours.mean(axis=(0, 1)), colourless, other


def gradients(cells: NDArray[np.float16]) -> NDArray[np.float32]:
    """(n, 16, 16) -> (n, 480) differences between neighbours, as vectors of length 1; zeros for flat images."""
    grey = cells.astype(np.float32)
    across = np.diff(grey, axis=2).reshape(len(grey), -1)
    down = np.diff(grey, axis=1).reshape(len(grey), -1)
    vectors = np.concatenate([across, down], axis=1)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    shown = length >= FLAT * np.sqrt(vectors.shape[1])
    return np.where(shown, vectors / np.maximum(length, 1e-6), 0).astype(np.float32)


def similar_pairs(split: ImageFigures, other: ImageFigures | None = None, least: float = SIMILAR) -> Pairs:
    """Pairs of images that are copies or near-duplicates, within ``split`` or between ``split`` and ``other``.

    Each image of ``split`` is paired with the first of its copies and with at most 8 others, the most similar. That is
    enough to know which images have a partner, and to group them. 20 000 images are compared with each other in about
    6 s on one core.
    """
    within, target = other is None, split if other is None else other
    a = gradients(split.cells)
    b = a if within else gradients(target.cells)
    rows, columns = _copies(split.contents, target.contents, within)
    blocks = [(rows, columns, np.ones(len(rows), np.float32))]
    for start in range(0, len(a), BLOCK):
        shift = start if within else 0
        product = a[start : start + BLOCK] @ b[shift:].T
        if within:  # each pair once, the image with the larger index second
            product[np.tril_indices(len(product))] = -1
        if product.shape[1] > PARTNERS:
            best = np.argpartition(product, -PARTNERS, axis=1)[:, -PARTNERS:]
        else:
            best = np.broadcast_to(np.arange(product.shape[1]), product.shape)
        scores = np.take_along_axis(product, best, 1)
        i, j = np.nonzero(scores >= least)
        blocks.append((i + start, best[i, j] + shift, scores[i, j]))
    rows, columns, scores = (np.concatenate(arrays) for arrays in zip(*blocks))
    # Copies are similar too, unless they are flat. Each pair is kept once, copies first.
    _, kept = np.unique(rows * max(1, len(b)) + columns, return_index=True)
    exact = split.contents[rows[kept]] == target.contents[columns[kept]]
    return Pairs(
        first=split.indices[rows[kept]],
        second=target.indices[columns[kept]],
        exact=exact,
        similarity=np.where(exact, 1, np.minimum(scores[kept], 1)).astype(np.float32),
    )


def _copies(a: NDArray[np.uint64], b: NDArray[np.uint64], within: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each value of a, the first equal value of b: indices (n,) into a and b. ``within``: a is b."""
    values, first = np.unique(b, return_index=True)
    if not len(values):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    nearest = np.minimum(np.searchsorted(values, a), len(values) - 1)
    rows = np.flatnonzero(values[nearest] == a)
    columns = first[nearest[rows]]
    if within:
        rows, columns = columns[columns < rows], rows[columns < rows]
    return rows.astype(np.int64), columns.astype(np.int64)


def connected_groups(first: NDArray[np.int64], second: NDArray[np.int64]) -> list[list[int]]:
    """Groups of images that are connected by pairs, each ascending, ordered by their first image (union-find)."""
    parent: dict[int, int] = {}

    def root(i: int) -> int:
        while (up := parent.setdefault(i, i)) != i:
            parent[i] = parent[up]
            i = parent[i]
        return i

    for a, b in zip(first.tolist(), second.tolist()):
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    groups: dict[int, list[int]] = {}
    for i in sorted(parent):
        groups.setdefault(root(i), []).append(i)
    return [members for _, members in sorted(groups.items())]
