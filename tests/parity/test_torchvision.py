"""Our network, losses and detections against torchvision's two RetinaNets with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from retinanet.checkpoints.foreign import torchvision
from retinanet.config.settings import LossSettings, MatchingSettings
from retinanet.data.image_io import read
from retinanet.inference.detector import Detector
from retinanet.losses import Criterion, detection_loss, normalizer
from retinanet.model import RetinaNet
from retinanet.ops.iou_assigner import match

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "tiny_coco"
NUM_CLASSES = 91  # torchvision's labels are COCO's ids
SIZE, LONGER = 200, 333  # small, and no multiple of 128: torchvision's strides at P6 and P7 differ from 64 and 128

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/tiny_coco")


def labelled_images() -> list[tuple[Path, Tensor, Tensor]]:
    """Five images of different shapes with their boxes (n, 4) and COCO ids (n,)."""
    truth = json.loads((DATA / "annotations" / "instances_val2017.json").read_text())
    chosen: dict[tuple[int, int], tuple[Path, Tensor, Tensor]] = {}
    for image in truth["images"]:
        found = [a for a in truth["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        if found:
            boxes = torch.tensor([a["bbox"] for a in found])
            boxes[:, 2:] += boxes[:, :2]
            labels = torch.tensor([a["category_id"] for a in found])
            chosen.setdefault((image["height"], image["width"]), (DATA / "val2017" / image["file_name"], boxes, labels))
    return list(chosen.values())[:5]


def theirs(version: str) -> nn.Module:
    """torchvision's model with random weights whose scores spread over 0..1."""
    from torchvision.models import detection

    torch.manual_seed(0)
    build = {"v1": detection.retinanet_resnet50_fpn, "v2": detection.retinanet_resnet50_fpn_v2}[version]
    model: nn.Module = build(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES, min_size=SIZE, max_size=LONGER
    )
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    with torch.no_grad():
        model.backbone(torch.randn(2, 3, 256, 256))  # type: ignore[operator]
    head: Any = model.head
    with torch.no_grad():
        nn.init.normal_(head.classification_head.cls_logits.weight, std=0.02)
        nn.init.normal_(head.classification_head.cls_logits.bias, mean=-4.0, std=0.7)
        nn.init.normal_(head.regression_head.bbox_reg.weight, std=0.02)
        nn.init.normal_(head.regression_head.bbox_reg.bias, std=0.2)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


def ours(version: Any, state: dict[str, Tensor]) -> RetinaNet:
    model = RetinaNet(torchvision.settings(version, SIZE, LONGER), NUM_CLASSES)
    model.load_state_dict(torchvision.convert_state(state))
    return model


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-12))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_losses_and_gradients(version: str) -> None:
    there = theirs(version)
    here = ours(version, there.state_dict())
    # One memory layout for both: otherwise the convolutions sum in another order, and what float32 leaves of conv1's
    # gradient after 50 layers differs by 1e-3, whoever computes the losses.
    here.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for model in (there, here):
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    settings = LossSettings(box="l1" if version == "v1" else "giou")
    for path, boxes, labels in labelled_images()[:2]:
        image = read(path).float() / 255
        target = {"boxes": boxes, "labels": labels}
        there.zero_grad()
        losses = there([image], [target])
        sum(losses.values()).backward()

        batch, (resized,) = there.transform([image], [target])  # type: ignore[operator]
        levels = list(there.backbone(batch.tensors).values())  # type: ignore[operator]
        (expected,) = there.anchor_generator(batch, levels)  # type: ignore[operator]
        here.zero_grad()
        outputs = here(batch.tensors)
        anchors = here.anchors(*batch.tensors.shape[2:])
        assert torch.equal(torch.cat(anchors), expected)

        targets = match(torch.cat(anchors), [resized["boxes"]], [labels], MatchingSettings(low_quality=True))
        assert targets.num_positives > 0
        class_loss, box_loss = detection_loss(outputs, targets, anchors, settings)
        assert relative(class_loss / targets.num_positives, losses["classification"]) < 1e-4
        assert relative(box_loss / targets.num_positives, losses["bbox_regression"]) < 1e-4
        ((class_loss + box_loss) / targets.num_positives).backward()
        gradients = {name: parameter.grad for name, parameter in here.named_parameters()}
        for name, parameter in there.named_parameters():
            gradient = gradients.pop(torchvision.rename(name))
            assert gradient is not None, name
            assert parameter.grad is not None, name
            assert relative(gradient, parameter.grad) < 1e-4, name
        assert not gradients


