"""The fused network computes what the network does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from retinanet.config.model_settings import BackboneSettings, HeadSettings, ModelSettings, PyramidSettings
from retinanet.inference import cpu_fusion, winograd
from retinanet.model import RetinaNet

pytestmark = pytest.mark.skipif(
    not cpu_fusion.available(torch.float32), reason="this PyTorch has no fused convolutions"
)
needs_bf16 = pytest.mark.skipif(not cpu_fusion.available(torch.bfloat16), reason="bfloat16 needs AVX512")


def trained(settings: ModelSettings) -> RetinaNet:
    """Random weights, with statistics of batch normalisation as after training."""
    torch.manual_seed(0)
    model = RetinaNet(settings, 3)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    model.train()
    with torch.no_grad():
        model(torch.randn(2, 3, 128, 128))
    return model.eval()


def small(name: str, norm: Any = "none", p6_from: Any = "c5", **options: Any) -> ModelSettings:
    return ModelSettings(
        backbone=BackboneSettings(name=name, options=options),
        pyramid=PyramidSettings(channels=32, p6_from=p6_from),
        head=HeadSettings(depth=2, width=32, norm=norm),
    )


CASES = {
    "paper": small("resnet18"),
    "bottlenecks": small("resnet50"),
    "p5": small("resnet18", p6_from="p5"),
    "group": small("resnet18", norm="group"),
    "batch": small("resnet18", norm="batch"),  # one normalisation a level, one convolution for all
    "mobilenet": small("mobilenetv2_100"),
    "same-padding": small("mobilenetv2_100", pad_type="same"),
    "efficientnet": small("efficientnet_lite0"),
    "convnext": small("convnext_atto"),
    "swish": small("efficientnet_b0"),
    "hardswish": small("mobilenetv3_small_050"),
    "swish-after-addition": small("resnet33ts"),
}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_same_outputs(name: str) -> None:
    model = trained(CASES[name])
    network = cpu_fusion.fuse(model)
    for shape in ((1, 3, 64, 96), (2, 3, 160, 128), (1, 3, 32, 32)):
        images = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        for found, expected in zip(network(images), model(images), strict=True):
            for a, b in zip(found, expected, strict=True):
                assert a.shape == b.shape
                assert float((a - b).abs().max()) <= 5e-4 * float(b.abs().max()) + 1e-6


@pytest.mark.parametrize("shape", [(1, 128, 8, 12), (3, 128, 5, 7), (1, 130, 1, 1), (2, 128, 70, 41), (40, 128, 4, 4)])
@pytest.mark.parametrize("outputs", [128, 150])
@pytest.mark.parametrize(("relu", "adding"), [(False, False), (True, False), (True, True), (False, True)])
def test_winograd_against_float64(shape: tuple[int, ...], outputs: int, relu: bool, adding: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    conv = nn.Conv2d(shape[1], outputs, 3, padding=1)
    other = torch.randn(shape[0], outputs, *shape[2:]) if adding else None
    with torch.no_grad():
        expected = conv.double()(x.double())
        expected = expected if other is None else expected + other
        expected = expected.relu() if relu else expected
        found = winograd.WinogradConvolution(conv.weight, conv.bias, relu)(x, other)
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < 3e-5 * float(expected.abs().max())


@torch.no_grad()
def test_fast_outputs() -> None:
    settings = ModelSettings(backbone=BackboneSettings(name="resnet18"))
    model = trained(settings)
    network = cpu_fusion.fuse(model, fast=True)
    assert "WinogradConvolution" in kinds(network)
    images = torch.randn((1, 3, 96, 160)).contiguous(memory_format=torch.channels_last)
    for found, expected in zip(network(images), model(images), strict=True):
        for a, b in zip(found, expected, strict=True):
            assert float((a - b).abs().max()) <= 3e-4 * float(b.abs().max())


def kinds(network: nn.Module) -> set[str]:
    return {type(module).__name__ for module in network.modules()}


@pytest.mark.parametrize("name", ["paper", "bottlenecks"])
def test_nothing_is_left_to_fuse(name: str) -> None:
    network = cpu_fusion.fuse(trained(CASES[name]))
    assert kinds(network) & {"Conv2d", "BatchNorm2d", "BatchNormAct2d", "ReLU", "ReLU6"} == set()
    targets = {getattr(node.target, "__name__", node.target) for node in network.graph.nodes}
    assert targets & {"iadd", "add"} == set()


@pytest.mark.parametrize("activation", ["hardtanh", "swish", "hardswish"])
def test_activations_are_fused(activation: str) -> None:
    network = cpu_fusion.fuse(trained(CASES["mobilenet" if activation == "hardtanh" else activation]))
    found = {module.activation[0] for module in network.modules() if isinstance(module, cpu_fusion.FusedConvolution)}
    assert activation in found


@needs_bf16
def test_the_model_is_left_as_it_is() -> None:
    model = trained(CASES["paper"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network = cpu_fusion.fuse(model, torch.bfloat16)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = [level.clone() for level in network(images.bfloat16()).logits]
        for parameter in model.parameters():
            parameter.zero_()
        assert all(torch.equal(a, b) for a, b in zip(network(images.bfloat16()).logits, expected))


@needs_bf16
@pytest.mark.parametrize("name", ["paper", "group"])
@torch.no_grad()
def test_bfloat16(name: str) -> None:
    model = trained(CASES[name])
    images = torch.randn(1, 3, 96, 64)
    network = cpu_fusion.fuse(model, torch.bfloat16)
    for found, expected in zip(network(images.bfloat16()), model(images), strict=True):
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == torch.bfloat16
            assert float((a - b).abs().mean()) < 0.1 * float(b.abs().mean())


@torch.no_grad()
def test_a_backbone_that_cannot_be_traced() -> None:
    """It stays as it is; pyramid and heads are fused."""
    model = trained(CASES["paper"])
    body = model.backbone.body

    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = body
            self.feature_info = body.feature_info

        def forward(self, x: torch.Tensor) -> Any:
            return self.inner(x if x.mean() > 0 else -x)

    model.backbone.body = Deciding()
    network = cpu_fusion.fuse(model)
    assert {"Backbone", "FusedConvolution"} <= kinds(network)
    images = torch.randn(1, 3, 64, 64)
    for a, b in zip(network(images).logits, model(images).logits, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
