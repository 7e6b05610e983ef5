"""``model(images, targets)``: the dict of losses, from images and boxes as a data set gives them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.tiny_run import tiny
from retinanet.common.errors import RequestError
from retinanet.config.model_settings import PreprocessingSettings
from retinanet.config.settings import LossSettings, MatchingSettings
from retinanet.losses import Criterion, detection_loss
from retinanet.model import Outputs, RetinaNet
from retinanet.model.labelled_images import batch_of
from retinanet.ops.boxes import multiplied
from retinanet.ops.image_batch import network_input
from retinanet.ops.iou_assigner import match
from retinanet.ops.resize import resize_image

BOXES = torch.tensor([[4.0, 6, 36, 40], [50, 10, 80, 60]])
LABELS = torch.tensor([1, 0])


def model(**preprocessing: Any) -> RetinaNet:
    torch.manual_seed(0)
    settings = tiny().model
    return RetinaNet(replace(settings, preprocessing=replace(settings.preprocessing, **preprocessing)), 2).eval()


def image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def targets(boxes: Tensor = BOXES, labels: Tensor = LABELS, **more: Any) -> dict[str, Any]:
    return {"boxes": boxes, "labels": labels, **more}


def test_a_batch_is_the_plain_sum_over_its_anchors() -> None:
    network, batch = model(), torch.randn(2, 3, 64, 96)
    empty = targets(BOXES[:0], LABELS[:0])
    settings, rules = LossSettings(gamma=1.0, box="giou", box_weight=2.0), MatchingSettings(low_quality=True)
    found = network(batch, [targets(), empty], Criterion(settings, rules))
    anchors = network.anchors(64, 96)
    wanted = match(torch.cat(anchors), [BOXES, BOXES[:0]], [LABELS, LABELS[:0]], rules)
    assert wanted.num_positives > 1
    expected = torch.stack(detection_loss(network(batch), wanted, anchors, settings)) / wanted.num_positives
    assert list(found) == ["classification", "bbox_regression"]
    torch.testing.assert_close(torch.stack(list(found.values())), expected)
    sum(found.values()).backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_without_a_box_the_divisor_is_one() -> None:
    network = model()
    losses = network(torch.randn(1, 3, 64, 64), [targets(BOXES[:0], LABELS[:0])])
    assert losses["bbox_regression"] == 0
    assert losses["classification"] > 0


def test_images_of_any_size_are_prepared_with_their_boxes() -> None:
    """An image twice as large as the network's input, by hand: resized, normalised, its boxes halved."""
    network = model()
    large = image(128, 192)
    found = network([large], [targets(2 * BOXES)])
    prepared = network_input(large, network.settings.preprocessing)
    assert prepared.shape == (1, 3, 64, 96)
    expected = network(prepared, [targets()])
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss)
    # Each side has its own scale: 50 x 100 becomes 48 x 96.
    odd = image(50, 100)
    scale = network.settings.preprocessing
    height, width = resize_image(odd, scale).shape[1:]
    boxes = torch.tensor([[10.0, 5, 60, 45]])
    found = network([odd], [targets(boxes, LABELS[:1])])
    resized = multiplied(boxes, [width / 100, height / 50] * 2)
    expected = network(network_input(odd, scale), [targets(resized, LABELS[:1])])
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss)


@pytest.mark.parametrize("interpolation", ["antialias", "plain", "pillow", "opencv"])
def test_floats_are_the_same_images(interpolation: Any) -> None:
    network = model(interpolation=interpolation)
    images = [image(50, 60), image(90, 70, 1)]
    whole, _ = batch_of(images, network.settings.preprocessing, torch.device("cpu"))
    floats, _ = batch_of([one / 255 for one in images], network.settings.preprocessing, torch.device("cpu"))
    assert whole.shape == (2, 3, 96, 96)
    # The resized uint8 image is rounded, once along each axis: a grey level of 255, divided by the least deviation.
    torch.testing.assert_close(floats, whole, rtol=0, atol=1.01 / 255 / 0.22)
    mixed, _ = batch_of([images[0], images[1] / 255], network.settings.preprocessing, torch.device("cpu"))
    assert torch.equal(mixed[0], whole[0])
    assert isinstance(network(images), Outputs)


def test_crowds_are_ignored() -> None:
    network, batch = model(), torch.randn(1, 3, 64, 96)
    crowd = network(batch, [targets(iscrowd=torch.tensor([0, 1]))])
    ignored = network(batch, [targets(labels=torch.tensor([1, -2]))])
    both = network(batch, [targets()])
    assert crowd == ignored
    assert crowd["classification"] != both["classification"]


def test_the_network_of_bgr_images_sees_the_same() -> None:
    network = model()
    settings = replace(network.settings, preprocessing=PreprocessingSettings(size=64, longer=96, channels="bgr"))
    swapped = RetinaNet(settings, 2).eval()
    swapped.load_state_dict(network.state_dict())
    batch = torch.randn(1, 3, 64, 64)
    assert swapped(batch, [targets()]) == network(batch.flip(1), [targets()])


@pytest.mark.parametrize(
    ("images", "given", "words"),
    [
        ([], [], "empty list"),
        ([torch.zeros(1, 20, 20)], [targets()], r"image 0.*\(3, H, W\).*\(1, 20, 20\)"),
        (["cat.jpg"], [targets()], "image 0.*cat.jpg"),
        ([torch.full((3, 20, 20), 200.0)], [targets()], "image 0.*from 0 to 1.*200"),
        ([torch.full((3, 20, 20), float("nan"))], [targets()], "image 0.*nan"),
        ([torch.zeros(3, 20, 20, dtype=torch.int64)], [targets()], "image 0.*uint8.*int64"),
        ([image(9, 9), image(9, 9)], [targets()], "for each of 2 images: 1"),
        ([image(9, 9)], targets(), "for each of 1 images"),
        ([image(9, 9)], [{"boxes": BOXES}], 'target 0.*"labels"'),
        ([image(9, 9)], [targets(BOXES[0])], r"boxes of target 0.*\(n, 4\)"),
        ([image(9, 9)], [targets(labels=LABELS[:1])], r"labels of target 0.*int64 \(2,\)"),
        ([image(9, 9)], [targets(labels=LABELS.float())], "labels of target 0.*float32"),
        ([image(9, 9)], [targets(BOXES[:, [2, 1, 0, 3]])], r"\[36.0, 6.0, 4.0, 40.0\].*x1 < x2"),
        ([image(9, 9)], [targets(BOXES * float("nan"))], "nan.*x1 < x2"),
        ([image(9, 9)], [targets(labels=LABELS + 1)], "label 2.*from 0 to 1"),
        ([image(9, 9)], [targets(labels=LABELS - 2)], "label -1"),
        ([image(9, 9)], [targets(iscrowd=torch.tensor([1]))], r'"iscrowd" of target 0.*2 boxes.*\(1,\)'),
        ([image(9, 9)], [targets(iscrowd="no")], "\"iscrowd\" of target 0.*'no'"),
        ([image(9, 9)], [targets(BOXES.to(torch.complex64))], "boxes of target 0.*complex64"),
    ],
)
def test_what_cannot_be_used_is_one_line(images: Any, given: Any, words: str) -> None:
    with pytest.raises(RequestError) as error:
        model()(images, given)
    assert re.search(words, str(error.value))
    assert "\n" not in str(error.value)


def test_a_criterion_that_is_none_is_one_line() -> None:
    with pytest.raises(RequestError, match=r"criterion must be a .*Criterion, not 'focal'"):
        model()([image(9, 9)], [targets()], "focal")
