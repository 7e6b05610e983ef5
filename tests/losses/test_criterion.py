"""A criterion whose losses or matching are functions of the user's own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.synthetic_data import ANCHORS, BOXES, LABELS, outputs
from retinanet.common.errors import RequestError
from retinanet.config.settings import LossSettings, MatchingSettings
from retinanet.losses import Criterion, box_loss, sigmoid_focal_loss
from retinanet.model import Outputs
from retinanet.ops.iou_assigner import Targets, match_reference

FLAT = torch.cat(ANCHORS)
SETTINGS = LossSettings(box_weight=2.5)


def losses(criterion: Criterion, labels: Any = LABELS) -> tuple[Tensor, Tensor, Targets, Outputs]:
    """Class loss, box loss, targets, and the outputs with their gradients."""
    out = outputs()
    for tensor in (*out.logits, *out.deltas):
        tensor.detach_().requires_grad_()
    targets = criterion.match(FLAT, BOXES, labels)
    class_loss, regression = criterion(out, targets, ANCHORS)
    (class_loss + regression).backward()
    return class_loss.detach(), regression.detach(), targets, out


def crowded() -> list[Tensor]:
    """The labels with a region to ignore in each image."""
    changed = [labels.clone() for labels in LABELS]
    for labels in changed:
        labels[:1] = -2
    return changed


def by_reference(anchors: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    """The built-in rule as a function of the user's own."""
    found, indices = match_reference(anchors, boxes, labels, MatchingSettings())
    return torch.where(found < 0, found, indices)


@pytest.mark.parametrize("normalizer", ["batch", "image"])
def test_the_built_in_parts_given_as_functions_change_nothing(normalizer: Any) -> None:
    settings = replace(SETTINGS, normalizer=normalizer)
    own = Criterion(
        settings,
        loss=sigmoid_focal_loss,
        box_loss=partial(box_loss, kind="smooth_l1"),
        matcher=by_reference,
    )
    for labels in (LABELS, crowded()):
        expected, found = losses(Criterion(settings), labels), losses(own, labels)
        assert torch.equal(found[2].labels, expected[2].labels)
        assert torch.equal(found[2].boxes, expected[2].boxes)
        assert found[2].num_positives == expected[2].num_positives > 3
        assert (expected[2].labels == -2).any()
        for mine, built_in in zip(found[:2], expected[:2]):
            torch.testing.assert_close(mine, built_in)
        for mine, built_in in zip((*found[3].logits, *found[3].deltas), (*expected[3].logits, *expected[3].deltas)):
            torch.testing.assert_close(mine.grad, built_in.grad)


def test_what_the_functions_get() -> None:
    seen: dict[str, Any] = {}

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        seen["class"] = (logits, labels)
        return logits.sum()

    def boxes(deltas: Tensor, anchors: Tensor, truth: Tensor) -> Tensor:
        seen["box"] = (deltas, anchors, truth)
        return deltas.abs().sum()

    own = Criterion(SETTINGS, loss=loss, box_loss=boxes)
    narrow = Outputs(*([level.bfloat16() for level in levels] for levels in outputs()))
    targets = own.match(FLAT, BOXES, LABELS)
    own(narrow, targets, ANCHORS)
    logits, labels = seen["class"]
    assert logits.dtype == torch.float32
    assert logits.shape == (int((targets.labels != -2).sum()), narrow.logits[0].shape[-1])
    assert labels.min() == -1
    assert torch.equal(labels, targets.labels[targets.labels != -2])
    deltas, anchors, truth = seen["box"]
    assert deltas.shape == anchors.shape == truth.shape == (int(targets.num_positives), 4)
    assert torch.equal(anchors, FLAT.repeat(3, 1)[targets.labels.view(-1) >= 0])


def test_without_positives_the_box_loss_is_not_called() -> None:
    def mean(deltas: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
        return (deltas - 1).abs().mean()  # NaN for no anchors

    for normalizer in ("batch", "image"):
        own = Criterion(replace(SETTINGS, normalizer=normalizer), box_loss=mean)  # type: ignore[arg-type]
        targets = own.match(FLAT, [box[:0] for box in BOXES], [label[:0] for label in LABELS])
        out = outputs()
        for tensor in out.deltas:
            tensor.requires_grad_()
        _, regression = own(out, targets, ANCHORS)
        assert regression == 0
        regression.backward()


def test_a_module_is_a_function_too() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return self.scale * sigmoid_focal_loss(logits, labels)

    own = Criterion(loss=Scaled())
    assert not list(own.parameters())
    assert losses(own)[0] == pytest.approx(2 * losses(Criterion())[0].item())


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"loss": lambda x, y: x}, ["loss=", "shape ()", "float32 of shape"]),
        ({"loss": lambda x, y: 1.5}, ["loss=", "1.5"]),
        ({"loss": lambda x, y: x.argmax()}, ["loss=", "int64"]),
        ({"loss": lambda x, y: x.detach().sum()}, ["loss=", "gradient"]),
        ({"box_loss": lambda d, a, b: (d - a).abs().sum(1)}, ["box_loss=", "shape ()"]),
        ({"box_loss": lambda d, a, b: b.sum()}, ["box_loss=", "gradient"]),
        ({"matcher": lambda a, b, n: [0]}, ["matcher=", "[0]"]),
        ({"matcher": lambda a, b, n: a[:, 0]}, ["matcher=", "float32"]),
        ({"matcher": lambda a, b, n: n}, ["matcher=", f"({len(FLAT)},)"]),
        ({"matcher": lambda a, b, n: torch.full((len(a),), len(b))}, ["matcher=", "boxes"]),
        ({"matcher": lambda a, b, n: torch.full((len(a),), -3)}, ["matcher=", "-3"]),
    ],
)
def test_a_wrong_result_is_one_line(part: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(RequestError) as error:
        losses(Criterion(**part))
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_torchvisions_matcher() -> None:
    """The example of the module: torchvision's rule without its low-quality matches is ours."""
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    rule = Matcher(0.5, 0.4)
    own = Criterion(matcher=lambda anchors, boxes, labels: rule(box_iou(boxes, anchors)))
    found, expected = own.match(FLAT, BOXES, LABELS), Criterion().match(FLAT, BOXES, LABELS)
    assert torch.equal(found.labels, expected.labels)
    assert torch.equal(found.boxes, expected.boxes)
