"""Sizes, resizing, padding and normalisation."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from retinanet.config.bounds import Interpolation
from retinanet.config.model_settings import PreprocessingSettings
from retinanet.ops.resize import (
    box_scale,
    normalize,
    pad_batch,
    padded_size,
    resize_bilinear,
    resize_image,
    resize_reference,
    resized_size,
)

PAPER = PreprocessingSettings()
TORCHVISION = PreprocessingSettings(rounding="down", interpolation="plain")
SIDES = st.integers(1, 8000)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((500, 500), (800, 800)),
        ((1600, 1601), (800, 801)),  # 800.5, not rounded to even
        ((400, 1000), (533, 1333)),  # the longer side decides
        ((1, 1), (800, 800)),
        ((8000, 8000), (800, 800)),
        ((8000, 1), (1333, 1)),  # never no pixel at all
        ((1, 8000), (1, 1333)),
    ],
)
def test_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_size(*size, PAPER) == expected
    assert resized_size(*size, replace(PAPER, resize="none")) == size


@given(SIDES, SIDES, st.sampled_from([(800, 1333), (600, 1000), (200, 333)]))
@example(480, 640, (800, 1333))
@settings(max_examples=100, deadline=None)
def test_torchvisions_sizes(height: int, width: int, limits: tuple[int, int]) -> None:
    from torchvision.models.detection.transform import _resize_image_and_masks

    try:
        resized, _ = _resize_image_and_masks(torch.empty((3, height, width), device="meta"), *map(float, limits))
        expected = tuple(resized.shape[1:])
    except (RuntimeError, ZeroDivisionError):  # torchvision fails where a side becomes 0; ours keeps a pixel
        expected = (1, 1)
    rules = replace(TORCHVISION, size=limits[0], longer=limits[1])
    found = resized_size(height, width, rules)
    assert found == expected or (1 in found and min(found) == 1)


@given(SIDES, SIDES, st.integers(1, 2000))
@settings(max_examples=100)
def test_limits(height: int, width: int, size: int) -> None:
    h, w = resized_size(height, width, PAPER, size)
    assert min(h, w) >= 1
    assert min(h, w) <= size
    assert max(h, w) <= round(1333 * size / 800) + 1
    assert min(h, w) == size or abs(max(h, w) - 1333 * size / 800) <= 1
    assert (h >= w) == (height >= width) or h == w
    assert resized_size(width, height, PAPER, size) == (w, h)
    h, w = resized_size(height, width, replace(PAPER, resize="square"), size)
    assert max(h, w) == size


def test_resize_is_pillows_bilinear() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    for size in ((20, 31), (120, 180), (60, 45), (1, 1), (40, 1), (1, 40), (7, 2)):
        found = resize_bilinear(image, size)
        assert found.dtype == torch.uint8
        expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
        difference = found.permute(1, 2, 0).int() - torch.from_numpy(expected.copy()).int()
        assert difference.abs().max() <= 1


def test_resize_without_antialiasing() -> None:
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    plain = torch.nn.functional.interpolate(image[None].float(), size=(13, 17), mode="bilinear")[0]
    assert torch.equal(resize_bilinear(image, (13, 17), "plain"), plain.round().to(torch.uint8))
    halved = replace(TORCHVISION, size=20)
    expected = torch.nn.functional.interpolate(image[None].float(), size=(20, 30), mode="bilinear")[0]
    assert torch.equal(resize_image(image, halved), expected)
    assert torch.equal(
        resize_image(image, replace(halved, interpolation="opencv")), resize_bilinear(image, (20, 30), "opencv")
    )


@pytest.mark.parametrize("size", [(23, 31), (50, 70), (7, 100), (1, 1), (100, 9)])
@pytest.mark.parametrize(("interpolation", "levels"), [("antialias", 1), ("pillow", 1), ("plain", 0.51), ("opencv", 1)])
def test_resized_as_by_the_formula(size: tuple[int, int], interpolation: Interpolation, levels: float) -> None:
    image = torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = resize_reference(image, size, antialias=interpolation in ("antialias", "pillow"))
    assert (resize_bilinear(image, size, interpolation) - expected).abs().max() <= levels


@given(SIDES, SIDES)
@example(427, 640)
@example(480, 640)
@settings(max_examples=50, deadline=None)
def test_detectrons_scale(height: int, width: int) -> None:
    rules = replace(PAPER, rounding="detectron", interpolation="plain", size=200, longer=333)
    scale = 200 / min(height, width)
    if np.round(scale * max(height, width)) > 333:
        scale = 333 / max(height, width)
    expected = tuple(max(1, int(np.round(side * scale))) for side in (height, width))
    assert resized_size(height, width, rules) == expected
    assert box_scale((height, width), expected, rules) == (scale, scale)


@given(SIDES, SIDES)
@example(44, 88)
@settings(max_examples=50, deadline=None)
def test_detectron2s_sizes(height: int, width: int) -> None:
    """The shorter side first, then the limit on the longer one."""
    scale = 800 / min(height, width)
    sides = (800, scale * width) if height < width else (scale * height, 800)
    if max(sides) > 1333:
        sides = tuple(side * (1333 / max(sides)) for side in sides)  # type: ignore[assignment]
    found = resized_size(height, width, replace(PAPER, rounding="detectron2"))
    assert found == tuple(max(1, int(side + 0.5)) for side in sides)
    if (height, width) == (44, 88):
        assert found == (666, 1333)
        assert resized_size(height, width, PAPER) == (667, 1333)


def test_resize_by_pillow_itself() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    for size in ((20, 31), (120, 180), (1, 40), (60, 90)):
        expected = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
        assert np.array_equal(resize_bilinear(image, size, "pillow").permute(1, 2, 0).numpy(), expected)


def test_detectron_samples_with_its_scale_rather_than_the_ratio_of_the_sizes() -> None:
    # Of a ramp in x the value at x is that of its place: (x + 0.5) / scale - 0.5, whatever the width is rounded to.
    ramp = torch.arange(100, dtype=torch.uint8).expand(3, 60, 100).contiguous()
    rules = replace(PAPER, rounding="detectron", interpolation="plain", size=37)  # 61.67 becomes 62
    found = resize_image(ramp, rules)
    assert found.shape == (3, 37, 62)
    places = ((torch.arange(62) + 0.5) * 60 / 37 - 0.5).clamp(max=99)
    assert torch.allclose(found[0, 0], places, atol=1e-4)
    assert not torch.allclose(resize_image(ramp, replace(rules, rounding="nearest"))[0, 0], places, atol=1e-1)


def test_resize_to_the_same_size_changes_nothing() -> None:
    image = torch.randint(0, 256, (3, 40, 60), dtype=torch.uint8)
    assert torch.equal(resize_bilinear(image, (40, 60)), image)
    for rules in (replace(PAPER, resize="none"), replace(PAPER, size=40, interpolation="opencv")):
        assert torch.equal(resize_image(image, rules), image)
    same = resize_image(image, replace(TORCHVISION, size=40))
    assert torch.equal(same, image.float())
    assert same.dtype == torch.float32


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1)])
def test_resize_of_the_smallest_images(size: tuple[int, int]) -> None:
    image = torch.full((3, *size), 77, dtype=torch.uint8)
    target = resized_size(*size, PAPER, 64)
    for interpolation in get_args(Interpolation):
        found = resize_bilinear(image, target, interpolation)
        assert found.shape[1:] == target
        assert (found == 77).all()


def test_padding() -> None:
    assert padded_size([(800, 1067)], PAPER) == (800, 1088)
    assert padded_size([(800, 600), (533, 1333), (1, 1)], PAPER) == (800, 1344)
    assert padded_size([(1, 1)], PAPER) == (32, 32)
    assert padded_size([(800, 1067)], replace(PAPER, multiple=128)) == (896, 1152)
    square = replace(PAPER, resize="square", size=500)
    assert padded_size([(500, 20), (20, 30)], square) == (512, 512)
    assert padded_size([(30, 20)], square) == (512, 512)
    assert padded_size([(600, 20)], square) == (608, 608)  # drawn larger by an augmentation

    images = [torch.randint(1, 256, (3, *size), dtype=torch.uint8) for size in ((5, 7), (9, 2))]
    batch = pad_batch(images, (32, 32))
    assert batch.shape == (2, 3, 32, 32)
    assert batch.dtype == torch.uint8
    for slot, image in zip(batch, images):
        h, w = image.shape[1:]
        assert torch.equal(slot[:, :h, :w], image)
        assert slot.long().sum() == image.long().sum()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalize(dtype: torch.dtype) -> None:
    """Padding is 0 after normalisation, whatever lies in it before."""
    images = torch.randint(0, 256, (2, 3, 32, 64)).to(dtype).contiguous(memory_format=torch.channels_last)
    before = images.clone()
    sizes = torch.tensor([[32, 10], [7, 64]])
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = normalize(images, sizes, mean, std)
    assert torch.equal(images, before)
    assert found.dtype == torch.float32
    assert found.is_contiguous(memory_format=torch.channels_last)
    expected = (images / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    for one, wanted, (h, w) in zip(found, expected, sizes.tolist()):
        torch.testing.assert_close(one[:, :h, :w], wanted[:, :h, :w], rtol=1e-5, atol=1e-5)
        assert one.count_nonzero() <= 3 * h * w
        assert not one[:, h:].any()
        assert not one[:, :, w:].any()
