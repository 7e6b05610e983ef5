"""Backbones from timm: what they give, what is frozen, and what is said when one cannot be had."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from retinanet.common.errors import RequestError, WorkError
from retinanet.config.model_settings import BackboneSettings
from retinanet.model.backbone import Backbone

FAMILIES = ["resnet18", "mobilenetv3_small_050", "efficientnet_b0", "convnext_atto"]


@pytest.mark.parametrize("name", FAMILIES)
def test_three_features(name: str) -> None:
    backbone = Backbone(BackboneSettings(name=name)).eval()
    with torch.inference_mode():
        features = backbone(torch.zeros(2, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [
        (2, c, 64 // stride, 96 // stride) for c, stride in zip(backbone.channels, (8, 16, 32), strict=True)
    ]
    assert len(backbone.mean) == len(backbone.std) == 3
    assert all(0 < value < 1 for value in backbone.mean + backbone.std)


def test_caffes_strides_and_another_epsilon() -> None:
    """torchvision's ResNet with its strides moved by hand gives the same features."""
    from torchvision.models import resnet50

    theirs = resnet50(weights=None).eval()
    for stage in (theirs.layer2, theirs.layer3, theirs.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
            module.eps = 0.25
    features = []
    for stage in (theirs.layer2, theirs.layer3, theirs.layer4):
        stage.register_forward_hook(lambda module, given, result: features.append(result))
    images = torch.randn(1, 3, 64, 96)
    state = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("fc.")}

    def found(**settings: Any) -> list[Tensor]:
        backbone = Backbone(BackboneSettings(**settings)).eval()
        backbone.body.load_state_dict(state)
        result: list[Tensor] = backbone(images)
        return result

    with torch.inference_mode():
        theirs(images)
        for ours, expected in zip(found(stride_in_1x1=True, norm_eps=0.25), features, strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
        for other in (found(norm_eps=0.25), found(stride_in_1x1=True)):
            assert (other[-1] - features[-1]).abs().max() > 0.01


def test_strides_that_cannot_be_moved() -> None:
    for name in ("resnet18", "mobilenetv3_small_050"):
        with pytest.raises(RequestError, match=f"stride_in_1x1 is for ResNets of bottlenecks.*'{name}' has none"):
            Backbone(BackboneSettings(name=name, stride_in_1x1=True))


def test_a_model_without_the_strides() -> None:
    message = "model.backbone.name 'vit_tiny_patch16_224' has features at strides [16, 16, 16], but RetinaNet needs"
    with pytest.raises(RequestError, match=f"^{re.escape(message)}"):
        Backbone(BackboneSettings(name="vit_tiny_patch16_224"))


def test_an_unknown_name() -> None:
    with pytest.raises(
        RequestError, match=r"^model\.backbone\.name: timm has no model 'resnet5O'; did you mean .*resnet50"
    ):
        Backbone(BackboneSettings(name="resnet5O"))
    with pytest.raises(RequestError, match=r"timm has no model 'xqzxqzxqz'; see timm\.list_models\(\)$"):
        Backbone(BackboneSettings(name="xqzxqzxqz"))


def test_an_unknown_option() -> None:
    with pytest.raises(
        RequestError, match=r"^timm cannot build 'resnet18' as a feature extractor with options \{'nope'"
    ):
        Backbone(BackboneSettings(name="resnet18", options={"nope": 1}))


@pytest.mark.parametrize("option", ["pretrained", "checkpoint_path", "pretrained_cfg_overlay"])
def test_options_read_no_files(option: str) -> None:
    with pytest.raises(RequestError, match=f"options cannot set {option}: use model.backbone.weights"):
        Backbone(BackboneSettings(name="resnet18", options={option: "x.pth"}))


@pytest.mark.slow
def test_imagenet_weights_without_a_network(tmp_path: Path) -> None:
    code = """
from retinanet.config.model_settings import BackboneSettings
from retinanet.common.errors import WorkError
from retinanet.model.backbone import Backbone
try:
    Backbone(BackboneSettings(name="resnet18", weights="imagenet"))
except WorkError as error:
    print(error)
"""
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, check=True)
    (line,) = result.stdout.splitlines()
    assert line.startswith("the ImageNet weights of 'resnet18' could not be downloaded (")
    assert line.endswith(
        "connect to a network, or set model.backbone.weights to a local file, or to none to train from scratch"
    )
    assert issubclass(WorkError, RuntimeError)


