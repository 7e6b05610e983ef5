"""The box losses against torch, torchvision and their formulas."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from retinanet.losses import box_loss
from retinanet.ops.boxes import decode, encode

KINDS = ("smooth_l1", "l1", "giou")


def rows(count: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted offsets, anchors and boxes."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((2, count, 2), generator=generator, dtype=dtype) * 50
    size = torch.rand((2, count, 2), generator=generator, dtype=dtype) * 100 + 10
    anchors, boxes = torch.cat((corner, corner + size), dim=-1)
    return torch.randn((count, 4), generator=generator, dtype=dtype) / 2, anchors, boxes


@given(st.integers(0, 20), st.integers(0, 10**6), st.floats(0.01, 3))
@settings(max_examples=40, deadline=None)
def test_smooth_l1(count: int, seed: int, beta: float) -> None:
    deltas, anchors, boxes = rows(count, seed)
    difference = (deltas - encode(boxes, anchors)).abs()
    expected = torch.where(difference < beta, difference**2 / (2 * beta), difference - beta / 2).sum()
    torch.testing.assert_close(box_loss(deltas, anchors, boxes, "smooth_l1", beta), expected)


def test_smooth_l1_at_the_papers_beta() -> None:
    """One coordinate off by 0.05 lies in the quadratic part, by 0.5 in the linear one."""
    _, anchors, boxes = rows(1)
    for off, expected in ((0.05, 4.5 * 0.05**2), (0.5, 0.5 - 1 / 18)):
        deltas = encode(boxes, anchors) + torch.tensor([0, off, 0, 0])
        assert float(box_loss(deltas, anchors, boxes, "smooth_l1")) == pytest.approx(expected)


@given(st.integers(0, 20), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_l1_and_giou(count: int, seed: int) -> None:
    deltas, anchors, boxes = rows(count, seed)
    expected = F.l1_loss(deltas, encode(boxes, anchors), reduction="sum")
    torch.testing.assert_close(box_loss(deltas, anchors, boxes, "l1"), expected)
    expected = generalized_box_iou_loss(decode(deltas, anchors), boxes, reduction="sum")
    torch.testing.assert_close(box_loss(deltas, anchors, boxes, "giou"), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: Any) -> None:
    deltas, anchors, boxes = rows(7)
    assert torch.autograd.gradcheck(lambda d: box_loss(d, anchors, boxes, kind), (deltas.requires_grad_(),))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_lose(kind: Any) -> None:
    _, anchors, boxes = rows(5, dtype=torch.float32)
    exact = encode(boxes, anchors).requires_grad_()
    loss = box_loss(exact, anchors, boxes, kind)
    assert loss.item() == pytest.approx(0, abs=1e-5)

    empty = torch.zeros((0, 4), requires_grad=True)
    loss = box_loss(empty, torch.zeros((0, 4)), torch.zeros((0, 4)), kind)
    assert loss.shape == ()
    assert loss.item() == 0
    loss.backward()
    assert empty.grad is not None
    assert empty.grad.shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [-200.0, -20.0, 20.0, 200.0])
def test_wild_predictions_stay_finite(kind: Literal["smooth_l1", "l1", "giou"], value: float) -> None:
    """At -200 the decoded box is a point, at 200 it is limited to 62.5 anchors."""
    _, anchors, boxes = rows(3, dtype=torch.float32)
    deltas = torch.full((3, 4), value, requires_grad=True)
    loss = box_loss(deltas, anchors, boxes, kind)
    loss.backward()
    assert torch.isfinite(loss)
    assert deltas.grad is not None
    assert torch.isfinite(deltas.grad).all()
