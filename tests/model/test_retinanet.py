"""The whole network: shapes, the paper's initialisation, and how its parts are put together."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinanet.common.errors import RequestError
from retinanet.common.fields import SettingsError
from retinanet.config.model_settings import (
    AnchorSettings,
    BackboneSettings,
    HeadSettings,
    ModelSettings,
    PreprocessingSettings,
    PyramidSettings,
)
from retinanet.config.settings import LossSettings, MatchingSettings
from retinanet.inference.cpu_fusion import fuse
from retinanet.losses import detection_loss
from retinanet.model import RetinaNet
from retinanet.model.fpn import FeaturePyramid
from retinanet.model.heads import class_subnet
from retinanet.model.layers import Convolution
from retinanet.ops.anchors import grid_shapes
from retinanet.ops.iou_assigner import match


def small(name: str = "resnet18", norm: Any = "none", **other: Any) -> ModelSettings:
    return replace(
        ModelSettings(
            backbone=BackboneSettings(name=name),
            pyramid=PyramidSettings(channels=32, norm=norm),
            head=HeadSettings(depth=2, width=32, norm=norm),
        ),
        **other,
    )


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", "efficientnet_b0", "convnext_atto"])
def test_shapes(name: str, norm: str) -> None:
    model = RetinaNet(small(name, norm), 7).eval()
    for height, width in ((32, 32), (96, 160)):
        with torch.inference_mode():
            levels = model.pyramid(model.backbone(torch.zeros(2, 3, height, width)))
            out = model(torch.zeros(2, 3, height, width))
        shapes = grid_shapes(height, width)
        assert [tuple(p.shape) for p in levels] == [(2, 32, *shape) for shape in shapes]
        anchors = model.anchors(height, width)
        assert [tuple(x.shape) for x in out.logits] == [(2, len(a), 7) for a in anchors]
        assert [tuple(x.shape) for x in out.deltas] == [(2, len(a), 4) for a in anchors]
        assert [len(a) for a in anchors] == [9 * h * w for h, w in shapes]


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize(("first", "count"), [(2, 6), (2, 3), (2, 1), (3, 4), (4, 2), (5, 1), (5, 3)])
def test_other_levels(first: int, count: int, norm: Any) -> None:
    """Any run of levels from P2 to P7: maps, anchors and outputs fit each other, also fused."""
    anchors = AnchorSettings(sizes=tuple(8.0 * 2**i for i in range(count)), first_level=first)
    model = RetinaNet(small(norm=norm, anchors=anchors), 3).eval()
    levels = range(first, first + count)
    with torch.inference_mode():
        maps = model.pyramid(model.backbone(torch.zeros(1, 3, 64, 96)))
        out = model(torch.zeros(1, 3, 64, 96))
        fused = fuse(model)(torch.zeros(1, 3, 64, 96))
    assert [tuple(p.shape[2:]) for p in maps] == grid_shapes(64, 96, levels)
    for place, per_level in enumerate(model.anchors(64, 96)):
        assert out.logits[place].shape == (1, len(per_level), 3)
        torch.testing.assert_close(fused.logits[place], out.logits[place], rtol=1e-4, atol=1e-4)
        step = 2 ** (first + place)
        assert ((per_level[:, 0] + per_level[:, 2]) / 2 % step - step / 2).abs().max() < 1e-3, "centres of cells"
    if levels[-1] < 7:
        assert not hasattr(model.pyramid, "p7")


def test_weights_fit_other_anchors() -> None:
    """What was trained with the paper's anchors goes on with sizes, ratios and levels that suit other data."""
    trained = RetinaNet(small(), 3).state_dict()
    other = AnchorSettings(sizes=(6.0, 12.0, 24.0), ratios=(0.8, 1.3, 2.1), first_level=2)
    model = RetinaNet(small(anchors=other), 3)
    missing, unexpected = model.load_state_dict(trained, strict=False)
    assert {name.rsplit(".", 2)[0] for name in missing} == {"pyramid.lateral.2", "pyramid.output.2"}
    assert {".".join(name.split(".")[:3]) for name in unexpected} == {
        "pyramid.output.5", "pyramid.p6.conv", "pyramid.p7.conv"
    }  # fmt: skip


