"""The loss of a batch: levels, pictures and weights put together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from retinanet.anchors import make_anchors
from retinanet.boxes import encode
from retinanet.config import AnchorSettings, LossSettings, MatchingSettings
from retinanet.losses import box_loss, detection_loss, sigmoid_focal_loss
from retinanet.matching import match
from retinanet.model import Outputs

CLASSES = 3
ANCHORS = make_anchors(AnchorSettings(), 64, 96, torch.device("cpu"))
BOXES = [torch.tensor([[4.0, 4, 40, 40], [10, 20, 90, 60]]), torch.zeros((0, 4)), torch.tensor([[30.0, 0, 64, 64]])]
LABELS = [torch.tensor([2, 0]), torch.zeros(0, dtype=torch.int64), torch.tensor([1])]


def outputs(dtype: torch.dtype = torch.float32) -> Outputs:
    generator = torch.Generator().manual_seed(0)
    return Outputs(
        *(
            [torch.randn((3, len(a), n), generator=generator).to(dtype).requires_grad_() for a in ANCHORS]
            for n in (CLASSES, 4)
        )
    )


@pytest.mark.parametrize("box", ["smooth_l1", "l1", "giou"])
def test_is_the_sum_over_pictures_levels_and_anchors(box: Any) -> None:
    out, settings = outputs(), LossSettings(gamma=1.5, alpha=0.4, box=box, beta=0.3, box_weight=2.5)
    targets = match(torch.cat(ANCHORS), BOXES, LABELS, MatchingSettings())
    assert targets.num_positives > 5
    class_loss, regression = detection_loss(out, targets, ANCHORS, settings)

    expected = torch.zeros(2)
    flat = torch.cat(ANCHORS)
    for i in range(3):
        logits, deltas = (torch.cat([level[i] for level in levels]) for levels in out)
        one = match(flat, BOXES[i : i + 1], LABELS[i : i + 1], MatchingSettings())
        positive = one.labels[0] >= 0
        expected[0] += sigmoid_focal_loss(logits, one.labels[0], 1.5, 0.4).detach()
        expected[1] += 2.5 * box_loss(deltas[positive], flat[positive], one.boxes, box, 0.3).detach()
    torch.testing.assert_close(torch.stack((class_loss, regression)).detach(), expected)
    assert class_loss.shape == regression.shape == ()


def test_gradients_reach_only_what_takes_part() -> None:
    out = outputs()
    targets = match(torch.cat(ANCHORS), BOXES, LABELS, MatchingSettings())
    sum(detection_loss(out, targets, ANCHORS, LossSettings()), torch.zeros(())).backward()
    logits, deltas = (torch.cat([level.grad for level in levels if level.grad is not None], dim=1) for levels in out)
    assert torch.equal(deltas.ne(0).any(dim=2), targets.labels >= 0)
    assert torch.equal(logits.ne(0).any(dim=2), targets.labels != -2)
    assert (targets.labels == -2).any()


def test_without_any_box_only_the_class_loss_remains() -> None:
    out = outputs()
    none = [torch.zeros((0, 4))] * 3, [torch.zeros(0, dtype=torch.int64)] * 3
    class_loss, regression = detection_loss(
        out, match(torch.cat(ANCHORS), *none, MatchingSettings()), ANCHORS, LossSettings()
    )
    assert class_loss > 0
    assert regression.item() == 0
    (class_loss + regression).backward()
    assert all(level.grad is not None and not level.grad.any() for level in out.deltas)
    assert all(level.grad is not None and (level.grad != 0).all() for level in out.logits)


def test_exact_boxes_have_no_box_loss() -> None:
    targets = match(torch.cat(ANCHORS), BOXES, LABELS, MatchingSettings())
    flat = torch.cat(ANCHORS)
    deltas = torch.zeros((3 * len(flat), 4))
    deltas[targets.positives] = encode(targets.boxes, flat[targets.positives % len(flat)])
    exact = list(deltas.reshape(3, len(flat), 4).split([len(a) for a in ANCHORS], dim=1))
    _, regression = detection_loss(Outputs(outputs().logits, exact), targets, ANCHORS, LossSettings())
    assert regression.item() == pytest.approx(0, abs=1e-9)


def test_is_float32_for_a_bfloat16_network() -> None:
    targets = match(torch.cat(ANCHORS), BOXES, LABELS, MatchingSettings())

    def losses(out: Outputs) -> Tensor:
        return torch.stack(detection_loss(out, targets, ANCHORS, LossSettings())).detach()

    narrow = outputs(torch.bfloat16)
    wide = Outputs(*([level.detach().float() for level in levels] for levels in narrow))
    assert losses(narrow).dtype == torch.float32
    torch.testing.assert_close(losses(narrow), losses(wide), rtol=1e-6, atol=0)
