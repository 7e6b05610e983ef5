"""ONNX files: the same detections as the model's, in every convention."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import exported_models as models
from retinanet.common.errors import RequestError, WorkError
from retinanet.common.fields import from_plain
from retinanet.config.model_settings import ModelSettings
from retinanet.exporting.detector_agreement import Agreement
from retinanet.inference.detections import Detections
from retinanet.inference.detector import Detector

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from retinanet.cli.export_command import export as command  # noqa: E402
from retinanet.cli.options import Common  # noqa: E402
from retinanet.exporting import exporter, verify  # noqa: E402
from retinanet.exporting.onnx import onnx_export, onnx_runtime  # noqa: E402


@pytest.fixture(scope="module")
def detector() -> Detector:
    return models.make()


@pytest.fixture(scope="module")
def made(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the command has exported "m.safetensors" to "m.onnx" and "triton", and said "m.json"."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("made")
    detector.save(folder / "m.safetensors")
    (folder / "check").mkdir()
    for seed in range(3):
        Image.fromarray(models.make_image(50, 90, seed).permute(1, 2, 0).numpy()).save(folder / "check" / f"{seed}.png")
    command(
        str(folder / "m.safetensors"),
        format="onnx",
        output=folder / "m.onnx",
        check=folder / "check",
        triton=folder / "triton",
        common=Common(json=str(folder / "m.json")),
    )
    return folder


@pytest.fixture(scope="module")
def traced(made: Path, detector: Detector) -> Any:
    """The network out of the exported file: every convention has it in common, and tracing takes seconds."""
    model = onnx.load(made / "m.onnx")
    graph = model.graph
    for parts in (graph.node, graph.initializer):
        kept = [part for part in parts if not part.name.startswith(("before/", "after/"))]
        del parts[:]
        parts.extend(kept)
    for node in graph.node:
        node.input[:] = ["images" if name == onnx_export.NETWORK_INPUT else name for name in node.input]
    onnx_export.declare_network(graph, detector.settings, len(detector.class_names))
    return model


def assemble(traced: Any, detector: Detector, place: Path, network_only: bool = False) -> Path:
    model = onnx.ModelProto()
    model.CopyFrom(traced)
    model = onnx_export.assemble(model, detector, network_only)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, place)
    return place


@pytest.fixture(scope="module")
def complete(traced: Any, detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble(traced, detector, tmp_path_factory.mktemp("onnx") / "complete.onnx")


@pytest.fixture(scope="module")
def alone(traced: Any, detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble(traced, detector, tmp_path_factory.mktemp("onnx") / "alone.onnx", network_only=True)


@pytest.mark.parametrize("name", models.CONVENTIONS)
def test_same_detections(name: str, traced: Any, detector: Detector, tmp_path: Path) -> None:
    model = models.changed(detector, models.CONVENTIONS[name])
    exported = onnx_runtime.load_onnx(assemble(traced, model, tmp_path / "m.onnx"))
    assert exported.settings == model.settings
    together = Agreement()
    for shape in models.SHAPES:
        image = models.make_image(*shape)
        together.add(exported.predict(image), model.predict(image), model.settings.postprocessing)
    assert together.detections > 100
    assert together.others == 0
    assert together.limits <= 4
    # Pillow resizes tall images in the other order: single pixels are another grey level.
    grey = model.settings.preprocessing.interpolation == "pillow"
    assert together.pixels < (0.4 if grey else 0.005)
    assert together.score < (1e-3 if grey else 1e-5)


def test_file(complete: Path, detector: Detector) -> None:
    model = onnx.load(complete)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    (images,) = model.graph.input
    assert images.name == "images"
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    shapes = {
        one.name: [d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim]
        for one in (images, *model.graph.output)
    }
    assert shapes == {
        "images": ["batch", "height", "width", 3],
        "boxes": ["batch", 100, 4],
        "scores": ["batch", 100],
        "labels": ["batch", 100],
        "counts": ["batch"],
    }
    known = {one.key: one.value for one in model.metadata_props}
    assert json.loads(known["retinanet.classes"]) == list(detector.class_names)
    assert json.loads(known["names"]) == {"0": "class 0", "1": "class 1", "2": "class 2"}
    assert from_plain(ModelSettings, json.loads(known["retinanet.settings"])) == detector.settings
    assert known["threshold"] == "0.4"
    # No path of the machine that made it.
    assert str(Path(onnx_export.__file__).parents[2]).encode() not in complete.read_bytes()


def test_outputs_behind_the_last_detection(traced: Any, detector: Detector, tmp_path: Path) -> None:
    limit = float(detector.predict(models.make_image(50, 90)).scores[20])
    strict = models.changed(detector, {"postprocessing": {"threshold": limit}})
    run = onnx_runtime.session(assemble(traced, strict, tmp_path / "m.onnx")).run
    batch = np.stack([models.make_image(50, 90, seed).permute(1, 2, 0).numpy() for seed in range(3)])
    boxes, scores, labels, counts = run(None, {"images": batch})
    assert (boxes.dtype, scores.dtype, labels.dtype, counts.dtype) == (np.float32, np.float32, np.int64, np.int64)
    assert (scores.shape, counts.shape) == ((3, 100), (3,))
    assert counts[0] in (20, 21)
    assert 0 < counts.min() < counts.max() < 100
    behind = np.arange(100) >= counts[:, None]
    assert behind.any()
    assert (boxes[behind] == 0).all()
    assert (scores[behind] == 0).all()
    assert (labels[behind] == -1).all()
    assert (scores[~behind] > np.float32(limit)).all()
    assert (labels[~behind] >= 0).all()
    alone = [run(None, {"images": batch[i : i + 1]}) for i in range(3)]
    for i, one in enumerate(alone):
        assert one[3][0] == counts[i]
        np.testing.assert_allclose(one[0][0], boxes[i], atol=1e-3)


@pytest.mark.parametrize("clip", ["before", "after"])
def test_nothing_found(clip: str, traced: Any, detector: Detector, tmp_path: Path) -> None:
    strict = models.changed(detector, {"postprocessing": {"threshold": 0.9999, "clip": clip, "drop_empty": True}})
    exported = onnx_runtime.load_onnx(assemble(traced, strict, tmp_path / "m.onnx"))
    found = exported.predict([models.make_image(50, 90)] * 2)
    assert [len(one) for one in found] == [0, 0]
    assert found[0].boxes.shape == (0, 4)


def test_network_only(alone: Path, detector: Detector) -> None:
    model = onnx.load(alone)
    assert [one.name for one in model.graph.output] == onnx_export.output_names(detector.settings)
    exported = onnx_runtime.load_onnx(alone)
    assert isinstance(exported, Detector)
    assert exported.threshold == 0.4
    assert exported.about["origin"] == "nowhere"
    for shape in models.SHAPES[:3]:
        image = models.make_image(*shape)
        for size in (None, 96):
            together = Agreement()
            found = exported.predict(image, size=size, threshold=0.1)
            together.add(found, detector.predict(image, size=size, threshold=0.1), detector.settings.postprocessing)
            assert together.good
            assert together.detections > 5
            assert together.pixels < 0.01


def test_predict(complete: Path, detector: Detector, tmp_path: Path) -> None:
    """What a detector takes: paths, images, arrays, tensors and lists of them, of several sizes."""
    from PIL import Image

    exported = onnx_runtime.load_onnx(complete)
    assert exported.class_names == detector.class_names
    assert exported.threshold == 0.4
    assert exported.device == torch.device("cpu")
    tensor = models.make_image(50, 90)
    array = tensor.permute(1, 2, 0).numpy()
    Image.fromarray(array).save(tmp_path / "p.png")
    once = exported.predict(tensor)
    assert isinstance(once, Detections)
    others = [models.make_image(64, 64, 5), models.make_image(50, 90, 7)]
    found = exported.predict([others[0], tmp_path / "p.png", array, Image.fromarray(array), others[1]], batch_size=2)
    for one in found[1:4]:
        torch.testing.assert_close(one.boxes, once.boxes, atol=1e-3, rtol=0)
    assert len(found[0]) == len(exported.predict(others[0]))
    middle = float(once.scores.median())
    assert exported.predict(tensor, threshold=middle).scores.tolist() == [s for s in once.scores.tolist() if s > middle]
    assert len(exported.predict(tensor, max_detections=2)) == 2
    assert exported.predict([]) == []
    (alone,) = exported.predict(tmp_path)
    assert (alone, alone.source) == (once, tmp_path / "p.png")
    assert next(exported.predict(iter([tensor]))) == exported(tensor) == once
    assert exported.to("cpu") is exported
    with pytest.raises(RequestError, match="an exported model cannot be moved: load its file again"):
        exported.to("meta")
    for wrong, words in (
        ({"size": 100}, "resizes images by itself"),
        ({"threshold": 0.2}, "drops scores at or below 0.3"),
        ({"max_detections": 101}, "at most 100 detections"),
        ({"threshold": "0.5"}, "threshold must be a number"),
        ({"max_detections": 0}, "max_detections must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"nms": "agnostic"}, 'with nms "class": use the checkpoint, or export it with --nms agnostic'),
    ):
        with pytest.raises(RequestError, match=words):
            exported.predict(tensor, **wrong)


def test_a_limit_inside_the_file(traced: Any, detector: Detector, tmp_path: Path) -> None:
    """Nobody who names no threshold asks for less than the file gives; who names one too low is told so."""
    pytest.importorskip("fastapi")
    from PIL import Image

    from helpers.serving import encoded, running
    from retinanet.cli.predict_command import predict

    strict = models.changed(detector, {"postprocessing": {"threshold": 0.6}})
    strict.about = {}
    exported = onnx_runtime.load_onnx(assemble(traced, strict, tmp_path / "m.onnx"))
    with running(exported) as server:
        known = server.get("/health").json
        assert (known["threshold"], known["least_threshold"]) == (0.6, 0.6)
        reply = server.predict(encoded())
        assert (reply.status, reply.json["threshold"]) == (200, 0.6)
        for query, words in (
            ("?threshold=0.5", "drops scores at or below 0.6"),
            ("?max_detections=101", "at most 100"),
        ):
            reply = server.predict(encoded(), query)
            assert reply.status == 422
            assert words in reply.json["error"]
            assert str(tmp_path) not in reply.json["error"]
    Image.fromarray(models.make_image(50, 90).permute(1, 2, 0).numpy()).save(tmp_path / "p.png")
    said = tmp_path / "said.json"
    predict(str(tmp_path / "m.onnx"), str(tmp_path / "p.png"), output=tmp_path / "o", common=Common(json=str(said)))
    assert json.loads(said.read_text())["threshold"] == 0.6


def test_documented_program(complete: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/export.md shows, as it stands there."""
    from PIL import Image

    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    program = re.search(r"```py\n(import json\nimport numpy.*?)```", text, re.DOTALL)
    assert program is not None
    (tmp_path / "mine.onnx").write_bytes(complete.read_bytes())
    Image.fromarray(models.make_image(50, 90).permute(1, 2, 0).numpy()).save(tmp_path / "street.jpg")
    monkeypatch.chdir(tmp_path)
    printed: list[tuple[Any, ...]] = []
    exec(program[1], {"print": lambda *values: printed.append(values)})
    found = onnx_runtime.load_onnx(complete).predict(tmp_path / "street.jpg")
    assert [values[0] for values in printed] == found.names
    np.testing.assert_array_equal(np.stack([values[2] for values in printed]), found.boxes.numpy())


