"""torchvision's files, of both spellings and of its training script, give the boxes that torchvision's models give."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.detection import RetinaNet as Theirs
from torchvision.models.detection import fcos_resnet50_fpn, retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from retinanet.checkpoints.foreign import coco_classes, torchvision
from retinanet.common.errors import RequestError
from retinanet.data.image_io import read as image
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet
from retinanet.weight_files.reader import Contents, read

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "tiny_coco" / "val2017"
SIZES = {"min_size": 200, "max_size": 333}


def made(classes: int, version: str = "v1", depth: int = 50, eps: float | None = None, **arguments: Any) -> Any:
    """torchvision's model with random weights, scores from 0 to 1 and variances small enough for eps to matter.

    With ``eps`` its batch norms are FrozenBatchNorm2d, as in a model made from weights.
    """
    torch.manual_seed(classes)
    norm = nn.BatchNorm2d if eps is None else FrozenBatchNorm2d
    if version == "v2":
        model: Any = retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=classes, **arguments)
    else:
        body = getattr(resnet, f"resnet{depth}")(norm_layer=norm)
        backbone = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
        model = Theirs(backbone, classes, **arguments)
    if eps is not None:
        overwrite_eps(model, eps)
    with torch.no_grad():
        for name, module in model.backbone.body.named_modules():
            if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
                module.running_var.uniform_(1e-5, 4e-5)
                module.running_mean.normal_(std=1e-3)
                module.weight.fill_(0.004 if name.endswith(("bn3", "downsample.1")) else 0.006)
                module.bias.normal_(std=0.1)
        calibrate(model)
    return model.eval()


def calibrate(model: Any) -> None:
    """Spread the activations, scores and offsets: random weights leave them next to nothing or let them run away."""
    model.eval()
    images = torch.randn(1, 3, 224, 224)
    features = list(model.backbone.body(images).values())
    for block, feature in zip(model.backbone.fpn.inner_blocks, features):
        block[0].weight.div_(feature.std())
    if model.backbone.fpn.extra_blocks.p6.in_channels != 256:
        model.backbone.fpn.extra_blocks.p6.weight.div_(features[-1].std())
    levels = list(model.backbone(images).values())
    for head, output, spread, mean in (
        (model.head.classification_head, model.head.classification_head.cls_logits, 1.0, -3.0),
        (model.head.regression_head, model.head.regression_head.bbox_reg, 0.2, 0.0),
    ):
        nn.init.normal_(output.weight, std=0.02)
        nn.init.zeros_(output.bias)
        values = head(levels)[0]
        output.weight.mul_(spread / values.std())
        output.bias.normal_(mean, 0.2)


def old_spelling(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of the file published in 2020: lists of convolutions and ReLUs, pyramid blocks without a list."""
    result = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if ".conv." in name:
            parts[3:5] = [str(2 * int(parts[3]))]
        elif "_blocks." in name and "extra" not in name:
            del parts[4]
        result[".".join(parts)] = tensor
    return result


def file(model: nn.Module, path: Path, **beside: Any) -> Path:
    torch.save({"model": model.state_dict(), **beside} if beside else model.state_dict(), path)
    return path


def converted(path: Path, small: bool = True) -> tuple[Detector, Any]:
    checkpoint = torchvision.convert(read(path))
    settings = checkpoint.settings
    if small:
        settings = replace(settings, preprocessing=replace(settings.preprocessing, size=200, longer=333))
    model = RetinaNet(settings, len(checkpoint.class_names), load_weights=False)
    model.load_state_dict(checkpoint.state)
    return Detector(model, list(checkpoint.class_names)), checkpoint


def assert_same(model: Any, detector: Detector, least: int = 10, count: int = 1) -> None:
    """Their detections and ours on real images are the same boxes, labels and scores."""
    images = sorted(DATA.iterdir())[:count]
    if not images:
        pytest.skip("needs ../shared/data/tiny_coco")
    for path in images:
        with torch.inference_mode():
            (expected,) = model([image(path).float() / 255])
        found = detector.predict(path)
        assert len(found) == len(expected["boxes"]) >= least
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


def test_the_published_coco_file(tmp_path: Path) -> None:
    model = made(91, eps=0.0, **SIZES)
    state = old_spelling(model.state_dict())
    assert "head.regression_head.conv.6.bias" in state
    assert "backbone.fpn.layer_blocks.2.weight" in state
    torch.save(state, tmp_path / "retinanet_resnet50_fpn_coco.pth")
    detector, checkpoint = converted(tmp_path / "retinanet_resnet50_fpn_coco.pth")
    assert_same(model, detector, count=2)
    assert checkpoint.class_names == coco_classes.names(91)
    assert checkpoint.extra["origin"] == "torchvision, ResNet-50 v1"
    assert checkpoint.settings.backbone.norm_eps == 0
    assert (checkpoint.settings.preprocessing.size, checkpoint.settings.preprocessing.longer) == (800, 1333)
    overwrite_eps(model, 1e-5)
    with pytest.raises(AssertionError):  # else the test could not tell which eps is right
        assert_same(model, detector)


