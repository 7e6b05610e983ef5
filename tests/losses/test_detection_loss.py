"""The loss of a batch: levels, images and weights put together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.synthetic_data import ANCHORS, BOXES, LABELS, outputs
from retinanet import losses
from retinanet.common import threads
from retinanet.common.errors import RequestError
from retinanet.config.settings import LossSettings, MatchingSettings, OhemSettings
from retinanet.losses import ClassBalance, box_loss, class_balance, detection_loss, sigmoid_focal_loss
from retinanet.model import Outputs
from retinanet.ops.boxes import encode
from retinanet.ops.iou_assigner import match


@pytest.mark.parametrize("box", ["smooth_l1", "l1", "giou"])
def test_is_the_sum_over_images_levels_and_anchors(box: Any) -> None:
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


@pytest.mark.parametrize("ohem", [{}, {"batch": 40}])
def test_divided_image_by_image(ohem: dict[str, Any]) -> None:
    """The losses of the images as batches of their own, each divided by its positives, then averaged."""
    out = outputs()
    settings = LossSettings(normalizer="image", box_weight=2.5, ohem=OhemSettings(**ohem))
    boxes, labels = [BOXES[0], BOXES[1], BOXES[2][:0]], [LABELS[0], LABELS[1], LABELS[2][:0]]  # one without boxes
    flat, expected = torch.cat(ANCHORS), torch.zeros(2)
    for i in range(3):
        one = match(flat, boxes[i : i + 1], labels[i : i + 1], MatchingSettings())
        own = Outputs(*([level[i : i + 1] for level in levels] for levels in out))
        sums = detection_loss(own, one, ANCHORS, replace(settings, normalizer="batch"))
        expected += torch.stack(sums).detach() / one.num_positives.clamp(min=1) / 3
    targets = match(flat, boxes, labels, MatchingSettings())
    found = torch.stack(detection_loss(out, targets, ANCHORS, settings)) / losses.normalizer(targets, settings)
    torch.testing.assert_close(found.detach(), expected)
    whole = torch.stack(detection_loss(out, targets, ANCHORS, replace(settings, normalizer="batch")))
    assert not torch.allclose(whole / targets.num_positives, found)


@pytest.mark.parametrize("box", ["smooth_l1", "l1"])
def test_box_weights_multiply_both_offsets(box: Any) -> None:
    out, weights = outputs(), (10.0, 10.0, 5.0, 4.0)
    targets = match(torch.cat(ANCHORS), BOXES, LABELS, MatchingSettings())
    _, found = detection_loss(out, targets, ANCHORS, LossSettings(box=box), None, weights)
    flat = torch.cat(ANCHORS)
    deltas = torch.cat(list(out.deltas), dim=1).reshape(-1, 4)[targets.indices] * torch.tensor(weights)
    wanted = encode(targets.boxes, flat[targets.indices % len(flat)]) * torch.tensor(weights)
    function = F.l1_loss if box == "l1" else partial(F.smooth_l1_loss, beta=1 / 9)
    torch.testing.assert_close(found, function(deltas, wanted, reduction="sum"))


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
    deltas[targets.indices] = encode(targets.boxes, flat[targets.indices % len(flat)])
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


class NoAnswers(TorchDispatchMode):
    """Fails where a CPU would have to wait for a GPU's answer."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        asks = name in ("nonzero", "_local_scalar_dense", "masked_select", "equal", "bincount")
        assert not asks, f"{name} of {args[0].shape}"
        assert not by_mask or len(args[0]) <= 2, f"{name} of {args[0].shape} by a mask"  # not the boxes of an image
        return function(*args, **(kwargs or {}))


BY_CLASS = {"alphas": {"b": 0.6}, "class_weights": {"a": 3.0, "c": 0.5}}


@pytest.mark.parametrize("kind", ["focal", "focal_star", "hinge"])
@pytest.mark.parametrize("level", [torch.float32, torch.bfloat16])
def test_weights_of_classes_are_summed_on_a_gpu_without_waiting(
    monkeypatch: pytest.MonkeyPatch, kind: Any, level: torch.dtype
) -> None:
    """As a GPU runs them, in PyTorch's own operations, and with the results of a CPU."""
    settings = LossSettings(kind=kind, **BY_CLASS)  # type: ignore[arg-type]
    own = class_balance(settings, ("a", "b", "c"))
    targets = match(torch.cat(ANCHORS), BOXES, LABELS, MatchingSettings())
    wanted, found = outputs(level), outputs(level)
    expected = detection_loss(wanted, targets, ANCHORS, settings, own)[0]
    expected.backward()  # type: ignore[no-untyped-call]
    monkeypatch.setattr(threads, "asynchronous", lambda device: True)
    with NoAnswers():
        targets = match(torch.cat(ANCHORS), BOXES, LABELS, MatchingSettings())
        loss = detection_loss(found, targets, ANCHORS, settings, own)[0]
        loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, expected)
    for ours, theirs in zip(found.logits, wanted.logits):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_classes_of_their_own_reach_the_loss() -> None:
    targets = match(torch.cat(ANCHORS), BOXES, LABELS, MatchingSettings())
    settings = LossSettings(alpha=0.4, **BY_CLASS)  # type: ignore[arg-type]
    found = detection_loss(outputs(), targets, ANCHORS, settings, class_balance(settings, ("a", "b", "c")))
    same = detection_loss(
        outputs(),
        targets,
        ANCHORS,
        LossSettings(),
        ClassBalance(torch.tensor([0.4, 0.6, 0.4]), torch.tensor([3, 1, 0.5])),
    )
    assert [x.item() for x in found] == [x.item() for x in same]
    assert found[0].item() != pytest.approx(detection_loss(outputs(), targets, ANCHORS, LossSettings())[0].item(), 0.01)
    with pytest.raises(RequestError, match=r"^loss\.alphas: .*'b'"):
        detection_loss(outputs(), targets, ANCHORS, settings)


def test_training_on_a_gpu_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matching and losses as a GPU runs them, with the same results (the class loss's kernels stand for themselves)."""
    wanted_targets = match(torch.cat(ANCHORS), BOXES, LABELS, MatchingSettings())
    wanted = [outputs(), outputs()]
    for out, box in zip(wanted, ("smooth_l1", "giou")):
        sum(detection_loss(out, wanted_targets, ANCHORS, LossSettings(box=box)), torch.zeros(())).backward()  # type: ignore[arg-type]

    monkeypatch.setattr(threads, "asynchronous", lambda device: True)
    monkeypatch.setattr(losses, "sigmoid_focal_loss", lambda logits, labels, *_: logits.sum() * 0)
    found = [outputs(), outputs()]
    with NoAnswers():
        targets = match(torch.cat(ANCHORS), BOXES, LABELS, MatchingSettings())
        for out, box in zip(found, ("smooth_l1", "giou")):
            detection_loss(out, targets, ANCHORS, LossSettings(box=box))[1].backward()  # type: ignore[arg-type, no-untyped-call]
    assert torch.equal(targets.labels, wanted_targets.labels)
    for mine, other in zip(found, wanted):
        for ours, theirs in zip(mine.deltas, other.deltas):
            assert ours.grad is not None
            assert theirs.grad is not None
            torch.testing.assert_close(ours.grad, theirs.grad)
