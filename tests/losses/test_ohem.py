"""Hard example mining against a plain implementation: one sorted list, one loop over it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers.synthetic_data import ANCHORS, BOXES, LABELS, outputs
from retinanet.common.fields import SettingsError
from retinanet.config.settings import LossSettings, MatchingSettings, OhemSettings
from retinanet.losses import ClassBalance, class_loss, detection_loss, hardest
from retinanet.losses import ohem as module
from retinanet.ops import boxes as geometry
from retinanet.ops.iou_assigner import match


def plain(losses: Tensor, labels: Tensor, anchors: Tensor, s: OhemSettings) -> list[int]:
    order = sorted((i for i in range(len(losses)) if labels[i] != -2), key=lambda i: (-losses[i].item(), i))
    overlap = geometry.iou(anchors, anchors)
    kept: list[int] = []
    for i in order:
        if all(overlap[i, j] <= s.nms for j in kept):
            kept.append(i)
    assert s.batch is not None
    if s.negatives is None:
        return kept[: s.batch]
    wanted = -(-s.batch // (1 + s.negatives))
    positives = [i for i in kept if labels[i] >= 0][: int(wanted)]
    negatives = [i for i in kept if labels[i] < 0][: int(len(positives) * s.negatives)]
    return [i for i in kept if i in positives or i in negatives]


@st.composite
def images(draw: Any) -> tuple[Tensor, Tensor, Tensor]:
    count = draw(st.integers(0, 60))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    corner = torch.rand((count, 2), generator=generator) * 40
    anchors = torch.cat((corner, corner + 5 + torch.rand((count, 2), generator=generator) * 25), dim=1)
    labels = torch.randint(-2, draw(st.integers(0, 4)), (count,), generator=generator)
    losses = torch.rand(count, generator=generator)
    if draw(st.booleans()):
        losses = (losses * 4).round()  # equal ones
    return losses, labels, anchors


@settings(max_examples=300)
@given(images(), st.integers(1, 20), st.sampled_from([0.3, 0.5, 0.7, 1.0]), st.sampled_from([None, 1.0, 3.0]))
def test_takes_what_the_plain_loop_takes(
    image: tuple[Tensor, Tensor, Tensor], batch: int, nms: float, negatives: float | None
) -> None:
    rules = OhemSettings(batch, nms, negatives)
    assert hardest(*image, rules).tolist() == plain(*image, rules)


@pytest.mark.parametrize("negatives", [None, 3.0])
def test_looking_at_some_first_changes_nothing(monkeypatch: pytest.MonkeyPatch, negatives: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand((400, 2), generator=generator) * 30
    anchors = torch.cat((corner, corner + 20), dim=1)
    labels = torch.randint(-2, 3, (400,), generator=generator)
    losses = torch.rand(400, generator=generator)
    rules = OhemSettings(12, 0.5, negatives)
    monkeypatch.setattr(module, "FIRST", 1)
    assert hardest(losses, labels, anchors, rules).tolist() == plain(losses, labels, anchors, rules)


def test_loss_of_a_batch_is_that_of_the_mined_anchors() -> None:
    out = outputs()
    rules = LossSettings(gamma=0.0, alpha=None, ohem=OhemSettings(batch=7, nms=0.5))
    targets = match(torch.cat(ANCHORS), BOXES, LABELS, MatchingSettings())
    found, _ = detection_loss(out, targets, ANCHORS, rules)
    logits = torch.cat(list(out.logits), dim=1)
    wanted = torch.zeros(())
    for i in range(3):
        losses = torch.stack([class_loss(row, label, rules) for row, label in zip(logits[i], targets.labels[i])])
        places = plain(losses.detach(), targets.labels[i], torch.cat(ANCHORS), rules.ohem)
        wanted = wanted + class_loss(logits[i, places], targets.labels[i, places], rules)
    torch.testing.assert_close(found, wanted)

    found.backward()  # type: ignore[no-untyped-call]
    gradient = torch.cat([level.grad for level in out.logits if level.grad is not None], dim=1)
    assert gradient.ne(0).any(dim=2).sum(dim=1).tolist() == [7, 7, 7]


@pytest.mark.parametrize("kind", ["focal", "hinge"])
def test_mining_ranks_by_the_loss_of_classes_with_weights(kind: Any) -> None:
    """Of a class that counts nothing no anchor is hard, and nothing is learnt."""
    out, rules = outputs(), LossSettings(kind=kind, ohem=OhemSettings(batch=7, nms=0.5))
    own = ClassBalance(torch.tensor([0.25, 0.5, 0.9]), torch.tensor([1.0, 0.0, 3.0]))
    targets = match(torch.cat(ANCHORS), BOXES, LABELS, MatchingSettings())
    found, _ = detection_loss(out, targets, ANCHORS, rules, own)
    logits = torch.cat(list(out.logits), dim=1)
    wanted = torch.zeros(())
    for i in range(3):
        losses = torch.stack([class_loss(row, label, rules, own) for row, label in zip(logits[i], targets.labels[i])])
        places = plain(losses.detach(), targets.labels[i], torch.cat(ANCHORS), rules.ohem)
        wanted = wanted + class_loss(logits[i, places], targets.labels[i, places], rules, own)
    torch.testing.assert_close(found, wanted)
    found.backward()  # type: ignore[no-untyped-call]
    gradient = torch.cat([level.grad for level in out.logits if level.grad is not None], dim=1)
    assert gradient.ne(0).flatten(0, 1).any(0).tolist() == [True, False, True]


def test_image_without_boxes_gives_nothing_under_a_ratio() -> None:
    labels = torch.full((5,), -1)
    assert len(hardest(torch.rand(5), labels, torch.rand(5, 4).cumsum(1), OhemSettings(4, 1.0, 3.0))) == 0


def test_ratio_needs_a_batch() -> None:
    with pytest.raises(SettingsError, match=r"loss\.ohem\.batch"):
        OhemSettings(negatives=3.0)