def test_fine_tuned_with_constants(tmp_path: Path) -> None:
    model = made(3, depth=18, eps=1e-5, **SIZES)
    detector, checkpoint = converted(file(model, tmp_path / "a.pth"))
    assert_same(model, detector)
    assert checkpoint.class_names == ("class 0", "class 1", "class 2")
    assert any("norm_eps" in sentence for sentence in checkpoint.extra["assumed"])
    assert any("classes" in sentence for sentence in checkpoint.extra["assumed"])


def test_version_2(tmp_path: Path) -> None:
    model = made(4, "v2", **SIZES)
    detector, checkpoint = converted(file(model, tmp_path / "a.pth"))
    assert_same(model, detector)
    assert checkpoint.extra["origin"] == "torchvision, ResNet-50 v2"
    assert checkpoint.settings.backbone.norm_eps is None
    assert not any("norm_eps" in sentence for sentence in checkpoint.extra["assumed"])


def test_another_depth(tmp_path: Path) -> None:
    model = made(2, depth=34, **SIZES)
    detector, checkpoint = converted(file(model, tmp_path / "a.pth"))
    assert checkpoint.settings.backbone.name == "resnet34"
    assert_same(model, detector)


@pytest.mark.parametrize("name", ["resnet18", "resnet101", "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2"])
def test_names_of_other_backbones(name: str) -> None:
    with torch.device("meta"):
        body = getattr(resnet, name)()
        backbone = _resnet_fpn_extractor(body, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
        state = Theirs(backbone, 2).state_dict()
    state = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in state.items()}
    checkpoint = torchvision.convert(Contents(Path("a.pth"), state, {}))
    assert checkpoint.settings.backbone.name == name


@pytest.mark.parametrize(("weights", "eps"), [(None, 1e-5), ("RetinaNet_ResNet50_FPN_Weights.COCO_V1", 0.0)])
def test_a_file_of_the_training_script(tmp_path: Path, weights: str | None, eps: float) -> None:
    model = made(91, depth=18, eps=eps, **SIZES)
    args = argparse.Namespace(weights=weights, weights_backbone="ResNet50_Weights.IMAGENET1K_V1", lr=0.01)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    path = file(model, tmp_path / "model_25.pth", optimizer=optimizer.state_dict(), args=args, epoch=25)
    checkpoint = torchvision.convert(read(path))
    assert checkpoint.settings.backbone.norm_eps == eps
    assert torch.equal(checkpoint.state["backbone.body.conv1.weight"], model.backbone.body.conv1.weight)


def test_what_cannot_be_converted() -> None:
    with torch.device("meta"):
        fcos = fcos_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
        plain = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2).state_dict()
    zeros = {name: torch.zeros(tensor.shape) for name, tensor in plain.items()}
    logits = "head.classification_head.cls_logits"

    def refused(state: dict[str, Tensor]) -> str:
        contents = Contents(Path("some.pth"), state, {})
        assert torchvision.recognises(contents)
        with pytest.raises(RequestError, match=r"^some\.pth") as caught:
            torchvision.convert(contents)
        return str(caught.value)

    torchvision.convert(Contents(Path("some.pth"), zeros, {}))
    assert "not a RetinaNet" in refused(fcos)
    assert "extra.weight" in refused({**zeros, "extra.weight": torch.zeros(1)})
    assert "not finite" in refused({**zeros, f"{logits}.bias": torch.full((18,), float("nan"))})
    assert "shape" in refused({**zeros, "backbone.body.conv1.weight": torch.zeros(64, 4, 7, 7)})
    assert "12 anchors" in refused({**zeros, "head.regression_head.bbox_reg.weight": torch.zeros(48, 256, 3, 3)})
    assert "19 class outputs" in refused({**zeros, f"{logits}.weight": torch.zeros(19, 256, 3, 3)})
    assert "[3, 4, 6, 2]" in refused({name: t for name, t in zeros.items() if "layer4.2" not in name})
    for missing in ("backbone.body.layer1.0.bn1.weight", "backbone.fpn.extra_blocks.p6.weight"):
        assert missing.split(".")[-2] in refused({name: t for name, t in zeros.items() if name != missing})
    four = {**zeros, "backbone.fpn.inner_blocks.3.0.weight": torch.zeros(256, 2048, 1, 1)}
    assert "inner_blocks.3.0.weight" in refused(four)
    assert not torchvision.recognises(Contents(Path("a"), {"backbone.bottom_up.stem.conv1.weight": zeros}, {}))  # type: ignore[dict-item]
