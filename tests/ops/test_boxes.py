"""Box geometry against torchvision and its own inverses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision import ops

from retinanet.ops import boxes as geometry
from retinanet.ops.boxes import MAX_LOG_RATIO, area, clip, decode, encode, giou, intersection, iou


@st.composite
def boxes(draw: Any, smallest: float = 0.0) -> Tensor:
    """(n, 4) float32 boxes, n from 0 to 6, many of them with shared edges or (with ``smallest`` 0) empty.

    Sides are multiples of 2 ** -12: of areas that float32 cannot tell from 0 ours makes 0, and torchvision a quotient.
    """
    number = st.integers(0, 100 << 12).map(lambda steps: steps / 4096) | st.integers(0, 4).map(float)
    rows = draw(st.lists(st.tuples(number, number, number, number), max_size=6))
    corner = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return torch.cat((corner[:, :2], corner[:, :2] + corner[:, 2:] + smallest), dim=1)


@given(boxes(), boxes())
@settings(max_examples=100, deadline=None)
def test_pairs_like_torchvision(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(area(a), ops.box_area(a))
    found = iou(a, b)
    assert found.shape == (len(a), len(b))
    # torchvision divides 0 by 0 where both are empty
    torch.testing.assert_close(found, ops.box_iou(a, b).nan_to_num(0.0))
    assert ((found >= 0) & (found <= 1 + 1e-6)).all()
    torch.testing.assert_close(found, iou(b, a).T)
    inter = intersection(a, b)
    assert (inter <= torch.minimum(area(a)[:, None], area(b)[None]) * (1 + 1e-5)).all()


@given(boxes(smallest=0.5))
@settings(max_examples=50, deadline=None)
def test_a_box_overlaps_itself_wholly(a: Tensor) -> None:
    torch.testing.assert_close(iou(a, a).diagonal(), torch.ones(len(a)))
    torch.testing.assert_close(giou(a, a), torch.ones(len(a)))


@given(boxes(smallest=0.5), boxes(smallest=0.5))
@settings(max_examples=100, deadline=None)
def test_giou_like_torchvision(a: Tensor, b: Tensor) -> None:
    a, b = a[: len(b)], b[: len(a)]
    found = giou(a, b)
    torch.testing.assert_close(found, ops.generalized_box_iou(a, b).diagonal(), rtol=1e-4, atol=1e-5)
    assert (found >= -1 - 1e-6).all()


def test_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 2, 2]])
    assert area(a).item() == 4
    assert iou(a, torch.tensor([[1.0, 1, 3, 3]])).item() == pytest.approx(1 / 7)
    assert giou(a, torch.tensor([[1.0, 1, 3, 3]])).item() == pytest.approx(1 / 7 - 2 / 9)
    assert iou(a, torch.tensor([[2.0, 0, 4, 2]])).item() == 0  # an edge in common
    assert giou(a, torch.tensor([[4.0, 0, 6, 2]])).item() == pytest.approx(-1 / 3)


def test_degenerate_boxes() -> None:
    empty = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 5], [3, 3, 2, 2]])  # a point, a line, inside out
    assert area(empty).tolist() == [0, 0, 0]
    assert not iou(empty, empty).any()
    assert not iou(empty, torch.tensor([[0.0, 0, 9, 9]])).any()
    assert torch.isfinite(giou(empty[:2], empty[:2])).all()
    assert iou(torch.zeros((0, 4)), empty).shape == (0, 3)
    # so small that the area underflows, so large that it has few digits: never NaN, never above 1
    extreme = torch.tensor([[0, 0, 1e-30, 1e-30], [0, 0, 1e15, 1e15]])
    assert torch.isfinite(iou(extreme, extreme)).all()
    assert (iou(extreme, extreme) <= 1).all()


def test_inputs_are_left_alone() -> None:
    a, b = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3], [5, 5, 6, 6]])
    before = a.clone(), b.clone()
    for function in (intersection, iou, encode):
        function(a, b)
    geometry.clip(b, 2, 2)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


def test_encode_by_hand() -> None:
    anchor, box = torch.tensor([10.0, 20, 30, 60]), torch.tensor([15.0, 20, 55, 40])
    expected = [15 / 20, -10 / 40, math.log(40 / 20), math.log(20 / 40)]
    assert encode(box, anchor).tolist() == pytest.approx(expected)
    assert decode(torch.zeros(4), anchor).tolist() == anchor.tolist()


@given(boxes(smallest=0.5), boxes(smallest=0.5))
@settings(max_examples=100, deadline=None)
def test_decode_inverts_encode(a: Tensor, b: Tensor) -> None:
    a, b = a[: len(b)], b[: len(a)]
    a = a * torch.tensor(0.1)  # sides from 0.05 to 10, ratios up to 10 / 62.5 of the limit and beyond
    b = b + torch.tensor([0.0, 0, 5, 5])
    torch.testing.assert_close(decode(encode(a, b), b), a, rtol=1e-4, atol=1e-3)


@given(boxes(smallest=1), boxes(smallest=1))
@settings(max_examples=50, deadline=None)
def test_offsets_like_torchvision(a: Tensor, b: Tensor) -> None:
    from torchvision.models.detection._utils import BoxCoder

    a, b = a[: len(b)], b[: len(a)]
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    deltas = encode(a, b)
    torch.testing.assert_close(deltas, coder.encode_single(a, b), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decode(deltas * 2, b), coder.decode_single(deltas * 2, b), rtol=1e-4, atol=1e-3)


def test_decode_limits_growth() -> None:
    anchor = torch.tensor([0.0, 0, 16, 32])
    found = decode(torch.tensor([0.0, 0, 1000, 1000]), anchor)
    assert (found[2] - found[0]).item() == pytest.approx(1000, rel=1e-5)
    assert (found[3] - found[1]).item() == pytest.approx(2000, rel=1e-5)
    assert pytest.approx(math.log(62.5)) == MAX_LOG_RATIO
    assert torch.isfinite(decode(torch.full((4,), -1000.0), anchor)).all()


@given(boxes())
@settings(max_examples=50, deadline=None)
def test_clip_like_torchvision(a: Tensor) -> None:
    a = a - 30
    assert torch.equal(clip(a, 40, 25), ops.clip_boxes_to_image(a, (40, 25)))


def test_clip_each_image_to_its_own_size() -> None:
    a = torch.tensor([[-5.0, -5, 100, 100]]).expand(2, 3, 4)
    height, width = torch.tensor([[10], [20]]), torch.tensor([[30], [40]])
    found = clip(a, height, width)
    assert found[0, 2].tolist() == [0, 0, 30, 10]
    assert found[1, 0].tolist() == [0, 0, 40, 20]
