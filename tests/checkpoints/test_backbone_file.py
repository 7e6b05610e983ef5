"""Weight files of backbones are recognised by their tensors, however the file and the tensors are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from helpers.synthetic_data import rectangles
from retinanet import checkpoints
from retinanet.checkpoints.backbone_file import recognise
from retinanet.cli import main
from retinanet.common.errors import RequestError
from retinanet.config.model_settings import BackboneSettings
from retinanet.model.backbone import Backbone
from retinanet.weight_files import reader


def weights(name: str, **options: Any) -> dict[str, Tensor]:
    torch.manual_seed(3)
    state: dict[str, Tensor] = timm.create_model(name, **options).state_dict()
    return state


def saved(path: Path, value: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(value, path)
    else:
        torch.save(value, path)
    return path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenetv2_100", "a.safetensors"),
        ("resnet18", "resnet18-f37072fd.pth"),
        ("resnet26d", "x.pth"),
        ("convnext_atto", "x.safetensors"),
        ("mobilenetv3_small_050", "pytorch_model.bin"),
        ("efficientnet_b0", "b.pth"),
    ],
)
def test_recognised_by_contents(name: str, file: str, tmp_path: Path) -> None:
    found = checkpoints.backbone(saved(tmp_path / file, weights(name)))
    assert found is not None
    assert (found.name, found.mean) == (name, None)
    assert found.twin == ("tf_efficientnet_b0" if name == "efficientnet_b0" else None)


def test_a_deeper_network_is_not_taken_for_a_part_of_it(tmp_path: Path) -> None:
    """All tensors of a ResNet-18 have the same names and shapes in a ResNet-34."""
    found = checkpoints.backbone(saved(tmp_path / "resnet18.pth", weights("resnet34")))
    assert found is not None
    assert found.name == "resnet34"


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.backbone.", "encoder.", "model.encoder.", "model."])
@pytest.mark.parametrize("head", [True, False])
def test_prefixes(prefix: str, head: bool, tmp_path: Path) -> None:
    """What stands before the names of a backbone's tensors, with other tensors or without."""
    state = weights("resnet18", num_classes=5 if head else 0)
    file = {f"{prefix}{name}": tensor for name, tensor in state.items()} | {"projector.0.weight": torch.zeros(2, 3)}
    path = saved(tmp_path / "x.pth", {"state_dict": file, "epoch": 3})
    found = checkpoints.backbone(path)
    assert found is not None
    assert found.name == "resnet18"
    body = Backbone(BackboneSettings(name="resnet18", weights=str(path))).body.state_dict()
    assert torch.equal(body["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert torch.equal(body["bn1.running_var"], state["bn1.running_var"])


def test_features_alone(tmp_path: Path) -> None:
    """Weights without the last convolution, which a feature extractor does not have."""
    state = weights("mobilenetv2_100", features_only=True)
    found = checkpoints.backbone(saved(tmp_path / "x.safetensors", state))
    assert found is not None
    assert found.name == "mobilenetv2_100"


def test_the_files_name_decides_between_twins(tmp_path: Path) -> None:
    state = weights("tf_efficientnet_b0")
    named = checkpoints.backbone(saved(tmp_path / "tf_efficientnet_b0_aa-827b6e33.pth", state))
    assert named is not None
    assert (named.name, named.twin) == ("tf_efficientnet_b0", None)


def test_what_stands_beside_the_file(tmp_path: Path) -> None:
    """timm's config.json has the normalisation of these weights."""
    about = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    found = checkpoints.backbone(saved(tmp_path / "model.safetensors", weights("resnet18")))
    assert found is not None
    assert (found.name, found.mean, found.std) == ("resnet18", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        ({"features.0.0.weight": (32, 3, 3, 3), "classifier.1.weight": (1000, 1280)}, "torchvision's MobileNet"),
        ({"roi_heads.box_predictor.weight": (4, 4), "x.weight": (4, 3, 3, 3)}, "Faster R-CNN"),
        ({"model.0.conv.weight": (16, 3, 3, 3), "model.22.cv2.weight": (4, 4)}, "Ultralytics YOLO"),
        ({"layers.0.w.weight": (4, 4), "lm_head.weight": (4, 4)}, "a language model"),
        ({"some.weight": (4, 3, 3, 3), "other.bias": (4,)}, "2 tensors (other.bias, some.weight)"),
    ],
)
def test_a_file_of_something_else(
    tensors: dict[str, tuple[int, ...]], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "x.pth", {name: torch.zeros(shape) for name, shape in tensors.items()})
    assert checkpoints.backbone(path) is None
    root = rectangles(tmp_path / "data")
    assert main(["train", str(root), "--weights", str(path), "--output", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert kind in line
    assert not (tmp_path / "run").exists()


def test_a_model_that_it_has_to_be(tmp_path: Path) -> None:
    contents = reader.read(saved(tmp_path / "x.pth", weights("resnet34")))
    assert recognise(contents, "resnet18") is None
    assert recognise(contents, "resnet34") is not None


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"there is no model .*x\.pth"):
        checkpoints.backbone(tmp_path / "x.pth")
