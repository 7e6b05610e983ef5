"""retinanet convert, and other projects' checkpoints where a model is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import retinanet
from retinanet.bench.model_comparison import kind_of
from retinanet.checkpoints import Checkpoint, native, origin
from retinanet.cli import main
from retinanet.cli.convert_command import conventions
from retinanet.common import errors, precision
from retinanet.config.bounds import Interpolation
from retinanet.config.model_settings import ModelSettings, PreprocessingSettings
from retinanet.data.image_io import to_tensor
from retinanet.inference.detector import Detector

NAMES = ("nothing", "red", "green")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small RetinaNet of torchvision's with three classes, as its users save it."""
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        norm_layer=nn.BatchNorm2d,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64, 128, 256, 512))
    model: Any = RetinaNet(backbone, 3, anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5))
    nn.init.normal_(model.head.classification_head.cls_logits.weight, std=0.05)
    nn.init.constant_(model.head.classification_head.cls_logits.bias, -2.0)
    path = tmp_path_factory.mktemp("theirs") / "model.pth"
    torch.save(model.state_dict(), path)
    return path


def image() -> Tensor:
    return torch.randint(0, 256, (3, 60, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_convert(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, names = tmp_path / "ours.safetensors", tmp_path / "names.txt"
    names.write_text("nothing\nred\n\n  green \n", encoding="utf-8")
    result = tmp_path / "r.json"
    command = ["convert", str(theirs), str(file), "--classes", str(names), "--model.preprocessing.size", "64"]
    assert main([*command, "--json", str(result)]) == 0
    printed = capsys.readouterr().out
    assert f"{theirs}: torchvision" in printed
    assert "shorter side 64, longer at most 1333, bilinear, not antialiased, padded to a multiple of 32" in printed
    assert "3 classes: nothing, red, green" in printed
    assert f"written: {file}" in printed
    facts = json.loads(result.read_text())
    assert facts["classes"] == list(NAMES)
    assert facts["settings"]["anchors"]["rounding"] == "torchvision"

    ours, direct = retinanet.load(file, precision="fp32"), retinanet.load(theirs, precision="fp32")
    assert ours.class_names == NAMES
    assert ours.settings.preprocessing.size == 64
    assert ours.about["origin"] == facts["origin"]
    detections, expected = ours.predict(image()), direct.predict(image(), size=64)
    assert len(detections) == len(expected) > 20
    assert torch.equal(detections.boxes, expected.boxes)
    assert torch.equal(detections.scores, expected.scores)

    assert main(command) == 2
    assert "ours.safetensors exists: name a new file" in capsys.readouterr().err


@pytest.mark.slow
def test_precision(theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs compute in fp32, converted or not, also where the CPU has bf16; what is trained here does as ever."""
    monkeypatch.delenv(precision.VARIABLE, raising=False)  # the suite is also run with it
    monkeypatch.setattr(precision, "computes_bf16", lambda device: True)
    assert main(["convert", str(theirs), str(tmp_path / "converted.safetensors"), "--quiet"]) == 0
    for file in (theirs, tmp_path / "converted.safetensors"):
        detector = retinanet.load(file)
        assert detector.precision == "fp32"
        assert "torchvision" in detector.computes
        assert "torchvision" in repr(detector)
        assert any("norm" in line or "anchors" in line for line in detector.assumed)
        assert kind_of(str(file), detector) == "PyTorch fp32"
    # fp32 is not the fast one, whose rounding is another: what is found is what plain PyTorch finds.
    plain = Detector(detector.model, detector.class_names)
    ours, other = detector.predict(image(), size=64), plain.predict(image(), size=64)
    assert len(ours) == len(other) > 20
    assert float((ours.scores - other.scores).abs().max()) < 1e-5
    assert retinanet.load(theirs, precision="auto").precision == "bf16"
    rude = Detector(
        detector.model, detector.class_names, about={"assumed": ["\x1b[2J", 3, "fine"], "origin": "\x1b[2J"}
    )
    assert rude.assumed == ("\\x1b[2J", "fine")
    assert origin(rude.about) == "\\x1b[2J"
    own = {name: value for name, value in detector.about.items() if name != "origin"}
    native.save(tmp_path / "own.safetensors", detector.weights(), detector.settings, detector.class_names, own)
    assert retinanet.load(tmp_path / "own.safetensors").precision == "bf16"
    assert retinanet.load(tmp_path / "own.safetensors", precision="fp32").precision == "fp32"


def test_predict_with_their_file(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.fromarray(to_tensor(image()).permute(1, 2, 0).numpy()).save(tmp_path / "p.png")
    result = tmp_path / "r.json"
    arguments = ["predict", str(theirs), str(tmp_path / "p.png"), "--output", str(tmp_path / "found")]
    assert main([*arguments, "--size", "64", "--threshold", "0.05", "--json", str(result)]) == 0
    printed = capsys.readouterr().err
    assert f"{theirs} computes in fp32 (a model of torchvision" in printed
    assert "assumed: anchors" in printed
    assert json.loads(result.read_text())["precision"] == "fp32"
    assert json.loads((tmp_path / "found" / "detections.json").read_text())["annotations"]


@pytest.mark.slow
def test_other_anchors_are_given(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load(theirs, weights_only=True)
    for name in [name for name in state if ".cls_logits." in name or ".bbox_reg." in name]:
        state[name] = state[name].unflatten(0, (9, -1))[[1, 4, 7]].flatten(0, 1)  # the middle scale of each ratio
    torch.save(state, tmp_path / "three.pth")
    command = ["convert", str(tmp_path / "three.pth"), str(tmp_path / "three.safetensors")]
    assert main(command) == 2
    assert "--model.anchors" in capsys.readouterr().err
    assert main([*command, "--model.anchors.scales", str(2 ** (1 / 3))]) == 0
    assert "assumed: anchors" not in capsys.readouterr().err
    detections, whole = (
        retinanet.load(file).predict(image(), size=64) for file in (tmp_path / "three.safetensors", theirs)
    )
    kept = {tuple(box) for box in whole.boxes.round(decimals=1).tolist()}
    assert any(tuple(box) in kept for box in detections.boxes.round(decimals=1).tolist())


def test_names_without_the_background_drop_its_output(theirs: Path, tmp_path: Path) -> None:
    """torchvision fine-tuning makes K + 1 outputs for K classes, whose labels start at 1."""
    file = tmp_path / "two.safetensors"
    assert main(["convert", str(theirs), str(file), "--classes", "red", "green"]) == 0
    three = retinanet.load(theirs, precision="fp32", class_names=NAMES)
    for two in (retinanet.load(file), retinanet.load(theirs, precision="fp32", class_names=["red", "green"])):
        assert two.class_names == ("red", "green")
        assert not [line for line in two.assumed if "names" in line]
        images = torch.rand(1, 3, 64, 96)
        logits, expected = (torch.cat(list(d.model(images).logits), 1) for d in (two, three))
        torch.testing.assert_close(logits, expected[..., 1:])
    with pytest.raises(errors.RequestError, match="takes 2"):  # its classes are named, so none is the background
        retinanet.load(file, class_names=["red"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.pkl", "x.safetensors"], "there is no model"),
        (["THEIRS", "x.pth"], "x.pth must be a safetensors file"),
        (["THEIRS", "nowhere/x.safetensors"], "there is no folder"),
        (["THEIRS", "x.safetensors", "--classes", "a", "b", "c", "d"], "4 class names"),
        (["THEIRS", "x.safetensors", "--classes", "a", "b", "a"], "'a' again"),
        (["THEIRS", "x.safetensors", "--classes", "missing.txt"], "--classes missing.txt cannot be read"),
        (["THEIRS", "x.safetensors", "--model.head.depth", "3"], "not in its network"),
        (["THEIRS", "x.safetensors", "--model.preprocessing.size", "0"], "size must be at least 1"),
        (["text.pth", "x.safetensors"], "text.pth"),
    ],
)
def test_wrong_requests(
    theirs: Path,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.pth").write_text("no weights")
    assert main(["convert", *(a.replace("THEIRS", str(theirs)) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not Path("x.safetensors").exists()


def test_what_no_converter_knows(tmp_path: Path) -> None:
    torch.save({"layer.weight": torch.zeros(2), "layer.bias": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(errors.RequestError) as error:
        retinanet.load(tmp_path / "other.pth")
    assert "other.pth is no known RetinaNet" in str(error.value)
    assert "layer.weight" in str(error.value)
    assert "Detectron2's" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "why"), [("module.regressionModel.output", "scikit-image"), ("box_head.8", "include their last pixel")]
)
def test_other_retinanets_are_known_and_the_refusal_says_why(name: str, why: str, tmp_path: Path) -> None:
    prefix = "module." if name.startswith("module.") else ""
    tensors = {f"{name}.weight": torch.zeros(36, 256, 3, 3), f"{prefix}conv1.weight": torch.zeros(64, 3, 7, 7)}
    torch.save({"state_dict": tensors, "classes": 80}, tmp_path / "other.pth")
    with pytest.raises(errors.RequestError, match=why) as error:
        retinanet.load(tmp_path / "other.pth")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_every_resampling_has_words(interpolation: Interpolation) -> None:
    settings = ModelSettings(preprocessing=PreprocessingSettings(interpolation=interpolation))
    assert "bilinear" in conventions(Checkpoint({}, settings, ("a",), {}))[0]