def test_imagenet_weights_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network they are read from the hub's cache at once, and nothing in its client is changed."""
    from huggingface_hub import constants

    name = "mobilenetv3_small_050"
    torch.manual_seed(5)
    weights = timm.create_model(name).state_dict()
    repository = tmp_path / f"models--{timm.get_pretrained_cfg(name).hf_hub_id.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a1b2")
    (repository / "snapshots" / "a1b2").mkdir(parents=True)
    save_file(weights, repository / "snapshots" / "a1b2" / "model.safetensors")

    def unknown(*arguments: Any) -> Any:
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    monkeypatch.setattr("retinanet.model.backbone.getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    before = constants.HF_HUB_OFFLINE
    body = Backbone(BackboneSettings(name=name, weights="imagenet")).body
    assert before == constants.HF_HUB_OFFLINE
    assert torch.equal(body.state_dict()["conv_stem.weight"], weights["conv_stem.weight"])
    with pytest.raises(WorkError, match="could not be downloaded"):
        Backbone(BackboneSettings(name="resnet18", weights="imagenet"))


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    found: dict[str, Tensor] = timm.create_model("resnet18").state_dict()
    return found


@pytest.mark.parametrize("form", ["plain.pth", "wrapped.pth", "headless.pth", "plain.safetensors"])
def test_local_weights(form: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / form
    if form.endswith("safetensors"):
        save_file(state, path)
    elif form.startswith("headless"):
        torch.save({name: tensor for name, tensor in state.items() if not name.startswith("fc.")}, path)
    else:
        torch.save({"state_dict": state} if form.startswith("wrapped") else state, path)
    body = Backbone(BackboneSettings(name="resnet18", weights=str(path))).body.state_dict()
    assert len(body) == 120
    assert all(torch.equal(tensor, state[name]) for name, tensor in body.items())
    # a checkpoint's own weights replace them anyway
    assert Backbone(BackboneSettings(name="resnet18", weights="/not/there"), load_weights=False)


def test_flattened_names(tmp_path: Path) -> None:
    torch.save(timm.create_model("convnext_atto").state_dict(), tmp_path / "w.pth")
    assert Backbone(BackboneSettings(name="convnext_atto", weights=str(tmp_path / "w.pth")))


def test_weights_of_something_else(state: dict[str, Tensor], tmp_path: Path) -> None:
    """timm takes what fits by name and says nothing of the rest: training would silently start from noise."""
    path = tmp_path / "w.pth"
    renamed = {f"other.{name}": tensor for name, tensor in state.items()}
    partial = {name: tensor for name, tensor in state.items() if not name.startswith("layer4.1")}
    wrong_shape = {**state, "conv1.weight": torch.zeros(64, 3, 5, 5)}
    for content, why in (
        (renamed, "it has no conv1.weight and 59 more"),
        (partial, "it has no layer4.1.conv1.weight and 5 more"),
        (wrong_shape, "Error(s) in loading state_dict for ResNet:"),
    ):
        torch.save(content, path)
        with pytest.raises(RequestError) as error:
            Backbone(BackboneSettings(name="resnet18", weights=str(path)))
        assert str(error.value) == f"{path} does not hold the weights of timm's 'resnet18': {why}"


def test_unusable_weight_files(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    expected = f"model.backbone.weights: there is no file {path} (write none, imagenet, or a file's path)"
    with pytest.raises(RequestError, match=f"^{re.escape(expected)}$"):
        Backbone(BackboneSettings(name="resnet18", weights=str(path)))
    contents: list[object] = [torch.zeros(3), [1, 2], {}, {"epoch": 3}]
    for content in contents:
        torch.save(content, path)
        with pytest.raises(RequestError, match=r"^model\.backbone\.weights: .*w\.pth holds no "):
            Backbone(BackboneSettings(name="resnet18", weights=str(path)))
    path.write_bytes(b"not a weight file")
    with pytest.raises(RequestError, match=r"^model\.backbone\.weights: .*w\.pth is a text file"):
        Backbone(BackboneSettings(name="resnet18", weights=str(path)))


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["RETINANET_TEST_PAYLOAD"],)


def test_a_weight_file_executes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINANET_TEST_PAYLOAD", str(tmp_path / "made"))
    torch.save({"state_dict": Payload()}, tmp_path / "w.pth")
    with pytest.raises(RequestError, match=r"mkdir, which weights do not need"):
        Backbone(BackboneSettings(name="resnet18", weights=str(tmp_path / "w.pth")))
    assert not (tmp_path / "made").exists()


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def step(backbone: Backbone) -> set[str]:
    """Names of what one training step changes."""
    backbone.train()
    before = snapshot(backbone.body)
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.5, weight_decay=0.1)
    sum((f.square().mean() for f in backbone(torch.randn(2, 3, 64, 64))), torch.zeros(())).backward()
    optimizer.step()
    return {name for name, tensor in backbone.body.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize(
    ("name", "stages", "still", "moving"),
    [
        ("resnet18", 0, (), ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")),
        ("resnet18", 1, ("conv1", "bn1"), ("layer1", "layer2", "layer3", "layer4")),
        ("resnet18", 2, ("conv1", "bn1", "layer1"), ("layer2", "layer3", "layer4")),
        ("mobilenetv3_small_050", 2, ("conv_stem", "bn1", "blocks.0"), ("blocks.1", "blocks.2", "blocks.5")),
        ("convnext_atto", 2, ("stem", "stages_0", "stages_1"), ("stages_2", "stages_3")),
    ],
)
def test_frozen_stages(name: str, stages: int, still: tuple[str, ...], moving: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    changed = step(Backbone(BackboneSettings(name=name, frozen_stages=stages)))
    assert not [n for n in changed if n.startswith(still)] or not still
    assert all(any(n.startswith(part) for n in changed) for part in moving)
    if "resnet" in name:  # statistics move with the rest
        assert any("running_mean" in n for n in changed)


def test_frozen_norm() -> None:
    torch.manual_seed(0)
    backbone = Backbone(BackboneSettings(name="resnet18", frozen_norm=True))
    norms = {n for n, m in backbone.body.named_modules() if isinstance(m, nn.BatchNorm2d)}
    changed = step(backbone)
    assert len(norms) == 20
    assert not [n for n in changed if n.rpartition(".")[0] in norms]
    assert len(changed) == 20  # every convolution
    assert "layer4.0.bn1" in norms


def test_everything_frozen_and_too_much() -> None:
    assert not any(p.requires_grad for p in Backbone(BackboneSettings(name="resnet18", frozen_stages=5)).parameters())
    expected = "model.backbone.frozen_stages is 6, but the backbone has 5 parts: act1, layer1, layer2, layer3, layer4"
    with pytest.raises(RequestError, match=f"^{re.escape(expected)}$"):
        Backbone(BackboneSettings(name="resnet18", frozen_stages=6))


def test_a_part_that_is_no_module() -> None:
    with pytest.raises(
        RequestError, match=r"^model\.backbone\.frozen_stages is 1, but part 1 of this backbone \(stem\)"
    ):
        Backbone(BackboneSettings(name="hrnet_w18_small", frozen_stages=1))
