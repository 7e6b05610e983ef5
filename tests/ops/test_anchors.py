"""The anchor grid: the paper's numbers, and torchvision's under its convention."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from retinanet.config.model_settings import AnchorSettings
from retinanet.ops.anchors import cell_anchors, grid_shapes, make_anchors
from retinanet.ops.boxes import area

CPU = torch.device("cpu")
TORCHVISION = AnchorSettings(offset=0.0, rounding="torchvision", strides="torchvision")


@pytest.mark.parametrize("level", range(5))
def test_the_papers_nine_anchors(level: int) -> None:
    """Areas (32 * 2^level)^2 times 1, 2^(2/3), 2^(4/3); heights half, once and twice the widths; one centre."""
    anchors = cell_anchors(AnchorSettings(), level).double()
    assert anchors.shape == (9, 4)
    base = 32.0 * 2**level
    expected = torch.tensor([(base * 2 ** (i / 3)) ** 2 for i in range(3)] * 3, dtype=torch.float64)
    torch.testing.assert_close(area(anchors), expected, rtol=1e-5, atol=0)
    ratios = (anchors[:, 3] - anchors[:, 1]) / (anchors[:, 2] - anchors[:, 0])
    torch.testing.assert_close(ratios, torch.tensor([0.5] * 3 + [1.0] * 3 + [2.0] * 3, dtype=torch.float64))
    assert (anchors[:, :2] == -anchors[:, 2:]).all()


def test_counts_and_order() -> None:
    """One level after another, positions row by row, the anchors of a position side by side."""
    levels = make_anchors(AnchorSettings(), 800, 1344, CPU)
    assert [len(a) for a in levels] == [9 * n for n in (100 * 168, 50 * 84, 25 * 42, 13 * 21, 7 * 11)]
    for level, (anchors, (h, w), stride) in enumerate(zip(levels, grid_shapes(800, 1344), (8, 16, 32, 64, 128))):
        assert anchors.dtype == torch.float32
        grid = anchors.reshape(h, w, 9, 4)
        centres = (grid[..., :2] + grid[..., 2:]) / 2
        x = (torch.arange(w) + 0.5) * stride
        y = (torch.arange(h) + 0.5) * stride
        torch.testing.assert_close(centres[..., 0], x[None, :, None].expand(h, w, 9), rtol=0, atol=1e-3)
        torch.testing.assert_close(centres[..., 1], y[:, None, None].expand(h, w, 9), rtol=0, atol=1e-3)
        corner = torch.tensor([x[0], y[0]]).repeat(2)
        torch.testing.assert_close(grid[0, 0] - corner, cell_anchors(AnchorSettings(), level), rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (800, 1216), (832, 1344), (1344, 800), (1088, 480)])
def test_grid_is_the_networks(size: tuple[int, int]) -> None:
    """Five convolutions of stride 2 lead to C5, two more to P7."""
    x, shapes = torch.zeros((1, 1, *size)), []
    halve = nn.Conv2d(1, 1, 3, stride=2, padding=1)
    for step in range(7):
        x = halve(x)
        if step >= 2:
            shapes.append(tuple(x.shape[2:]))
    assert grid_shapes(*size) == shapes
    assert [len(a) for a in make_anchors(AnchorSettings(), *size, CPU)] == [9 * h * w for h, w in shapes]


@pytest.mark.parametrize("size", [(32, 32), (128, 256), (800, 1216), (800, 1344), (832, 1344), (480, 1088)])
def test_torchvisions_grid(size: tuple[int, int]) -> None:
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    sizes = tuple((x, int(x * 2 ** (1.0 / 3)), int(x * 2 ** (2.0 / 3))) for x in (32, 64, 128, 256, 512))
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    maps = [torch.zeros((1, 1, *shape)) for shape in grid_shapes(*size)]
    (expected,) = generator(ImageList(torch.zeros((1, 3, *size)), [size]), maps)
    assert torch.equal(torch.cat(make_anchors(TORCHVISION, *size, CPU)), expected)


@pytest.mark.parametrize("level", range(3, 8))
def test_detectrons_anchors(level: int) -> None:
    """Sides of whole pixels at the stride's own size, found with inclusive corners as Detectron finds them."""
    stride = 2**level
    settings = AnchorSettings(rounding="detectron")
    middle, expected = (stride - 1) / 2, []
    for ratio in (0.5, 1.0, 2.0):
        width = round((stride * stride / ratio) ** 0.5)
        height = round(width * ratio)
        for octave in range(3):
            scale = 4 * 2 ** (octave / 3)
            first = [middle - (side * scale - 1) / 2 for side in (width, height)]
            last = [middle + (side * scale - 1) / 2 for side in (width, height)]
            expected.append([first[0], first[1], last[0] + 1, last[1] + 1])
    found = make_anchors(settings, 256, 256, CPU)[level - 3][:9]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-4)
    exact = make_anchors(AnchorSettings(), 256, 256, CPU)[level - 3][:9]
    assert (found - exact).abs().max() > 0.1


def test_other_settings() -> None:
    settings = AnchorSettings(sizes=(8, 16, 32, 64, 128), scales=(1.0, 1.5), ratios=(3.0,), offset=0.0)
    anchors = cell_anchors(settings, 0).double()
    torch.testing.assert_close(area(anchors), torch.tensor([64.0, 144.0], dtype=torch.float64))
    first = make_anchors(settings, 64, 64, CPU)[0]
    assert len(first) == 8 * 8 * 2
    assert ((first[0, :2] + first[0, 2:]) / 2).tolist() == [0, 0]


def test_made_once() -> None:
    first = make_anchors(AnchorSettings(), 96, 64, CPU)
    assert make_anchors(AnchorSettings(), 96, 64, CPU) is first
    assert make_anchors(AnchorSettings(), 64, 96, CPU) is not first


def test_usable_in_training_when_first_made_in_inference() -> None:
    """The cache is shared: what prediction leaves in it, the next training step differentiates through."""
    with torch.inference_mode():
        make_anchors(AnchorSettings(), 160, 32, CPU)
    (anchors, *_) = make_anchors(AnchorSettings(), 160, 32, CPU)
    scale = torch.ones((), requires_grad=True)
    (anchors * scale).sum().backward()
    assert scale.grad is not None
