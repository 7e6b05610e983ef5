"""OpenVINO folders: they find what the model finds, and what is wrong with one is said in a line."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from helpers.exported_models import make_image
from helpers.random_weights import scatter
from helpers.synthetic_data import rectangles
from helpers.tiny_run import tiny
from retinanet.common.errors import RequestError, WorkError
from retinanet.config.model_settings import PreprocessingSettings
from retinanet.data import open_data
from retinanet.evaluation.runner import detect_all
from retinanet.exporting.exported_network import ExportedNetwork
from retinanet.exporting.openvino import openvino_export, openvino_int8, openvino_runtime
from retinanet.inference.detections import Detections
from retinanet.inference.detector import Detector
from retinanet.model import RetinaNet
from retinanet.ops.image_batch import ImageBatch, prepare_image

if find_spec("openvino") is None or find_spec("nncf") is None:
    pytest.skip("the extra openvino is not installed", allow_module_level=True)
openvino = openvino_runtime.runtime("this test")  # imported in any other way it would tell its makers of it
NAMES = ("red", "green")


@pytest.fixture(scope="module")
def detector() -> Detector:
    """Random weights whose scores spread over 0..1."""
    torch.manual_seed(0)
    model = RetinaNet(tiny().model, len(NAMES))
    scatter(model, 0.15, 0.03, -2.0)
    return Detector(model, NAMES, about={"threshold": 0.25, "origin": "a test"})


@pytest.fixture(scope="module")
def folder(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("openvino") / "fp32"
    said: list[str] = []
    openvino_export.write(detector, place, "fp32", None, said.append)
    assert said == ["tracing the network", "writing"]
    return place


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Detector:
    return openvino_runtime.load(folder)


def assert_same(a: Detections, b: Detections) -> None:
    assert len(a) == len(b) > 0
    assert a.labels.tolist() == b.labels.tolist()
    torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=1e-3)
    torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=0.5)


def test_the_folder_finds_what_the_model_finds(detector: Detector, loaded: Detector) -> None:
    images = [
        make_image(64, 64),
        make_image(200, 90, 1),
        make_image(31, 87, 2),
        make_image(64, 64, 3),
        make_image(300, 20, 4),
    ]
    for found, expected in zip(loaded.predict(images), detector.predict(images), strict=True):
        assert_same(found, expected)
    assert_same(loaded.predict(images[1], size=160), detector.predict(images[1], size=160))
    assert_same(next(loaded.predict(iter(images))), detector(images[0]))


def test_what_is_known_comes_along(detector: Detector, loaded: Detector) -> None:
    assert isinstance(loaded.model, ExportedNetwork)
    assert loaded.class_names == NAMES
    assert loaded.settings == detector.settings
    assert (loaded.threshold, loaded.about["origin"]) == (0.25, "a test")
    assert loaded.device == torch.device("cpu")


def test_nothing_found_is_no_error(loaded: Detector) -> None:
    assert len(loaded.predict(make_image(64, 80), threshold=0.9999)) == 0


def test_outputs_are_not_overwritten_by_the_next_call(loaded: Detector) -> None:
    first = loaded.forward(ImageBatch.stack([loaded.prepare(make_image(64, 64))]))
    before = copy.deepcopy(first)
    loaded.forward(ImageBatch.stack([loaded.prepare(make_image(64, 64, 9))]))
    for kept, now in zip(before.logits + before.deltas, first.logits + first.deltas, strict=True):
        assert torch.equal(kept, now)
        assert now.dtype == torch.float32


def test_several_threads_may_call_it(loaded: Detector) -> None:
    from concurrent.futures import ThreadPoolExecutor

    images = [make_image(64, 64 + 32 * (seed % 3), seed) for seed in range(12)]
    expected = loaded.predict(images)
    with ThreadPoolExecutor(4) as pool:
        for found, alone in zip(pool.map(loaded.predict, images), expected, strict=True):
            assert_same(found, alone)


def test_evaluation_takes_it(detector: Detector, loaded: Detector, tmp_path: Path) -> None:
    data = open_data(rectangles(tmp_path / "data", 4), "val", class_names=NAMES)
    found, expected = (detect_all(each, data, batch_size=3) for each in (loaded, detector))
    for index in range(len(data)):
        assert_same(found[index], expected[index])


@pytest.mark.slow
def test_signals_are_survived_after_several_models(folder: Path) -> None:
    """As those of a data loader's workers that end, which Python handles on the stack that is set for signals."""
    code = f"""if True:
        import faulthandler, os, signal
        from pathlib import Path
        from retinanet.exporting.openvino import openvino_runtime
        faulthandler.enable()
        signal.signal(signal.SIGUSR1, lambda number, frame: print("survived", flush=True))
        first = openvino_runtime.load(Path({str(folder)!r}))
        second = openvino_runtime.load(Path({str(folder)!r}))
        del first
        del second
        os.kill(os.getpid(), signal.SIGUSR1)
    """
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "survived\n"), ended.stderr


