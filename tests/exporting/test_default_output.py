"""Where an export goes if no output is given."""

from pathlib import Path

import pytest

from helpers import exported_models as models
from retinanet.cli import main
from retinanet.exporting.exporter import default_output


@pytest.mark.parametrize(
    ("model", "format", "precision", "expected"),
    [
        ("runs/pets-1", "onnx", "fp32", "runs/pets-1.onnx"),
        ("runs/pets-1/", "torch", "fp32", "runs/pets-1.pt2"),
        ("runs/v1.2", "onnx", "fp32", "runs/v1.2.onnx"),
        ("runs/pets-1", "openvino", "fp32", "runs/pets-1-openvino"),
        ("runs/pets-1", "openvino", "int8", "runs/pets-1-openvino-int8"),
        ("runs/pets-1/best.safetensors", "onnx", "fp32", "runs/pets-1/best.onnx"),
        ("runs", "onnx", "fp32", "runs.onnx"),
        ("user/name@main", "onnx", "fp32", "name.onnx"),
        ("hf://user/name@main/model.safetensors", "onnx", "fp32", "model.onnx"),
        ("https://zoo.org/r50.pth?download=1", "torch", "fp32", "r50.pt2"),
        ("retinanet_resnet50_fpn_v2", "openvino", "bf16", "retinanet_resnet50_fpn_v2-openvino-bf16"),
    ],
)
def test_beside_the_model_and_named_after_it(tmp_path, monkeypatch, model, format, precision, expected):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/pets-1", "runs/v1.2"):
        Path(folder).mkdir(parents=True)
    Path("runs/pets-1/best.safetensors").touch()
    assert default_output(model, format, precision) == Path(expected)


def test_of_the_folder_that_one_is_in(tmp_path, monkeypatch):
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path / "pets")
    assert default_output(".", "onnx") == tmp_path / "pets.onnx"
    assert default_output(Path(), "onnx") == tmp_path / "pets.onnx"


def test_export_says_where_it_wrote(tmp_path, capsys):
    models.make().save(tmp_path / "m.safetensors")
    assert main(["export", str(tmp_path / "m.safetensors"), "--format", "torch"]) == 0
    assert f"written: {tmp_path}/m.pt2" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "m.safetensors"), "--format", "torch"]) == 2
    assert f"{tmp_path}/m.pt2 exists" in capsys.readouterr().err
