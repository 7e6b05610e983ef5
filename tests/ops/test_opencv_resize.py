"""Our resize against OpenCV's, bit by bit.

GOLDEN and SMALL were written by OpenCV itself, ``cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)`` on the
images of :func:`image`; 4.5.5, 4.8.1, 4.10.0, 4.13.0 and 5.0.0 (x86-64 wheels) gave the same bytes. Where OpenCV is
installed, it is asked again, for many sizes.
"""

from __future__ import annotations

import hashlib

import pytest
import torch
from torch import Tensor

from retinanet.ops.opencv_resize import resize

Size = tuple[int, int]

GOLDEN = {
    ((480, 640), (800, 1067)): "17b1f88ab890050f",
    ((640, 427), (1199, 800)): "737587c6bde7397b",
    ((600, 800), (200, 267)): "7f14224bf6731cd2",
    ((1200, 1601), (200, 267)): "d6e73a65b662c4bd",
    ((100, 150), (50, 75)): "f02cfe799a90de6f",
    ((100, 150), (50, 150)): "eb902a906c55f136",
    ((100, 150), (99, 151)): "84f5bb123b107a5a",
    ((7, 5), (113, 97)): "6feb95f6e2933fad",
    ((113, 97), (7, 5)): "02f5931c0d9f23d0",
    ((1, 9), (31, 77)): "8c23156fb2207f22",
    ((9, 1), (31, 77)): "1a122d17d08cd68b",
    ((64, 64), (1, 1)): "2c8d07cd986f58eb",
    ((1, 1), (5, 3)): "448992a6f68d2dbb",
    ((37, 53), (1, 200)): "38967efb16f59cf0",
    ((400, 1000), (533, 1333)): "79b2b7c100b5b6e5",
}
"""(height, width) before, after: the beginning of the SHA-256 of the result's bytes, rows of pixels of three values."""

SMALL = (
    ([[0, 255], [10, 20]], [[0, 64, 191, 255], [5, 38, 104, 138], [10, 12, 17, 20]]),
    ([[1, 2, 3, 4], [5, 6, 7, 9]], [[4, 6]]),
    ([[200, 10, 30, 77, 255]], [[136, 30, 195], [136, 30, 195]]),
    ([[3], [250], [17]], [[3], [102], [250], [110], [17]]),
)
"""Before and after, the only channel of each."""


def make_image(height: int, width: int) -> Tensor:
    """(3, height, width) uint8: gradients, hard edges and what looks like noise, by whole-number arithmetic alone."""
    y, x, c = torch.meshgrid(torch.arange(height), torch.arange(width), torch.arange(3), indexing="ij")
    noise = (x * 73 + y * 151 + c * 57 + x * y * 13 + x * x * y * 7) % 256
    edges = ((x // 5 + y // 3 + c) % 2) * 255
    pixels = torch.where((x + y) % 11 < 6, noise, edges)
    return pixels.to(torch.uint8).permute(2, 0, 1).contiguous()


def digest(image: Tensor) -> str:
    return hashlib.sha256(image.permute(1, 2, 0).contiguous().numpy().tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(("before", "after"), GOLDEN, ids=lambda size: "x".join(map(str, size)))
def test_golden(before: Size, after: Size) -> None:
    found = resize(make_image(*before), after)
    assert found.dtype == torch.uint8
    assert found.shape == (3, *after)
    assert digest(found) == GOLDEN[before, after]


@pytest.mark.parametrize(("before", "after"), SMALL)
def test_small_images(before: list[list[int]], after: list[list[int]]) -> None:
    image = torch.tensor(before, dtype=torch.uint8)[None]
    assert resize(image, (len(after), len(after[0])))[0].tolist() == after


def test_the_layout_in_memory_does_not_matter() -> None:
    image = make_image(75, 101)
    last = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for size in ((130, 33), (20, 150), (75, 101)):
        assert torch.equal(resize(image, size), resize(last, size))
        assert torch.equal(resize(image, size), torch.cat([resize(channel[None], size) for channel in image]))


def test_the_image_given_stays_as_it_is() -> None:
    image = make_image(40, 60)
    for size in ((20, 30), (13, 17), (100, 90)):
        resize(image, size)
    assert torch.equal(image, make_image(40, 60))


@pytest.mark.parametrize("thousand", range(3))
def test_opencv_itself(thousand: int) -> None:
    cv2 = pytest.importorskip("cv2")
    generator = torch.Generator().manual_seed(thousand)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    for case in range(200):
        before = [(draw(1, 12), draw(1, 12)), (draw(1, 300), draw(1, 300)), (draw(100, 700), draw(100, 700))][case % 3]
        after = [
            (draw(1, 300), draw(1, 300)),
            (max(1, before[0] // 2), max(1, before[1] // 2)),
            (before[0] * 2, before[1] * draw(1, 3)),
            (draw(1, 12), draw(1, 12)),
        ][case % 4]
        image = torch.randint(0, 256, (3, *before), dtype=torch.uint8, generator=generator)
        pixels = image.permute(1, 2, 0).contiguous().numpy()
        expected = torch.from_numpy(cv2.resize(pixels, after[::-1], interpolation=cv2.INTER_LINEAR))
        assert torch.equal(resize(image, after), expected.permute(2, 0, 1)), (before, after)