def test_weights_of_bf16_take_half_the_room(detector: Detector, folder: Path, tmp_path: Path) -> None:
    # As write does for bf16; the conversion, which takes the time, is that of the fp32 folder.
    place = tmp_path / "bf16"
    place.mkdir()
    model = openvino_runtime.core(openvino).read_model(folder / "model.xml")
    openvino.save_model(model, place / "model.xml", compress_to_fp16=True)
    known = json.loads((folder / "retinanet.json").read_text()) | {"precision": "bf16"}
    (place / "retinanet.json").write_text(json.dumps(known))
    assert (place / "model.bin").stat().st_size < 0.6 * (folder / "model.bin").stat().st_size
    rounded = openvino_runtime.load(place)
    a, b = rounded.predict(make_image(64, 96)), detector.predict(make_image(64, 96))
    assert abs(len(a) - len(b)) <= 0.1 * len(b)
    torch.testing.assert_close(a.scores[:5], b.scores[:5], rtol=0, atol=0.03)


def test_int8(detector: Detector, folder: Path, tmp_path: Path) -> None:
    data, said = rectangles(tmp_path / "data", 9), []
    sources = openvino_int8.calibration_images(data)
    assert {path.parent.name for path in sources} == {"train"}
    assert len(sources) == 9
    model = openvino_runtime.core(openvino).read_model(folder / "model.xml")
    last = {openvino_int8.last_convolution(output) for output in model.outputs}
    assert len(last) == len(model.outputs)
    with pytest.warns(UserWarning, match="calibrated on 9 images"):
        model = openvino_int8.quantise(model, detector.settings, sources, said.append)
    assert said[0] == "calibrating on 9 images"
    quantised = {
        node.get_friendly_name()
        for node in model.get_ops()
        if "Convolution" in node.get_type_name() and _is_quantised(node)
    }
    assert len(quantised) > 15
    assert not last & quantised
    place = tmp_path / "int8"
    place.mkdir()
    openvino.save_model(model, place / "model.xml")
    known = json.loads((folder / "retinanet.json").read_text()) | {"precision": "int8"}
    (place / "retinanet.json").write_text(json.dumps(known))
    assert (place / "model.bin").stat().st_size < 0.5 * (folder / "model.bin").stat().st_size
    image = torch.as_tensor(open_data(data, "val").read(0))
    batch = ImageBatch.stack([prepare_image(image, PreprocessingSettings(resize="none"))])
    a, b = (each.forward(batch) for each in (openvino_runtime.load(place), detector))
    for mine, theirs in ((a.logits, b.logits), (a.deltas, b.deltas)):
        pair = torch.stack([torch.cat([t.flatten() for t in mine]), torch.cat([t.flatten() for t in theirs])])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.97
        assert not torch.equal(pair[0], pair[1])


def _is_quantised(node: object) -> bool:
    """Whether a convolution's input comes through a quantiser."""
    return node.input_value(0).get_node().get_type_name() == "FakeQuantize"  # type: ignore[attr-defined]


def test_int8_needs_images(detector: Detector, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="--calibrate FOLDER"):
        openvino_export.write(detector, tmp_path / "m", "int8")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="there is no image in it"):
        openvino_export.write(detector, tmp_path / "m", "int8", tmp_path / "empty")
    with pytest.raises(RequestError, match="no such file or folder"):
        openvino_export.write(detector, tmp_path / "m", "int8", tmp_path / "nothing")
    assert not (tmp_path / "m").exists()


def test_images_to_calibrate_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = rectangles(tmp_path / "data", 11)
    plain = tmp_path / "plain"
    shutil.copytree(data / "val", plain)
    assert len(openvino_int8.calibration_images(plain)) == 11  # no labels needed
    monkeypatch.setattr(openvino_int8, "MOST", 10)
    chosen = [path.name for path in openvino_int8.calibration_images(plain)]
    assert len(set(chosen)) == 10