@pytest.mark.parametrize(("first", "sizes"), [(1, (8.0,)), (6, (8.0,)), (3, (8.0,) * 6), (2, (8.0,) * 7)])
def test_impossible_levels(first: int, sizes: tuple[float, ...]) -> None:
    with pytest.raises(SettingsError, match=r"model\.anchors"):
        AnchorSettings(sizes=sizes, first_level=first)


def test_the_papers_network() -> None:
    model = RetinaNet(ModelSettings(), 80)
    body = 25_557_032 - 2_049_000  # ResNet-50 without its classifier
    pyramid = sum(256 * c + 256 for c in (512, 1024, 2048)) + 3 * (256 * 256 * 9 + 256)
    pyramid += 2048 * 256 * 9 + 256 + 256 * 256 * 9 + 256  # P6 on C5, P7 on P6
    tower = 4 * (256 * 256 * 9 + 256)
    heads = 2 * tower + (256 * 720 * 9 + 720) + (256 * 36 * 9 + 36)
    assert sum(p.numel() for p in model.parameters()) == body + pyramid + heads


@pytest.mark.parametrize("prior", [0.01, 0.1])
def test_prior_probability(prior: float) -> None:
    """Every anchor starts with probability ``prior`` for every class, on whatever image."""
    torch.manual_seed(0)
    settings = ModelSettings(backbone=BackboneSettings(name="resnet18"), head=HeadSettings(prior=prior))
    model = RetinaNet(settings, 5).eval()
    assert model.class_subnet.output.bias is not None
    torch.testing.assert_close(model.class_subnet.output.bias, torch.full((45,), -math.log((1 - prior) / prior)))
    with torch.inference_mode():
        out = model(torch.randn(1, 3, 64, 64))
    probabilities = torch.cat([torch.sigmoid(level).flatten() for level in out.logits])
    torch.testing.assert_close(probabilities, torch.full_like(probabilities, prior), rtol=0.05, atol=0)


