"""torch.export files: the same detections, and nothing in a file that runs."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import exported_models as models
from retinanet.deploy import torch_export
from retinanet.deploy.agreement import Agreement
from retinanet.deploy.export import export
from retinanet.detector import Detector
from retinanet.errors import RequestError

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return models.make(depth=0)


@pytest.fixture(scope="module")
def file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("torch") / "m.pt2"
    made = export(detector, "torch", place, check=[models.picture(50, 90), models.picture(1, 1)])
    assert made.files == (place,)
    assert made.differences["detections"] > 5
    assert made.differences["pixels"] < 0.01
    return place


def test_same_detections(file: Path, detector: Detector) -> None:
    assert torch_export.recognises(file)
    exported = torch_export.load_torch(file)
    assert exported.settings == detector.settings
    assert exported.class_names == detector.class_names
    assert exported.threshold == 0.4
    together = Agreement()
    pictures = [models.picture(*shape) for shape in models.SHAPES] * 2
    for a, b in zip(exported.predict(pictures), detector.predict(pictures), strict=True):
        together.add(a, b, detector.settings.postprocessing)
    assert together.good
    assert together.pixels < 0.01
    assert len(exported.predict(pictures[0], size=96, threshold=0.1)) > 0


def changed(file: Path, place: Path, change: Callable[[Files], None]) -> Path:
    with zipfile.ZipFile(file) as archive:
        files = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(place, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"m/{name}", content)
    return place


def in_model(files: Files, old: str, new: str) -> None:
    text = files["models/model.json"].decode()
    assert old in text
    files["models/model.json"] = text.replace(old, new, 1).encode()


def pickle_a_weight(files: Files) -> None:
    known = json.loads(files["data/weights/model_weights_config.json"])
    next(iter(known["config"].values()))["use_pickle"] = True
    files["data/weights/model_weights_config.json"] = json.dumps(known).encode()


def example_inputs(files: Files) -> None:
    buffer = io.BytesIO()
    torch.save(((torch.zeros(1),), {}), buffer)
    files["data/sample_inputs/model.pt"] = buffer.getvalue()


CHANGES: dict[str, tuple[Callable[[Files], None], str]] = {
    "another function": (lambda f: in_model(f, "torch.ops.aten.relu.default", "torch.hub.load"), "call of torch.hub"),
    "a function of Python's": (lambda f: in_model(f, "torch.ops.aten.relu.default", "math.__loader__"), "call of math"),
    "a formula": (lambda f: in_model(f, "Integer(32)", "__import__(chr(111))"), "the formula"),
    "a pickled weight": (pickle_a_weight, "the pickle"),
    "an old weight file": (lambda f: f.update({"data/weights/model.pt": b"x"}), "the file data/weights"),
    "example inputs": (example_inputs, "example inputs"),
    "compiled code": (lambda f: f.update({"data/aotinductor/model/a.so": b"x"}), "the file"),
    "something else": (lambda f: f.update({"more/a": b"x"}), "the file"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_could_run_is_refused(name: str, file: Path, tmp_path: Path) -> None:
    change, words = CHANGES[name]
    with pytest.raises(RequestError, match=f"is refused, .*{words}"):
        torch_export.load_torch(changed(file, tmp_path / "m.pt2", change))


def test_an_archive_written_again_is_the_same(file: Path, tmp_path: Path) -> None:
    """So that what is refused above is refused for its change."""
    assert torch_export.look_through(changed(file, tmp_path / "m.pt2", lambda files: None))["classes"]


def test_what_is_no_file_of_ours(file: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no file"):
        torch_export.load_torch(tmp_path / "none.pt2")
    with pytest.raises(RequestError, match="runs on the processor"):
        torch_export.load_torch(file, "cuda")
    noise = tmp_path / "noise.pt2"
    noise.write_bytes(b"noise")
    assert not torch_export.recognises(noise)
    with pytest.raises(RequestError, match="cannot be read as a PyTorch program"):
        torch_export.load_torch(noise)
    with pytest.raises(RequestError, match="is not a network that retinanet export"):
        torch_export.load_torch(changed(file, tmp_path / "m.pt2", lambda files: files.pop("extra/retinanet.json")))
