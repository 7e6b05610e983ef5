"""torch.export files: the same detections, and nothing of a file is loaded unless it is trusted."""

from __future__ import annotations

import inspect
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import retinanet
from helpers import exported_models as models
from retinanet.cli import main
from retinanet.cli.bench_command import bench
from retinanet.cli.convert_command import convert
from retinanet.cli.evaluate_command import evaluate
from retinanet.cli.export_command import export as export_command
from retinanet.cli.predict_command import predict
from retinanet.cli.push_command import push
from retinanet.cli.serve_command import serve
from retinanet.common.errors import RequestError
from retinanet.exporting import torch_export
from retinanet.exporting.detector_agreement import Agreement
from retinanet.exporting.exporter import export
from retinanet.inference.detector import Detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    return models.make(depth=0)


@pytest.fixture(scope="module")
def file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("torch") / "m.pt2"
    made = export(detector, "torch", place, check=[models.make_image(50, 90), models.make_image(1, 1)])
    assert made.files == (place,)
    assert made.differences["detections"] > 5
    assert made.differences["pixels"] < 0.01
    return place


def test_same_detections(file: Path, detector: Detector) -> None:
    assert torch_export.recognises(file)
    exported = torch_export.load_torch(file, trust=True)
    assert exported.settings == detector.settings
    assert exported.class_names == detector.class_names
    assert exported.threshold == 0.4
    together = Agreement()
    images = [models.make_image(*shape) for shape in models.SHAPES] * 2
    for a, b in zip(exported.predict(images), detector.predict(images), strict=True):
        together.add(a, b, detector.settings.postprocessing)
    assert together.good
    assert together.pixels < 0.01
    assert len(exported.predict(images[0], size=96, threshold=0.1)) > 0


def test_a_program_is_loaded_only_where_it_is_trusted(file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.pt2").write_bytes(file.read_bytes())
    for source in (file, str(file), tmp_path / "run"):
        with pytest.raises(RequestError, match=r"is a program.* --trust .*trust=True"):
            retinanet.load(source)
    assert len(retinanet.load(file, trust=True).class_names) == 3


def test_nothing_of_an_archive_is_read_before_it_is_trusted(file: Path, tmp_path: Path) -> None:
    """An archive that two readers see differently, and one that unpickles what it says."""
    made = tmp_path / "made"
    bad = tmp_path / "m.pt2"
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(bad, "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith("model_weights_config.json"):
                content = content.replace(b'"use_pickle": false', b'"use_pickle": true')
            if name.endswith("/weight_0"):
                content = pickle.dumps(Touch(made))
            changed.writestr(name, content)
    with pytest.raises(RequestError, match="is a program"):
        retinanet.load(bad)
    assert not made.exists()
    pickle.loads(pickle.dumps(Touch(made)))  # the payload is one
    assert made.exists()


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("command", [predict, evaluate, serve, bench, export_command, push, convert])
def test_every_command_that_runs_a_model_can_be_told(command: Callable[..., None]) -> None:
    """The others take weights, which such a file has none of that could be kept."""
    takes = "trust" in inspect.signature(command).parameters
    assert takes == (command in (predict, evaluate, serve, bench))


def test_commands(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (60, 50)).save(tmp_path / "a.png")
    arguments = ["predict", str(file), str(tmp_path / "a.png"), "--output", str(tmp_path / "out"), "--quiet"]
    assert main(arguments) == 2
    assert "--trust" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*arguments, "--trust"]) == 0
    assert (tmp_path / "out" / "detections.json").is_file()
    for command in (["convert", str(file), str(tmp_path / "a.safetensors")], ["push", str(file), "user/name"]):
        assert main(command) == 2
        assert "the checkpoint that it was made from" in capsys.readouterr().err


def test_what_is_no_file_of_ours(file: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no file"):
        torch_export.load_torch(tmp_path / "none.pt2")
    with pytest.raises(RequestError, match="runs on the CPU"):
        torch_export.load_torch(file, "cuda")
    noise = tmp_path / "noise.pt2"
    noise.write_bytes(b"noise")
    with pytest.raises(RequestError, match="is a program"):
        torch_export.load_torch(noise)
    with pytest.raises(RequestError, match="cannot be read by PyTorch"):
        torch_export.load_torch(noise, trust=True)
    other = tmp_path / "other.pt2"
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), other)
    with pytest.raises(RequestError, match="names the format None"):
        torch_export.load_torch(other, trust=True)
