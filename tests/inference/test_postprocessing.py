"""Post-processing against the plain algorithm, with Python loops over levels, images and classes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import nms

from retinanet.config.model_settings import AnchorSettings, PostprocessingSettings
from retinanet.inference.postprocessing import postprocess, postprocess_reference
from retinanet.model import Outputs
from retinanet.ops.anchors import make_anchors
from retinanet.ops.boxes import decode, iou

Found = list[tuple[Tensor, Tensor, Tensor]]
ANCHORS = make_anchors(AnchorSettings(), 64, 96, torch.device("cpu"))


def outputs(batch: int, classes: int, seed: int = 0, shift: float = -3.0, anchors: Any = ANCHORS) -> Outputs:
    """Normal logits without two that are nearly equal: their order must not depend on the last digit."""
    generator = torch.Generator().manual_seed(seed)
    counts = [len(a) * classes for a in anchors]
    shares = (torch.arange(sum(counts)) + 0.5) / sum(counts)
    spaced = torch.distributions.Normal(shift, 1.5).icdf(shares)
    images = torch.stack([spaced[torch.randperm(len(spaced), generator=generator)] for _ in range(batch)])
    return Outputs(
        [part.reshape(batch, -1, classes) for part in images.split(counts, dim=1)],
        [torch.randn((batch, len(a), 4), generator=generator) / 3 for a in anchors],
    )


def suppress(boxes: Tensor, scores: Tensor, limit: float) -> list[int]:
    """Greedy non-maximum suppression: indices of what remains, the best first."""
    order = torch.sort(scores, descending=True, stable=True).indices.tolist()
    overlap = iou(boxes.double(), boxes.double()).tolist()
    kept: list[int] = []
    for i in order:
        if all(overlap[i][j] <= limit for j in kept):
            kept.append(i)
    return kept


def bounded(box: Tensor, height: float, width: float) -> Tensor:
    return box.clamp(min=0).minimum(torch.tensor([width, height, width, height]))


def plain(
    out: Outputs, sizes: Tensor, rules: PostprocessingSettings, anchors: Any = ANCHORS, scale: float = 1.0
) -> Found:
    results = []
    for image, (height, width) in enumerate(sizes.tolist()):
        boxes, scores, labels = [], [], []
        for number, (logits, deltas, level) in enumerate(zip(out.logits, out.deltas, anchors)):
            threshold = rules.threshold
            if rules.coarsest_threshold is not None and number == len(anchors) - 1:
                threshold = rules.coarsest_threshold
            score = torch.sigmoid(logits[image]).flatten()
            pairs = torch.sort(score, descending=True, stable=True).indices[: rules.candidates].tolist()
            for pair in pairs:
                if score[pair] > threshold:
                    row, label = divmod(pair, logits.shape[2])
                    delta = deltas[image, row].clone()
                    if rules.limit_shrinking:
                        delta[2:] = delta[2:].clamp(min=-math.log(62.5))
                    box = decode(delta, level[row])
                    if rules.inclusive:  # in pixels of the image as it was given
                        last = ((box[2:] - 1) / scale).clamp(min=0).minimum(torch.tensor([width, height]) / scale - 1)
                        first = (box[:2] / scale).clamp(min=0).minimum(torch.tensor([width, height]) / scale - 1)
                        box = torch.cat((first, last + 1)) * scale
                    elif rules.clip == "before":
                        box = bounded(box, height, width)
                    if rules.clip == "before" and rules.drop_empty and not (box[2:] > box[:2]).all():
                        continue
                    boxes.append(box)
                    scores.append(score[pair])
                    labels.append(label)
        kept = []
        for label in sorted(set(labels)) if rules.nms == "class" else [None] if labels else []:
            mine = [i for i, n in enumerate(labels) if label is None or n == label]
            remaining = suppress(
                torch.stack([boxes[i] for i in mine]), torch.stack([scores[i] for i in mine]), rules.nms_iou
            )
            kept += [mine[i] for i in remaining]
        kept = sorted(kept, key=lambda i: (-float(scores[i]), i))[: rules.max_detections]
        if rules.clip == "after":
            boxes = [bounded(box, height, width) for box in boxes]
            kept = [i for i in kept if not rules.drop_empty or (boxes[i][2:] > boxes[i][:2]).all()]
        results.append(
            (
                torch.stack([boxes[i] for i in kept]) if kept else torch.zeros((0, 4)),
                torch.tensor([float(scores[i]) for i in kept]),
                torch.tensor([labels[i] for i in kept], dtype=torch.int64),
            )
        )
    return results


def by_reference(
    out: Outputs, sizes: Tensor, rules: PostprocessingSettings, anchors: Any = ANCHORS, scale: float = 1.0
) -> Found:
    """As :func:`plain`, by the algorithm that stands beside the fast one."""
    images = (Outputs(*([level[i] for level in levels] for levels in out)) for i in range(len(sizes)))
    scales = torch.full((2,), scale)
    return [
        postprocess_reference(image, anchors, size, rules, scales) for image, size in zip(images, sizes, strict=True)
    ]


def assert_same(found: Found, expected: Found) -> None:
    assert len(found) == len(expected)
    for (boxes, scores, labels), (e_boxes, e_scores, e_labels) in zip(found, expected):
        assert labels.tolist() == e_labels.tolist()
        torch.testing.assert_close(scores, e_scores, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(boxes, e_boxes, rtol=1e-5, atol=1e-3)
        assert boxes.dtype == scores.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert boxes.shape == (len(scores), 4)


@pytest.mark.kernels
@pytest.mark.parametrize("classes", [1, 3, 20])
@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.tuples(st.integers(1, 64), st.integers(1, 96)), min_size=1, max_size=3),
    candidates=st.sampled_from([1, 7, 40]),
    threshold=st.sampled_from([0.0, 0.05, 0.4]),
    nms_iou=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    max_detections=st.sampled_from([1, 10, 300]),
    nms=st.sampled_from(["class", "agnostic"]),
)
@settings(max_examples=12, deadline=None)
def test_plain_algorithm(
    classes: int,
    seed: int,
    sizes: list[tuple[int, int]],
    candidates: int,
    threshold: float,
    nms_iou: float,
    max_detections: int,
    nms: Literal["class", "agnostic"],
) -> None:
    rules = PostprocessingSettings(threshold, candidates, nms_iou, max_detections, nms)
    out = outputs(len(sizes), classes, seed)
    expected = plain(out, torch.tensor(sizes), rules)
    assert_same(by_reference(out, torch.tensor(sizes), rules), expected)
    assert_same(postprocess(out, ANCHORS, torch.tensor(sizes), rules), expected)


DETECTRON2 = PostprocessingSettings(clip="after", drop_empty=True, candidates=60)
MMDETECTION = PostprocessingSettings(limit_shrinking=True, drop_empty=True, candidates=60)
DETECTRON = PostprocessingSettings(coarsest_threshold=0.0, inclusive=True, candidates=60)


@pytest.mark.kernels
@pytest.mark.parametrize("rules", [DETECTRON2, MMDETECTION, DETECTRON])
@given(seed=st.integers(0, 2**31), shift=st.sampled_from([-6.0, -3.0]), spread=st.sampled_from([1.0, 10.0]))
@settings(max_examples=10, deadline=None)
def test_other_conventions(rules: PostprocessingSettings, seed: int, shift: float, spread: float) -> None:
    out = outputs(2, 3, seed, shift)
    out = Outputs(out.logits, [deltas * spread for deltas in out.deltas])
    sizes, scale = torch.tensor([[64.0, 96.0], [50.0, 33.25]]), 0.625
    found = postprocess(out, ANCHORS, sizes, rules, torch.full((2, 2), scale))
    expected = plain(out, sizes, rules, scale=scale)
    assert_same(by_reference(out, sizes, rules, scale=scale), expected)
    assert_same(found, expected)


def test_conventions_differ() -> None:
    """The images of the test above tell them apart."""
    out = outputs(1, 3, shift=-5.0)
    out = Outputs(out.logits, [deltas * 10 for deltas in out.deltas])
    sizes, every_box = torch.tensor([[50.0, 33.0]]), 2000

    def found(**changed: Any) -> tuple[int, float]:
        ((boxes, scores, _),) = postprocess(
            out, ANCHORS, sizes, PostprocessingSettings(max_detections=every_box, **changed)
        )
        return len(scores), round(float(boxes.sum()), 3)

    every: list[dict[str, Any]] = [
        {},
        {"clip": "after"},
        {"drop_empty": True},
        {"clip": "after", "drop_empty": True},
        {"limit_shrinking": True},
        {"coarsest_threshold": 0.0},
        {"inclusive": True},
        {"nms": "agnostic"},
    ]
    assert len({found(**changed) for changed in every}) == len(every)


@pytest.mark.parametrize("nms_iou", [0.3, 0.5])
def test_agnostic_suppression_is_torchvisions_nms_over_all_classes(nms_iou: float) -> None:
    """Suppression of everything above the threshold, however many boxes and classes there are."""
    out, every = outputs(1, 5, shift=-2.0), PostprocessingSettings(nms_iou=1.0, candidates=4000, max_detections=10**6)
    ((boxes, scores, labels),) = postprocess(out, ANCHORS, torch.tensor([[64, 96]]), every)
    kept = nms(boxes, scores, nms_iou)
    assert len(boxes) > 1000
    rules = replace(every, nms_iou=nms_iou, nms="agnostic")
    assert_same(postprocess(out, ANCHORS, torch.tensor([[64, 96]]), rules), [(boxes[kept], scores[kept], labels[kept])])
    assert len(labels[kept].unique()) == 5


def test_classes_stay_apart_where_boxes_are_outside() -> None:
    """Boxes that are clipped after suppression have negative corners as well."""
    anchors = (torch.tensor([[-50.0, -50.0, -10.0, -10.0]]),)
    out = Outputs([torch.tensor([[[3.0, 2.0, 1.0]]])], [torch.zeros(1, 1, 4)])
    rules = PostprocessingSettings(clip="after", nms_iou=0.0)
    assert postprocess(out, anchors, torch.tensor([[64, 64]]), rules)[0][2].tolist() == [0, 1, 2]


@pytest.mark.kernels
@pytest.mark.parametrize("classes", [1, 1000])
def test_few_and_many_classes(classes: int) -> None:
    rules, sizes = PostprocessingSettings(candidates=60), torch.tensor([[64, 96], [50, 33]])
    out = outputs(2, classes, shift=-3.0 if classes == 1 else -7.0)
    found = postprocess(out, ANCHORS, sizes, rules)
    assert_same(found, by_reference(out, sizes, rules))
    assert all(len(scores) > 20 for _, scores, _ in found)


@pytest.mark.kernels
def test_thousands_of_candidates() -> None:
    sizes = torch.tensor([[64, 96]])
    out = outputs(1, 3, shift=-1.0)
    rules = PostprocessingSettings(candidates=700, max_detections=2000)
    found = postprocess(out, ANCHORS, sizes, rules)
    assert_same(found, by_reference(out, sizes, rules))
    (_, scores, _) = found[0]
    assert sum(int((torch.sigmoid(level) > 0.05).sum().clamp(max=700)) for level in out.logits) > 1000
    assert (scores.diff() <= 0).all()


def test_no_survivors() -> None:
    found = postprocess(outputs(2, 4, shift=-50.0), ANCHORS, torch.tensor([[64, 96]] * 2), PostprocessingSettings())
    for boxes, scores, labels in found:
        assert boxes.shape == (0, 4)
        assert scores.shape == labels.shape == (0,)


def test_threshold_is_exclusive() -> None:
    out = outputs(1, 1, shift=-50.0)
    out.logits[0][0, 5] = 0.0  # a score of exactly one half
    sizes = torch.tensor([[64, 96]])
    assert len(postprocess(out, ANCHORS, sizes, PostprocessingSettings(threshold=0.5))[0][1]) == 0
    assert postprocess(out, ANCHORS, sizes, PostprocessingSettings(threshold=0.499))[0][1].tolist() == [0.5]


def test_one_anchor_may_have_several_classes() -> None:
    out = outputs(1, 3, shift=-50.0)
    out.logits[1][0, 7] = torch.tensor([2.0, -20.0, 1.0])
    ((boxes, _, labels),) = postprocess(out, ANCHORS, torch.tensor([[64, 96]]), PostprocessingSettings())
    assert labels.tolist() == [0, 2]
    assert torch.equal(boxes[0], boxes[1])


@pytest.mark.kernels
@pytest.mark.parametrize("side", [80, 200])
def test_equal_scores(side: int) -> None:
    """Ties everywhere: nothing is lost or doubled."""
    level = torch.tensor([[x, y, x + 8, y + 8] for x in range(0, side, 8) for y in range(0, side, 8)]).float()
    anchors = [level, level + 1000, level + 2]  # of the third, every box overlaps one of the first by 0.39
    out = Outputs([torch.zeros((1, len(a), 2)) for a in anchors], [torch.zeros((1, len(a), 4)) for a in anchors])
    rules = PostprocessingSettings(candidates=5000, max_detections=20_000, nms_iou=0.3)
    ((boxes, _, labels),) = postprocess(out, anchors, torch.tensor([[2000, 2000]]), rules)
    for label in (0, 1):
        kept = boxes[labels == label]
        assert len(kept.unique(dim=0)) == len(kept)
        far = kept[:, 0] >= 1000
        assert int(far.sum()) == len(level)
        assert iou(kept, kept).fill_diagonal_(0).max() <= 0.3
        assert iou(torch.cat((level, level + 2)), kept).amax(dim=1).min() > 0.3  # what is gone had a reason


def test_many_boxes_for_one_object() -> None:
    """Suppression looks at a few of the best boxes first; here all of those are the same box."""
    box = torch.tensor([[10.0, 10, 20, 20]])
    anchors = torch.cat((box.expand(100, 4), torch.tensor([[float(x), 50, x + 5.0, 60] for x in range(0, 60, 10)])))
    logits = torch.linspace(5, 1, len(anchors))[None, :, None]
    out = Outputs([logits], [torch.zeros((1, len(anchors), 4))])
    ((boxes, scores, _),) = postprocess(
        out, [anchors], torch.tensor([[100, 100]]), PostprocessingSettings(max_detections=4)
    )
    assert boxes.tolist() == [*box.tolist(), *anchors[100:103].tolist()]
    torch.testing.assert_close(scores, torch.sigmoid(logits[0, [0, 100, 101, 102], 0]))


@pytest.mark.kernels
def test_a_image_alone_and_in_a_batch() -> None:
    out, sizes, rules = outputs(3, 4), torch.tensor([[64, 96], [40, 30], [1, 1]]), PostprocessingSettings()
    together = postprocess(out, ANCHORS, sizes, rules)
    for i in range(3):
        one = Outputs(*([level[i : i + 1] for level in levels] for levels in out))
        assert_same(postprocess(one, ANCHORS, sizes[i : i + 1], rules), together[i : i + 1])


def test_far_classes_are_suppressed_as_near_ones() -> None:
    """Boxes with an IoU just above and just below the limit, class 0 and class 9999: no coordinate is rounded."""
    base = torch.tensor([[1000.0, 1000, 1003, 1003], [1000, 1000, 1003, 1004.49], [1000, 1000, 1003, 1006.01]])
    logits = torch.full((1, 3, 10_000), -50.0)
    logits[0, :, 0] = logits[0, :, 9999] = torch.tensor([3.0, 2.0, 1.0])
    out = Outputs([logits], [torch.zeros((1, 3, 4))])
    ((_, _, labels),) = postprocess(out, [base], torch.tensor([[2000, 2000]]), PostprocessingSettings())
    # 3 / 4.49 > 0.5 goes, 3 / 6.01 < 0.5 stays
    assert sorted(labels.tolist()) == [0, 0, 9999, 9999]


@pytest.mark.kernels
def test_bfloat16_outputs_give_float32_boxes() -> None:
    out = Outputs(*([level.bfloat16() for level in levels] for levels in outputs(1, 2)))
    ((boxes, scores, _),) = postprocess(out, ANCHORS, torch.tensor([[64, 96]]), PostprocessingSettings())
    assert boxes.dtype == scores.dtype == torch.float32
    assert len(scores) > 0
