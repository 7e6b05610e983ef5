"""Matching against a plain search over all pairs, and against torchvision's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.ops import box_iou

from retinanet.common import threads
from retinanet.config.model_settings import AnchorSettings
from retinanet.config.settings import MatchingSettings
from retinanet.ops import iou_assigner_fast
from retinanet.ops.anchors import make_anchors
from retinanet.ops.iou_assigner import match, match_reference

ANCHORS = torch.cat(make_anchors(AnchorSettings(sizes=(16, 32, 64, 128, 256)), 64, 64, torch.device("cpu")))
PAPER, LOW = MatchingSettings(), MatchingSettings(low_quality=True)


@st.composite
def images(draw: Any) -> tuple[Tensor, Tensor]:
    """Boxes (n, 4) and labels (n,); among them small ones, copies, ignore regions and boxes off the grid."""
    seed, count = draw(st.integers(0, 2**31)), draw(st.integers(0, 8))
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((count, 2), generator=generator) * 60 - 2
    size = torch.rand((count, 2), generator=generator) ** 2 * 60 + 0.5
    boxes = torch.cat((corner, corner + size), dim=1)
    if draw(st.booleans()):
        boxes = torch.cat((boxes, boxes[:2], torch.tensor([[900.0, 900, 950, 950]])))
    labels = torch.randint(0, 5, (len(boxes),), generator=generator)
    labels[torch.rand(len(boxes), generator=generator) < 0.2] = -2
    return boxes, labels


def plain(anchors: Tensor, boxes: Tensor, labels: Tensor, settings: MatchingSettings) -> tuple[list[int], list[int]]:
    """Label of every anchor, and the index of its box among ``boxes`` (-1: none)."""
    truth = [i for i, label in enumerate(labels.tolist()) if label >= 0]
    overlap = box_iou(boxes, anchors).nan_to_num(0.0).tolist()
    shared = (boxes[:, None, 2:].minimum(anchors[:, 2:]) - boxes[:, None, :2].maximum(anchors[:, :2])).clamp(min=0)
    inside = (shared.prod(dim=2) / (anchors[:, 2:] - anchors[:, :2]).prod(dim=1)).tolist()
    result, chosen = [], []
    for a in range(len(anchors)):
        box = max(truth, key=lambda i: overlap[i][a], default=-1)  # the first of equals
        best = overlap[box][a] if truth else 0.0
        promoted = settings.low_quality and any(overlap[i][a] == max(overlap[i]) > 0 for i in truth)
        if truth and (best >= settings.foreground or promoted):
            result.append(int(labels[box]))
            chosen.append(box)
            continue
        chosen.append(-1)
        if best >= settings.background:
            result.append(-2)
        else:
            covered = any(inside[i][a] >= 0.5 for i in range(len(boxes)) if labels[i] == -2)
            result.append(-2 if covered else -1)
    return result, chosen


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize("thresholds", [(0.5, 0.4), (0.5, 0.5), (0.7, 0.3)])
@given(batch=st.lists(images(), min_size=1, max_size=3))
@settings(max_examples=12, deadline=None)
def test_plain_search(batch: list[tuple[Tensor, Tensor]], thresholds: tuple[float, float], low_quality: bool) -> None:
    rules = MatchingSettings(*thresholds, low_quality)
    anchors = ANCHORS[::3]
    expected = [plain(anchors, boxes, labels, rules) for boxes, labels in batch]
    for image, wanted in zip(batch, expected):
        assert tuple(found.tolist() for found in match_reference(anchors, *image, rules)) == wanted
    for way in ("as it is", "in small chunks", "as on a GPU"):
        with pytest.MonkeyPatch.context() as patch:
            if way == "in small chunks":
                patch.setattr(iou_assigner_fast, "CHUNK", 37)
                patch.setattr(iou_assigner_fast, "CACHED_OVERLAPS", 74)  # boxes two by two
            if way == "as on a GPU":
                patch.setattr(threads, "asynchronous", lambda device: True)
                patch.setattr(iou_assigner_fast, "MOST_OVERLAPS", 2 * len(anchors))
            targets = match(anchors, [b for b, _ in batch], [n for _, n in batch], rules)
        assert targets.labels.tolist() == [labels for labels, _ in expected]
        pairs = [(i, a, box) for i, (_, chosen) in enumerate(expected) for a, box in enumerate(chosen) if box >= 0]
        positive = targets.labels.flatten()[targets.indices] >= 0
        assert targets.indices[positive].tolist() == [i * len(anchors) + a for i, a, _ in pairs]
        assert targets.boxes[positive].tolist() == [batch[i][0][box].tolist() for i, _, box in pairs]
        others = targets.indices[~positive] % len(anchors)
        assert torch.equal(targets.boxes[~positive], anchors[others])
        assert len(targets.indices) == (targets.labels.numel() if way == "as on a GPU" else len(pairs))
        assert targets.num_positives.item() == len(pairs)
        assert targets.num_positives.shape == ()
        assert targets.num_positives.dtype == torch.float32


@pytest.mark.parametrize("low_quality", [False, True])
@given(image=images())
@settings(max_examples=30, deadline=None)
def test_torchvisions_matcher(low_quality: bool, image: tuple[Tensor, Tensor]) -> None:
    from torchvision.models.detection._utils import Matcher

    boxes, labels = image
    boxes = boxes[box_iou(boxes, ANCHORS).amax(dim=1) > 0]  # others make all anchors positive there
    labels = labels[: len(boxes)].abs()
    if len(boxes) == 0:
        return
    found = Matcher(0.5, 0.4, allow_low_quality_matches=low_quality)(box_iou(boxes, ANCHORS))
    expected = torch.where(found >= 0, labels[found.clamp(min=0)], found)  # -1 background, -2 between
    targets = match(ANCHORS, [boxes], [labels], MatchingSettings(low_quality=low_quality))
    assert torch.equal(targets.labels[0], expected)
    assert torch.equal(targets.boxes, boxes[found[found >= 0]])


def test_thresholds_are_the_papers() -> None:
    """IoU 0.5 is positive, just below it ignored; 0.4 ignored, just below it background."""
    anchors = torch.tensor([[0.0, 0, width, 10] for width in (5, 4.99, 4, 3.99, 10, 0.5)])
    targets = match(anchors, [torch.tensor([[0.0, 0, 10, 10]])], [torch.tensor([3])], PAPER)
    assert targets.labels.tolist() == [[3, -2, -2, -1, 3, -1]]


def test_first_of_equal_boxes_wins() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    targets = match(box, [box.repeat(3, 1)], [torch.tensor([4, 1, 0])], PAPER)
    assert targets.labels.tolist() == [[4]]


@pytest.mark.parametrize("rules", [PAPER, LOW])
def test_no_boxes(rules: MatchingSettings) -> None:
    nothing = torch.zeros((0, 4)), torch.zeros(0, dtype=torch.int64)
    targets = match(ANCHORS, [nothing[0]] * 2, [nothing[1]] * 2, rules)
    assert targets.labels.shape == (2, len(ANCHORS))
    assert (targets.labels == -1).all()
    assert targets.num_positives == 0
    assert targets.boxes.shape == (0, 4)
    assert targets.indices.shape == (0,)


def test_boxes_that_touch_no_anchor() -> None:
    """A best overlap of 0 is shared with nearly every anchor: promoting them all would ruin the step."""
    boxes = torch.tensor([[5000.0, 5000, 5100, 5100], [10, 10, 10, 10], [10, 10, 30, 26]])
    labels = torch.tensor([0, 1, 2])
    alone = match(ANCHORS, [boxes[:2]], [labels[:2]], LOW)
    assert alone.num_positives == 0
    assert (alone.labels == -1).all()
    together, normal = match(ANCHORS, [boxes], [labels], LOW), match(ANCHORS, [boxes[2:]], [labels[2:]], LOW)
    assert torch.equal(together.labels, normal.labels)
    assert normal.num_positives > 0


def test_low_quality_gives_a_tiny_box_its_best_anchors() -> None:
    box, label = torch.tensor([[30.0, 30, 33, 33]]), torch.tensor([1])
    assert match(ANCHORS, [box], [label], PAPER).num_positives == 0
    targets = match(ANCHORS, [box], [label], LOW)
    overlap = box_iou(box, ANCHORS)[0]
    assert torch.equal(targets.labels[0] == 1, overlap == overlap.max())


def test_crowd_regions() -> None:
    """Background with half of its area in one region is left out; positives are not, nor is any region a truth."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [5.1, 0, 15.1, 10], [100, 0, 110, 10], [100, 0, 104, 10]])
    boxes = torch.tensor([[0.0, 0, 10, 10], [99, 0, 110, 10], [100, 0, 110, 10]])
    targets = match(anchors, [boxes], [torch.tensor([-2, -2, 7])], PAPER)
    assert targets.labels.tolist() == [[-2, -2, -1, 7, -2]]
    targets = match(anchors, [boxes[:1]], [torch.tensor([-2])], LOW)  # regions alone
    assert targets.labels.tolist() == [[-2, -2, -1, -1, -1]]


class Largest(TorchDispatchMode):
    """Elements of the largest new tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(result) if isinstance(t, Tensor)]
        self.size = max([self.size, *sizes])
        return result


@pytest.mark.parametrize("label", [0, -2])
def test_memory_is_bounded(label: int, set_threads: Any) -> None:
    """200 000 anchors and 1000 boxes: their 200 million overlaps never exist together."""
    set_threads(1)  # operations are watched in the calling thread alone
    anchors = torch.cat(make_anchors(AnchorSettings(), 800, 1344, torch.device("cpu")))
    assert len(anchors) > 200_000
    torch.manual_seed(0)
    count = 1000 if label == 0 else 300
    corner = torch.rand(count, 2) * torch.tensor([1200.0, 700])
    boxes = torch.cat((corner, corner + torch.rand(count, 2) * 200 + 4), dim=1)
    with Largest() as made:
        targets = match(anchors, [boxes], [torch.full((count,), label)], LOW)
    assert made.size <= 5_000_000  # 20 MB of float32
    if label == 0:
        assert 10_000 < targets.num_positives < 100_000
    else:
        assert targets.num_positives == 0
        assert (targets.labels == -2).any()
