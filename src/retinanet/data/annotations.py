"""The annotations of a split as flat arrays, and what becomes of its boxes when the images are resized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from retinanet.config.model_settings import PreprocessingSettings
from retinanet.ops.resize import resized_size


@dataclass(frozen=True)
class Annotations:
    """N images and the M boxes in them. The boxes are in the order of their images. Not to be written to."""

    path_bytes: NDArray[np.uint8]
    """The encoded paths of all images, one after the other: forked processes share an array, not a list."""
    path_offsets: NDArray[np.int64]  # (N + 1,) where each path starts in path_bytes
    ids: NDArray[np.int64]  # (N,) COCO's image id, or a number that stands for it
    sizes: NDArray[np.int32]  # (N, 2) height and width of the decoded image
    exif: NDArray[np.bool_]  # (N,) whether the image is rotated as its EXIF orientation says
    offsets: NDArray[np.int64]  # (N + 1,) index of each image's first box
    boxes: NDArray[np.float32]  # (M, 4) x1 y1 x2 y2 in pixels of the decoded image
    labels: NDArray[np.int32]  # (M,) class from 0
    crowds: NDArray[np.bool_]  # (M,) regions to ignore
    areas: NDArray[np.float64]  # (M,) square pixels
    listed: NDArray[np.int32]  # (N,) index of each image in the listing that the reader made
    references: NDArray[np.int64]  # (M,) number by which the reader names each box

    @property
    def images(self) -> NDArray[np.int64]:
        """(M,) index of each box's image."""
        return np.repeat(np.arange(len(self.sizes)), np.diff(self.offsets))

    @property
    def paths(self) -> list[str]:
        content = self.path_bytes.tobytes()
        return [content[start:end].decode("utf-8", "surrogateescape") for start, end in pairwise(self.path_offsets)]

    def path(self, index: int) -> str:
        start, end = self.path_offsets[index], self.path_offsets[index + 1]
        return self.path_bytes[start:end].tobytes().decode("utf-8", "surrogateescape")

    def take(self, indices: NDArray[np.int64]) -> Annotations:
        """The images with these indices, in this order, with their boxes."""
        counts = np.diff(self.offsets)[indices]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        boxes = np.arange(offsets[-1]) + np.repeat(self.offsets[indices] - offsets[:-1], counts)
        path_bytes, path_offsets = packed_paths([self.path(i) for i in indices.tolist()])
        return Annotations(
            path_bytes=path_bytes,
            path_offsets=path_offsets,
            offsets=offsets,
            **{name: getattr(self, name)[indices] for name in ("ids", "sizes", "exif", "listed")},
            **{name: getattr(self, name)[boxes] for name in ("boxes", "labels", "crowds", "areas")},
            references=self.references[boxes] if len(self.references) else self.references,
        )


def packed_paths(paths: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """``path_bytes`` and ``path_offsets`` of :class:`Annotations`."""
    encoded = [path.encode("utf-8", "surrogateescape") for path in paths]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)])


def resized_sizes(sizes: NDArray[np.int32], settings: PreprocessingSettings) -> NDArray[np.int32]:
    """(N, 2) heights and widths of images -> (N, 2) heights and widths after resizing, before padding."""
    keys, inverse = np.unique(sizes[:, 0].astype(np.int64) << 32 | sizes[:, 1], return_inverse=True)
    resized = [resized_size(key >> 32, key & 0xFFFFFFFF, settings) for key in keys.tolist()]  # once for equal sizes
    return np.array(resized, np.int32).reshape(-1, 2)[inverse]


def resized_boxes(annotations: Annotations, settings: PreprocessingSettings) -> NDArray[np.float32]:
    """(M, 4) all boxes in pixels of the resized images."""
    sizes = annotations.sizes
    scale = (resized_sizes(sizes, settings) / sizes).astype(np.float32)[:, [1, 0, 1, 0]]  # (N, 4)
    return annotations.boxes * scale[annotations.images]