def test_initialisation() -> None:
    """New convolutions: Gaussian of sigma 0.01 and bias 0, but for the class output's bias."""
    torch.manual_seed(0)
    model = RetinaNet(ModelSettings(backbone=BackboneSettings(name="resnet18")), 20)
    new = [m for part in (model.pyramid, model.class_subnet, model.box_subnet) for m in part.modules()]
    convolutions = [m for m in new if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 6 + 2 + 2 * 5
    for convolution in convolutions:
        weight = convolution.weight.detach()
        assert weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert abs(weight.mean().item()) < 2e-4
        if convolution is not model.class_subnet.output:
            assert convolution.bias is not None
            assert not convolution.bias.any()


def test_pyramid_by_hand() -> None:
    torch.manual_seed(0)
    sources: tuple[Any, ...] = ("c5", "p5")
    for p6_from in sources:
        pyramid = FeaturePyramid((4, 6, 8), PyramidSettings(channels=5, p6_from=p6_from))
        for parameter in pyramid.parameters():
            nn.init.normal_(parameter, std=0.3)
        c3, c4, c5 = (torch.randn(2, c, s, s + 3) for c, s in ((4, 20), (6, 10), (8, 5)))
        c4, c5 = c4[..., :12], c5[..., :6]  # an input whose levels do not double exactly
        p3, p4, p5, p6, p7 = pyramid([c3, c4, c5])

        def conv(layer: Any, x: Tensor, stride: int = 1) -> Tensor:
            kernel = layer.conv.weight
            return F.conv2d(x, kernel, layer.conv.bias, stride=stride, padding=kernel.shape[-1] // 2)

        m5 = conv(pyramid.lateral["5"], c5)
        m4 = conv(pyramid.lateral["4"], c4) + F.interpolate(m5, size=c4.shape[-2:])
        m3 = conv(pyramid.lateral["3"], c3) + F.interpolate(m4, size=c3.shape[-2:])
        for found, merged, layer in zip((p3, p4, p5), (m3, m4, m5), pyramid.output.values()):
            torch.testing.assert_close(found, conv(layer, merged))
        torch.testing.assert_close(p6, conv(pyramid.p6, c5 if p6_from == "c5" else p5, 2))
        torch.testing.assert_close(p7, conv(pyramid.p7, F.relu(p6), 2))
        assert (p6 < 0).any()

    pyramid = FeaturePyramid((4, 6, 8), PyramidSettings(channels=5, p7_relu=False))  # MMDetection's
    p6, p7 = pyramid([c3, c4, c5])[3:]
    torch.testing.assert_close(p7, conv(pyramid.p7, p6, 2))


def test_subnets_share_weights_over_levels_only() -> None:
    model = RetinaNet(small(), 3)
    names = {id(p) for p in model.class_subnet.parameters()} & {id(p) for p in model.box_subnet.parameters()}
    assert not names
    x = torch.randn(1, 32, 4, 4)
    first, second = model.class_subnet([x, x])
    assert torch.equal(first, second)


def test_rows_are_in_the_order_of_the_anchors() -> None:
    """Row (y * w + x) * A + a holds the K values of anchor a at (y, x): channel a * K + k of the output."""
    subnet = class_subnet(6, HeadSettings(depth=0, width=6), anchors=2, num_classes=3, levels=1)
    x = torch.randn(2, 6, 4, 5)
    (found,) = subnet([x])
    maps = subnet.output(x)
    for y, column, anchor in ((0, 0, 0), (1, 3, 1), (3, 4, 0)):
        row = (y * 5 + column) * 2 + anchor
        torch.testing.assert_close(found[:, row], maps[:, anchor * 3 : anchor * 3 + 3, y, column])


def test_norms() -> None:
    """ "batch" keeps one per level in the subnets, "group" one in all; a normalised convolution has no bias."""
    layers: dict[Any, list[int]] = {}
    for norm, kind in (("batch", nn.BatchNorm2d), ("group", nn.GroupNorm), ("none", nn.Identity)):
        model = RetinaNet(small(norm=norm), 2)
        towers = [m for m in model.class_subnet.modules() if isinstance(m, Convolution)]
        layers[norm] = [sum(isinstance(n, kind) for n in layer.norm) for layer in towers]
        assert all((layer.conv.bias is None) == (norm != "none") for layer in towers)
    assert layers == {"batch": [5, 5], "group": [1, 1], "none": [0, 0]}

    torch.manual_seed(0)
    subnet = class_subnet(8, HeadSettings(depth=1, width=8, norm="batch"), anchors=1, num_classes=1, levels=2)
    subnet.train()([torch.randn(4, 8, 6, 6), torch.randn(4, 8, 3, 3) + 50])
    norms: Any = subnet.tower[0].norm
    near, far = norms
    assert near.num_batches_tracked == far.num_batches_tracked == 1
    assert (near.running_mean - far.running_mean).abs().max() > 0.01


@pytest.mark.parametrize("width", [1, 20, 48])
def test_group_norm_of_any_width(width: int) -> None:
    assert Convolution(4, width, 3, "group")(torch.randn(2, 4, 5, 5)).shape == (2, width, 5, 5)


def test_normalisation_comes_from_the_backbone_unless_given() -> None:
    model = RetinaNet(small(), 1)
    assert model.settings.preprocessing.mean == (0.485, 0.456, 0.406)
    assert model.settings.preprocessing.std == (0.229, 0.224, 0.225)
    own = PreprocessingSettings(mean=(0.1, 0.2, 0.3))
    model = RetinaNet(small(preprocessing=own), 1)
    assert model.settings.preprocessing.mean == (0.1, 0.2, 0.3)
    assert model.settings.preprocessing.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", None, 10**9, True])
def test_numbers_of_classes_that_cannot_be_used(count: Any) -> None:
    with pytest.raises(RequestError, match=r"^num_classes must be "):
        RetinaNet(small(), count)


def test_learns() -> None:
    """Thirty steps on one image with one box: the loss falls far and the box is found."""
    torch.manual_seed(0)
    settings = small(norm="group", anchors=AnchorSettings(sizes=(16, 32, 64, 128, 256)))
    model = RetinaNet(settings, 2).train()
    image = torch.randn(1, 3, 64, 64) * 0.1
    image[:, :, 16:48, 8:40] += 2
    truth = [torch.tensor([[8.0, 16, 40, 48]])], [torch.tensor([1])]
    anchors = model.anchors(64, 64)
    targets = match(torch.cat(anchors), *truth, MatchingSettings())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(30):
        class_loss, box_loss = detection_loss(model(image), targets, anchors, LossSettings())
        optimizer.zero_grad()
        ((class_loss + box_loss) / targets.num_positives).backward()
        optimizer.step()
        losses.append((class_loss + box_loss).item())
    assert losses[-1] < 0.2 * losses[0]
    with torch.inference_mode():
        logits = torch.cat(model(image).logits, dim=1)[0]
    best = int(logits[:, 1].argmax())
    assert targets.labels[0, best] == 1