def test_what_is_no_file_of_ours(tmp_path: Path, complete: Path) -> None:
    with pytest.raises(RequestError, match="there is no ONNX file"):
        onnx_runtime.load_onnx(tmp_path / "none.onnx")
    noise = tmp_path / "noise.onnx"
    noise.write_bytes(b"noise")
    assert onnx_runtime.recognises(noise)
    with pytest.raises(RequestError, match="cannot be read as an ONNX model"):
        onnx_runtime.load_onnx(noise)
    model = onnx.load(complete)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(RequestError, match="something else"):
        onnx_runtime.load_onnx(tmp_path / "other.onnx")
    with pytest.raises(RequestError, match="onnxruntime has no CUDA here"):
        onnx_runtime.load_onnx(complete, "cuda")


def altered(path: Path, place: Path, name: str, change: Any) -> Path:
    """A copy in which the first constant, or attribute of a node, of this name is another."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if re.search(name, tensor.name):
            array = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(change(array).astype(array.dtype), tensor.name))
            break
    else:
        pytest.fail(f"no {name}")
    onnx.save(model, place)
    return place


def test_verification(complete: Path, alone: Path, detector: Detector) -> None:
    for path in (complete, alone):
        differences = verify.verify_export(path, detector, onnx_runtime.load_onnx)
        assert differences["outputs"] < 1e-4
        assert differences["correlation"] > 0.999999
        assert differences["detections"] > 20
    chosen = [models.make_image(40, 60), models.make_image(70, 50)]
    assert verify.verify_export(complete, detector, onnx_runtime.load_onnx, chosen)["images"] == 3


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (r"class_subnet\.output\.weight", lambda w: w * 1.01, "standard deviations"),
        (r"box_subnet\.output\.weight", lambda w: w * 0.99, "standard deviations"),
        (r"after/threshold\.p3", lambda t: t + 0.2, "the export disagrees with the model"),
    ],
)
def test_verification_sees_a_change(
    name: str, change: Any, words: str, complete: Path, detector: Detector, tmp_path: Path
) -> None:
    place = altered(complete, tmp_path / "altered.onnx", name, change)
    with pytest.raises(WorkError, match=words):
        verify.verify_export(place, detector, onnx_runtime.load_onnx)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"preprocessing": {"interpolation": "plain"}}, "resizes images in another way"),
        ({"preprocessing": {"size": 65}}, "resizes an image to"),
        ({"preprocessing": {"mean": (0.4, 0.5, 0.5)}}, "resizes images in another way"),
        ({"postprocessing": {"nms_iou": 0.6}}, "post-processing in the export disagrees"),
        ({"anchors": {"offset": 0.0}}, "post-processing in the export disagrees"),
    ],
)
def test_an_untrained_model_is_checked_too(
    values: dict[str, Any], words: str, detector: Detector, traced: Any, tmp_path: Path
) -> None:
    """It detects nothing; a file of other settings is found out all the same."""
    quiet = models.changed(detector, {"postprocessing": {"threshold": 0.9999}})
    place = assemble(traced, models.changed(quiet, values), tmp_path / "m.onnx")
    with pytest.raises(WorkError, match=words):
        verify.verify_export(place, quiet, onnx_runtime.load_onnx)


def test_a_failed_check_leaves_no_file(
    complete: Path, detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(detector: Detector, place: Path, *_: Any) -> None:
        altered(complete, place, r"class_subnet\.output\.weight", lambda w: w * 1.01)

    monkeypatch.setattr(onnx_export, "write", wrong)
    with pytest.raises(WorkError, match="standard deviations"):
        exporter.export(detector, "onnx", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_command(made: Path, detector: Detector, tmp_path: Path) -> None:
    """Export, load, compare; and a folder for Triton."""
    output = made / "m.onnx"
    result = json.loads((made / "m.json").read_text())
    assert result["files"] == [str(output)]
    assert result["differences"]["images"] == 4
    assert result["differences"]["pixels"] < 0.01
    image = models.make_image(50, 90, 9)
    together, exported = Agreement(), onnx_runtime.load_onnx(output)
    together.add(exported.predict(image), detector.predict(image), detector.settings.postprocessing)
    assert together.good
    assert together.detections > 5
    with pytest.raises(RequestError, match="exists"):
        command(str(made / "m.safetensors"), format="onnx", output=output)
    with pytest.raises(RequestError, match="exported one"):
        exporter.export(exported, "onnx", tmp_path / "again.onnx")

    folder = made / "triton" / "m"
    assert (folder / "1" / "model.onnx").read_bytes() == output.read_bytes()
    assert (folder / "labels.txt").read_text().split("\n") == [*detector.class_names, ""]
    config = parse((folder / "config.pbtxt").read_text())
    assert config["name"] == "m"
    assert config["backend"] == "onnxruntime"
    session = onnx_runtime.session(output)
    for kind, given in (("input", session.get_inputs()), ("output", session.get_outputs())):
        assert [one["name"] for one in config[kind]] == [one.name for one in given]
        for one, tensor in zip(config[kind], given, strict=True):
            assert (
                one["data_type"]
                == {"uint8": "TYPE_UINT8", "float": "TYPE_FP32", "int64": "TYPE_INT64"}[tensor.type[7:-1]]
            )
            shape = one.get("reshape", {"shape": one["dims"]})["shape"]
            assert shape == [side if isinstance(side, int) else -1 for side in tensor.shape[1:]]


def parse(text: str) -> dict[str, Any]:
    """As much of protobuf's text format as the file has."""
    tokens = re.findall(r'"[^"]*"|-?\d+|\w+|[\[\]{},:]', re.sub(r"#.*", "", text))

    def value() -> Any:
        token = tokens.pop(0)
        if token == "{":
            return fields("}")
        if token == "[":
            items = []
            while tokens[0] != "]":
                items.append(value())
                if tokens[0] == ",":
                    tokens.pop(0)
            tokens.pop(0)
            return items
        return token[1:-1] if token[0] == '"' else int(token) if token.lstrip("-").isdigit() else token

    def fields(end: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while tokens and tokens[0] != end:
            name = tokens.pop(0)
            if tokens[0] == ":":
                tokens.pop(0)
            found[name] = value()
        if end:
            tokens.pop(0)
        return found

    return fields("")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "onnx", "output": "m.pt"}, "a name that ends in .onnx"),
        ({"format": "onnx", "output": "none/m.onnx"}, "there is no folder"),
        ({"format": "onnx", "output": "m.onnx", "precision": "int8"}, "is for --format openvino"),
        ({"format": "openvino", "output": "m", "precision": "int8"}, "needs --calibrate"),
        ({"format": "torch", "output": "m.pt2", "network_only": True}, "is for --format onnx"),
        ({"format": "torch", "output": "m.pt2", "triton": "t"}, "is for --format onnx"),
    ],
)
def test_wrong_requests(options: dict[str, Any], words: str, detector: Detector, tmp_path: Path) -> None:
    detector.save(tmp_path / "m.safetensors")
    places = {name: tmp_path / options[name] for name in ("output", "triton") if name in options}
    with pytest.raises(RequestError, match=words):
        command(str(tmp_path / "m.safetensors"), **(options | places))


@pytest.mark.slow
def test_what_is_missing_is_named(complete: Path) -> None:
    """In a process where the packages cannot be imported."""
    code = f"""
import sys
sys.modules["onnxruntime"] = sys.modules["onnx"] = None
from pathlib import Path
from retinanet.exporting.onnx import onnx_export, onnx_runtime
for call in (lambda: onnx_runtime.load_onnx({str(complete)!r}), lambda: onnx_export.write(None, Path("m.onnx"))):
    try:
        call()
    except ValueError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    lines = done.stdout.splitlines()
    assert done.stderr == ""
    assert len(lines) == 2
    assert lines[0].endswith("needs onnx: pip install 'retinanet[onnx]'")
    assert lines[1] == "an ONNX export needs onnx: pip install 'retinanet[onnx]'"