def test_what_is_lost_when_the_network_is_followed_is_noticed(detector: Detector) -> None:
    class Odd(nn.Module):
        """What it computes depends on an image's size."""

        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            return (images * (int(images.shape[2]) // 32),)

    class Even(Odd):
        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            return (images * images.shape[2] // 32,)

    for network, same in ((Odd(), False), (Even(), True)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            followed = openvino_export.trace(network, openvino)
        assert openvino_export.agrees(followed, network, openvino) == same


def test_a_network_that_cannot_be_exported(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: nn.Module, images: Tensor) -> None:
        raise ValueError("not\nlike this")

    monkeypatch.setattr(RetinaNet, "forward", fail)
    with pytest.raises(WorkError, match="resnet18 cannot be exported to OpenVINO: ") as caught:
        openvino_export.write(detector, tmp_path / "m")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()


def test_recognises(folder: Path, tmp_path: Path) -> None:
    assert openvino_runtime.recognises(folder)
    assert openvino_runtime.recognises(folder / "model.xml")
    assert not openvino_runtime.recognises(tmp_path)
    assert not openvino_runtime.recognises(tmp_path / "model.xml")
    assert not openvino_runtime.recognises(folder / "model.bin")


@pytest.mark.parametrize("missing", ["retinanet.json", "model.xml", "model.bin"])
def test_a_folder_that_is_not_whole(folder: Path, tmp_path: Path, missing: str) -> None:
    place = shutil.copytree(folder, tmp_path / "m")
    (place / missing).unlink()
    with pytest.raises(RequestError, match=f"lacks {missing}"):
        openvino_runtime.load(place)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "damaged"),
        (lambda text: text[:200], "damaged"),
        (lambda text: "[]", "damaged"),
        (lambda text: text.replace('"settings"', '"setting"'), "it lacks 'settings'"),
        (lambda text: text.replace('"candidates": 1000', '"candidates": -1'), "candidates must be at least 1"),
        (lambda text: text.replace("retinanet-openvino-1", "other"), "names the format 'other'"),
        (lambda text: text.replace('"green"', '"green", "blue"'), "is not the network that"),
        (lambda text: text.replace('"green"', "3"), "class name 1 must be a text"),
    ],
)
def test_damaged_settings(folder: Path, tmp_path: Path, change: object, message: str) -> None:
    place = shutil.copytree(folder, tmp_path / "m")
    text = (place / "retinanet.json").read_text()
    changed = change(text)  # type: ignore[operator]
    assert changed != text
    (place / "retinanet.json").write_text(changed)
    with pytest.raises(RequestError, match=message) as caught:
        openvino_runtime.load(place)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_a_network_that_is_cut_short(folder: Path, tmp_path: Path, name: str) -> None:
    place = shutil.copytree(folder, tmp_path / "m")
    content = (place / name).read_bytes()
    (place / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(RequestError, match="cannot be read as an OpenVINO model") as caught:
        openvino_runtime.load(place)
    assert "\n" not in str(caught.value)


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
    )


def test_a_missing_extra_is_said_in_a_line(folder: Path) -> None:
    code = f"""
        import sys
        sys.modules["openvino"] = None
        from retinanet.exporting.openvino.openvino_runtime import load
        from retinanet.common.errors import RequestError
        try:
            load({str(folder)!r})
        except RequestError as error:
            print(error)
    """
    done = run(code)
    assert done.stdout.strip().endswith("needs openvino: pip install 'retinanet[openvino]'"), done.stderr


def test_nothing_is_sent_and_no_file_is_made_in_the_home_folder(tmp_path: Path) -> None:
    # In a process without pytest and without the marks of a CI machine, which switch telemetry off by themselves.
    code = """
        import os, sys, urllib.request
        from retinanet.exporting.openvino.openvino_runtime import runtime
        openvino = runtime("a test")
        from openvino.tools.ovc import telemetry_utils
        from openvino.tools.ovc import convert_impl
        print(telemetry_utils.tm.__name__, convert_impl.tm.__name__, os.listdir(os.environ["HOME"]))
        print([name for name in sys.modules if name.startswith("openvino_telemetry")])
    """
    marks = {name: "" for name in os.environ if name in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = run(code, HOME=str(tmp_path), **marks)
    stub = "openvino.tools.ovc.telemetry_stub"
    assert done.stdout.split("\n")[:2] == [f"{stub} {stub} []", "[]"], done.stderr  # and nothing of ours is left


def test_importing_costs_nothing() -> None:
    code = """
        import sys
        from retinanet.exporting.openvino import openvino_runtime
        print([name for name in ("torch", "openvino", "nncf") if name in sys.modules])
    """
    assert run(code).stdout.strip() == "[]"