def test_the_loss_of_a_batch_divided_image_by_image() -> None:
    """torchvision divides each image's loss by its own positives; the paper's loss of the same batch is another."""
    there = theirs("v1")
    here = ours("v1", there.state_dict()).eval()
    there.train()
    for module in there.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    some = labelled_images()[:3]
    images = [read(path).float() / 255 for path, _, _ in some]
    given = [{"boxes": boxes, "labels": labels} for _, boxes, labels in some]
    with torch.no_grad():
        losses = there(images, given)
        batch, resized = there.transform(images, given)  # type: ignore[operator]
        outputs = here(batch.tensors)
    anchors = here.anchors(*batch.tensors.shape[2:])
    boxes, labels = [one["boxes"] for one in resized], [one["labels"] for one in resized]
    targets = match(torch.cat(anchors), boxes, labels, MatchingSettings(low_quality=True))
    assert len(set((targets.labels >= 0).sum(dim=1).tolist())) == 3
    expected = torch.stack((losses["classification"], losses["bbox_regression"]))
    for kind, same in (("image", True), ("batch", False)):
        settings = LossSettings(box="l1", normalizer=kind)  # type: ignore[arg-type]
        found = torch.stack(detection_loss(outputs, targets, anchors, settings)) / normalizer(targets, settings)
        assert (relative(found, expected) < 1e-4) == same, (found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_the_dict_of_losses(version: str, kind: str) -> None:
    """Images and boxes as they are go in on both sides; ours come out of the network itself, gradients too."""
    there = theirs(version)
    here = ours(version, there.state_dict())
    here.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for model in (there, here):
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    some = labelled_images()[:3]
    images = [read(path) for path, _, _ in some]
    given = [{"boxes": boxes, "labels": labels} for _, boxes, labels in some]
    floats = [image.float() / 255 for image in images]
    expected = there(floats, given)
    settings = LossSettings(box="l1" if version == "v1" else "giou", normalizer="image")
    criterion = Criterion(settings, MatchingSettings(low_quality=True))
    found = here(images if kind == "uint8" else floats, given, criterion)
    assert found.keys() == expected.keys()
    for name, loss in expected.items():
        assert relative(found[name], loss) < 1e-4, name
    sum(expected.values()).backward()
    sum(found.values()).backward()
    gradients = dict(here.named_parameters())
    # In the backbone, ReLUs enlarge on the way back what differs in the last digits of the normalised images; the test
    # of identical batches above compares it.
    for name, parameter in there.head.named_parameters(prefix="head"):
        mine = gradients[torchvision.rename(name)].grad
        assert mine is not None
        assert relative(mine, parameter.grad) < 1e-2, name


@pytest.mark.kernels
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_detections(version: str) -> None:
    there = theirs(version).eval()
    model = ours(version, there.state_dict())
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    detector = Detector(model, [str(i) for i in range(NUM_CLASSES)])
    for path, _, _ in labelled_images()[:3]:
        image = read(path)
        with torch.inference_mode():
            (expected,) = there([image.float() / 255])
        found = detector.predict(path)
        assert len(found) == len(expected["boxes"]) > 20
        # Of two boxes with nearly equal scores either may come first: pair them by label, place and score.
        keys = [
            torch.cat([boxes, 1000 * labels[:, None], 100 * scores[:, None]], dim=1).double()
            for boxes, labels, scores in (
                (found.boxes, found.labels, found.scores),
                (expected["boxes"], expected["labels"], expected["scores"]),
            )
        ]
        pairs = torch.cdist(*keys, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
        assert len(pairs.unique()) == len(found), "one to one"
        assert torch.equal(found.labels, expected["labels"][pairs])
        assert float((found.boxes - expected["boxes"][pairs]).abs().max()) < 1e-2
        assert float((found.scores - expected["scores"][pairs]).abs().max()) < 1e-4
