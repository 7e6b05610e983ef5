"""The detector: any image in, boxes in that image's pixels out."""

from __future__ import annotations

import copy
import math
import pickle
import re
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import retinanet
from helpers.agreeing import assert_agree
from helpers.exported_models import make_image
from helpers.random_weights import scatter
from helpers.synthetic_data import bright_boxes
from retinanet.common.arguments import PredictOptions
from retinanet.common.errors import RequestError
from retinanet.common.precision import Precision
from retinanet.config.model_settings import (
    AnchorSettings,
    BackboneSettings,
    HeadSettings,
    ModelSettings,
    PostprocessingSettings,
    PreprocessingSettings,
    PyramidSettings,
)
from retinanet.config.settings import LossSettings, MatchingSettings
from retinanet.inference.detections import Detections
from retinanet.inference.detector import Detector
from retinanet.inference.tiling import predict_sliced
from retinanet.losses import detection_loss
from retinanet.model import RetinaNet
from retinanet.ops.boxes import decode, iou
from retinanet.ops.image_batch import ImageBatch, prepare_image
from retinanet.ops.iou_assigner import match
from retinanet.predict.files import predict_files

NAMES = ("dog", "cat", "bird")


def make(**preprocessing: Any) -> Detector:
    """A small network with random weights whose scores spread over 0..1."""
    torch.manual_seed(0)
    settings = ModelSettings(
        backbone=BackboneSettings(name="resnet18"),
        pyramid=PyramidSettings(channels=32),
        head=HeadSettings(depth=1, width=32, norm="group"),
        anchors=AnchorSettings(sizes=(8, 16, 32, 64, 128)),
        preprocessing=PreprocessingSettings(**{"size": 64, "longer": 107, **preprocessing}),
        postprocessing=PostprocessingSettings(threshold=0.3),
    )
    model = RetinaNet(settings, len(NAMES))
    scatter(model, 0.12, 0.03, -1.5)
    return Detector(model, NAMES)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make()


def assert_same(a: Detections, b: Detections, tolerance: float = 1e-3) -> None:
    assert len(a) == len(b) > 0
    assert a.labels.tolist() == b.labels.tolist()
    torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=tolerance / 10)
    torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=tolerance)


def test_result(detector: Detector) -> None:
    found = detector.predict(make_image(50, 90))
    assert isinstance(found, Detections)
    assert 5 < len(found) <= 100
    assert found.boxes.shape == (len(found), 4)
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert found.labels.dtype == torch.int64
    assert (found.scores.diff() <= 0).all()
    assert (found.scores > 0.3).all()
    assert found.class_names == NAMES
    assert set(found.names) <= set(NAMES)
    assert not found.boxes.requires_grad


@pytest.mark.parametrize("size", [(50, 90), (641, 333), (1, 1), (1, 300), (300, 1), (64, 64)])
def test_boxes_lie_in_the_make_image(detector: Detector, size: tuple[int, int]) -> None:
    found = detector.predict(make_image(*size), threshold=0.01)
    assert len(found) > 0
    x1, y1, x2, y2 = found.boxes.unbind(1)
    assert (x1 >= 0).all()
    assert (y1 >= 0).all()
    assert (x1 <= x2).all()
    assert (y1 <= y2).all()
    assert (x2 <= size[1]).all()
    assert (y2 <= size[0]).all()


def test_no_rounding_beyond_the_edge(detector: Detector) -> None:
    """float32 makes 19 * (35 / 19) more than 35."""
    images = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    resized = torch.arange(8, 28).repeat(2)[:, None].expand(-1, 2)
    originals = torch.stack((torch.arange(40) * 7 + 9, torch.arange(40) * 13 + 5), dim=1)
    reached = 0
    batch = ImageBatch(images, resized, originals, resized / originals.double())
    for found, original in zip(detector.detect(batch, PredictOptions(threshold=0.01)), originals):
        assert (found.boxes[:, 2:] <= original.flip(0)).all()
        reached += int((found.boxes[:, 2:] == original.flip(0)).sum())
    assert reached > 100


def test_boxes_are_in_original_pixels() -> None:
    """Without resizing and padding, detections are decoded outputs of the network; resized ones are scaled back."""
    detector = make(resize="none")
    image = make_image(64, 96)
    found = detector.predict(image)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        out = detector.model(((image / 255 - mean) / std)[None])
    boxes = decode(torch.cat(out.deltas, dim=1)[0], torch.cat(detector.model.anchors(64, 96)))
    scores = torch.cat(out.logits, dim=1)[0].sigmoid()
    best = int(scores.max(dim=1).values.argmax())
    torch.testing.assert_close(found.scores[0], scores.max(), rtol=0, atol=1e-4)
    limits = torch.tensor([96.0, 64, 96, 64])
    torch.testing.assert_close(found.boxes[0], boxes[best].clamp(min=0).minimum(limits), rtol=0, atol=1e-2)

    # twice the image by repeating pixels, seen at half its size, is the same image
    double = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    halved = make(size=64, interpolation="plain").predict(double)
    assert_same(
        Detections(halved.boxes / 2, halved.scores, halved.labels, NAMES),
        make(interpolation="plain").predict(image),
        1e-2,
    )


@pytest.mark.kernels
def test_alone_or_in_a_batch(detector: Detector) -> None:
    sizes = [(50, 90), (90, 50), (50, 90), (64, 64), (30, 33), (50, 91), (1, 1), (200, 100), (50, 90)]
    images = [make_image(h, w, seed) for seed, (h, w) in enumerate(sizes)]
    alone = [detector.predict(image) for image in images]
    for batch_size in (1, 2, 8):
        together = detector.predict(images, batch_size=batch_size)
        assert isinstance(together, list)
        assert len(together) == len(images)
        for a, b in zip(alone, together):
            assert len(a) > 0
            assert_agree(b, a, detector.settings.postprocessing)
    assert [len(found) for found in detector.predict(tuple(images))] == [len(found) for found in alone]
    assert detector.predict([]) == []


@pytest.mark.kernels
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fused", [False, True])
def test_outputs_alone_or_in_a_batch(detector: Detector, precision: Precision, fused: bool) -> None:
    """Logits, not boxes: with random weights a last bit decides which of many overlapping boxes suppresses which."""
    own = Detector(detector.model, NAMES, precision)
    if fused:
        own.fuse()
    images = [prepare_image(make_image(64, 96, seed), None) for seed in range(8)]
    together = own.forward(ImageBatch.stack(images))
    tolerance = {"fp32": 1e-4, "bf16": 2**-5}[precision]
    for i in range(8):
        alone = own.forward(ImageBatch.stack(images[i : i + 1]))
        for one, other in zip((*alone.logits, *alone.deltas), (*together.logits, *together.deltas)):
            torch.testing.assert_close(one[0].float(), other[i].float(), rtol=tolerance, atol=tolerance)


def test_every_kind_of_image(detector: Detector, tmp_path: Path) -> None:
    tensor = make_image(50, 90)
    array = tensor.permute(1, 2, 0).numpy()
    image = Image.fromarray(array)
    image.save(tmp_path / "image.png")
    expected = detector.predict(tensor)
    kinds: list[Any] = [tmp_path / "image.png", str(tmp_path / "image.png"), image, array, np.asfortranarray(array)]
    for kind in kinds:
        assert_same(detector.predict(kind), expected, 1e-6)
    for found in detector.predict(kinds):
        assert_same(found, expected)
    grey = image.convert("L")
    assert_same(detector.predict(grey), detector.predict(grey.convert("RGB")), 1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (3, "cannot read the image given: a int; give a path, "),
        (None, "cannot read the image given: a NoneType; give a path, "),
        (torch.zeros(8, 8), "cannot read the image given: a tensor of float32 and shape (8, 8); give a path, "),
        (torch.zeros(3, 8, 8) - 1, "cannot read the image given: its values go from -1 to -1"),
        (
            torch.zeros(8, 8, 3, dtype=torch.uint8),
            "cannot read the image given: a tensor of uint8 and shape (8, 8, 3)",
        ),
        (np.zeros((8, 8, 4), dtype=np.uint8), "cannot read the image given: an array of uint8 and shape (8, 8, 4)"),
        (
            torch.zeros(3, 0, 8, dtype=torch.uint8),
            "cannot read the image given: a tensor of uint8 and shape (3, 0, 8)",
        ),
        ("missing.jpg", "cannot read the image missing.jpg: there is no such file"),
    ],
)
def test_images_that_cannot_be_used(detector: Detector, wrong: Any, message: str) -> None:
    with pytest.raises(RequestError, match=f"^{re.escape(message)}"):
        detector.predict(wrong)
    with pytest.raises(RequestError, match=f"^{re.escape(message)}"):
        detector.predict([make_image(9, 9), wrong])


def test_options(detector: Detector) -> None:
    image = make_image(50, 90)
    usual = detector.predict(image)
    fewer = detector.predict(image, max_detections=3)
    assert_same(fewer, Detections(usual.boxes[:3], usual.scores[:3], usual.labels[:3], NAMES))
    limit = float(usual.scores[2])
    assert (detector.predict(image, threshold=limit).scores > limit).all()
    assert len(detector.predict(image, threshold=0.999)) == 0
    assert detector.predict(image, threshold=0.999).boxes.shape == (0, 4)
    larger = detector.predict(image, size=128)
    assert_same(larger, make(size=128, longer=214).predict(image))
    with pytest.raises(AssertionError):
        assert_same(larger, usual)
    with pytest.raises(RequestError, match=r"threshold must be in \[0, 1\), not 1\.5$"):
        detector.predict(image, threshold=1.5)


WRONG_NUMBERS: list[tuple[dict[str, Any], str]] = [
    ({"size": 0}, "size must be at least 1, not 0"),
    ({"size": np.int64(-5)}, "size must be at least 1, not -5"),
    ({"size": (320, 320)}, "size must be a whole number of at least 1, not (320, 320)"),
    ({"size": math.nan}, "size must be a whole number of at least 1, not nan"),
    ({"size": 320.0}, "size must be a whole number of at least 1, not 320.0"),
    ({"size": "320"}, "size must be a whole number of at least 1, not '320'"),
    ({"size": True}, "size must be a whole number of at least 1, not True"),
    ({"threshold": "0.3"}, "threshold must be a number, not '0.3'"),
    ({"threshold": math.nan}, "threshold must be in [0, 1), not nan"),
    ({"threshold": math.inf}, "threshold must be in [0, 1), not inf"),
    ({"threshold": 2}, "threshold must be in [0, 1), not 2.0"),
    ({"threshold": np.float32(-1)}, "threshold must be in [0, 1), not -1.0"),
    ({"threshold": False}, "threshold must be a number, not False"),
    ({"threshold": [0.3]}, "threshold must be a number, not [0.3]"),
    ({"max_detections": 0}, "max_detections must be at least 1, not 0"),
    ({"max_detections": 1.5}, "max_detections must be a whole number of at least 1, not 1.5"),
    ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
    ({"batch_size": None}, "batch_size must be a whole number of at least 1, not None"),
    ({"batch_size": "8"}, "batch_size must be a whole number of at least 1, not '8'"),
    ({"nms": "all"}, "nms must be class or agnostic, not 'all'"),
    ({"nms": True}, "nms must be class or agnostic, not True"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_NUMBERS)
def test_numbers_that_cannot_be_used(detector: Detector, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """Alike for one image, for many, for tiles and for files."""
    image = make_image(9, 9)
    with pytest.raises(RequestError, match=f"^{re.escape(message)}$"):
        detector.predict(image, **options)
    with pytest.raises(RequestError, match=f"^{re.escape(message)}$"):
        detector.predict([], **options)
    with pytest.raises(RequestError, match=f"^{re.escape(message)}$"):
        predict_sliced(detector, image, 4, **options)
    with pytest.raises(RequestError, match=f"^{re.escape(message)}$"):
        predict_files(detector, [tmp_path], tmp_path / "output", **options)
    assert not (tmp_path / "output").exists()


def test_numbers_of_numpy_and_none(detector: Detector) -> None:
    image = make_image(50, 90)
    given = {"threshold": 0.25, "max_detections": 3, "size": 64, "batch_size": 2}
    numpy: dict[str, Any] = {"threshold": np.float32(0.25), **{k: np.int32(v) for k, v in given.items() if k[0] != "t"}}
    assert_same(detector.predict(image, **numpy), detector.predict(image, **given))
    assert_same(detector.predict(image, threshold=None, max_detections=None, size=None), detector.predict(image))


def test_agnostic_nms_of_one_call_or_of_the_settings(detector: Detector) -> None:
    """Boxes of different classes that overlap by more than the limit: none are left, and only the best stay."""
    image = make_image(50, 90)
    by_class = detector.predict(image, max_detections=10**6)
    found = detector.predict(image, nms="agnostic", max_detections=10**6)
    limit = detector.settings.postprocessing.nms_iou

    def crossing(detections: Detections) -> int:
        return int((iou(detections.boxes, detections.boxes).triu(1) > limit + 1e-4).sum())

    assert crossing(by_class) > 0
    assert crossing(found) == 0
    assert 0 < len(found) < len(by_class)
    assert (found.scores[0], found.labels[0]) == (by_class.scores[0], by_class.labels[0])
    assert_same(detector.predict(image, nms="class", max_detections=10**6), by_class)
    model = copy.copy(detector.model)
    after = replace(detector.settings.postprocessing, nms="agnostic")
    model.settings = replace(model.settings, postprocessing=after)
    changed = Detector(model, detector.class_names)
    assert_same(changed.predict(image, max_detections=10**6), found)
    assert_same(changed.predict(image, nms="class", max_detections=10**6), by_class)


def test_images_of_other_numbers_are_scaled_with_a_warning(detector: Detector) -> None:
    image = make_image(50, 90)
    expected = detector.predict(image)
    array = image.permute(1, 2, 0).numpy()
    top = array.copy()
    top[0, 0] = 255
    same: list[Any] = [(top / 255).astype(np.float32), top.astype(np.float64), top.astype(np.int32) * 257]
    for other in same:
        with pytest.warns(UserWarning, match=r"^2 of 2 images: values of 0 to \d+ scaled to 8 bits$") as caught:
            first, second = detector.predict([other, other])
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert_same(first, detector.predict(top))
        assert_same(second, first)
    assert len(expected) > 0
    with pytest.warns(UserWarning, match="8 bits"):
        sliced = predict_sliced(detector, same[0], 40)
    assert_same(sliced, predict_sliced(detector, top, 40))


def test_square_preprocessing_takes_another_size() -> None:
    image = make_image(50, 90)
    assert_same(make(resize="square").predict(image, size=96), make(resize="square", size=96).predict(image))


@pytest.mark.kernels
def test_detect_a_batch(detector: Detector) -> None:
    """The three steps of predict, as evaluation takes them."""
    images = [make_image(50, 90), make_image(50, 90, 1)]
    batch = ImageBatch.stack([detector.prepare(image) for image in images])
    assert batch.images.shape == (2, 3, 64, 128)
    assert batch.sizes.tolist() == [[59, 107]] * 2  # 64 / 50 would make the longer side 115
    assert batch.originals.tolist() == [[50, 90]] * 2
    found = detector.decode(detector.forward(batch), batch)
    for one, image in zip(found, images):
        assert_agree(one, detector.predict(image), detector.settings.postprocessing)
    found = detector.detect(batch, PredictOptions(threshold=0.999))
    assert [len(one) for one in found] == [0, 0]


def test_save_and_load(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    detector.save(path, ap=0.5)
    loaded = retinanet.load(path, device="cpu", precision="fp32")
    assert loaded.class_names == NAMES
    assert loaded.settings == detector.settings
    assert not loaded.model.training
    image = make_image(50, 90)
    a, b = detector.predict(image), loaded.predict(image)
    assert len(a) > 5
    assert_same(a, b)
    for name, tensor in detector.model.state_dict().items():
        assert torch.equal(tensor, loaded.model.state_dict()[name])

    (tmp_path / "run").mkdir()
    detector.save(tmp_path / "run" / "last.safetensors")
    assert len(retinanet.load(tmp_path / "run", device="cpu", precision="fp32").predict(image)) == len(a)


@pytest.mark.kernels
def test_loading_fuses(tmp_path: Path) -> None:
    detector = make()
    sizes = ((48, 90), (64, 64))
    plain = [detector.predict(make_image(*size)) for size in sizes]
    detector.save(tmp_path / "model.safetensors")
    loaded = retinanet.load(tmp_path / "model.safetensors", "cpu", "fp32")
    assert loaded._network.fused
    # It travels to other processes and can be copied, though oneDNN's weights cannot.
    for each in (loaded, copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        for size, expected in zip(sizes, plain):
            assert_same(each.predict(make_image(*size)), expected, 1e-2)


def test_repr_is_one_line(detector: Detector) -> None:
    text = repr(detector)
    assert len(text.splitlines()) == 1
    assert text.startswith("<Detector: 3 classes (dog, cat, bird), resnet18, 64 px, from this project, on cpu")
    assert text.endswith("computes in fp32>")
    many = Detector(RetinaNet(detector.settings, 80), [str(i) for i in range(80)], about={"origin": "a zoo"})
    assert "80 classes (0, 1, 2 and 77 more)" in repr(many)
    assert "from a zoo" in repr(many)
    assert "images of any size" in repr(make(resize="none"))


def test_to_another_device(tmp_path: Path) -> None:
    make().save(tmp_path / "model.safetensors")
    loaded = retinanet.load(tmp_path / "model.safetensors", "cpu", "auto")
    network = loaded._network
    assert loaded.to("cpu") is loaded
    assert loaded._network is network  # nothing to do
    with pytest.raises(RequestError, match="device"):
        loaded.to("cudaa")
    assert loaded.to("meta") is loaded  # the one other device that every machine has; it computes nothing
    assert loaded.device == loaded.model.class_subnet.output.weight.device == torch.device("meta")
    assert not loaded._network.fused
    assert (loaded.precision, loaded.computes[:5]) == ("fp32", "fp32 ")  # chosen anew: bf16 was for this CPU alone


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_to_a_gpu_and_back(detector: Detector) -> None:
    moved = copy.deepcopy(detector).to("cuda")
    assert moved._network.fused
    image = make_image(50, 90)
    expected = detector.predict(image)
    assert_agree(moved.predict(image), expected, detector.settings.postprocessing)
    assert_agree(moved.to("cpu").predict(image), expected, detector.settings.postprocessing)
    assert moved.precision == "fp32"


def test_evaluate_is_that_of_the_package(detector: Detector, tmp_path: Path) -> None:
    """With low scores too, though predict leaves them out by default."""
    data = bright_boxes(tmp_path / "data", names=NAMES)
    sure = Detector(detector.model, NAMES, about={"threshold": 0.99})
    assert len(sure.predict(make_image(50, 90))) == 0
    result = sure.evaluate(data, progress=False)
    assert result.metrics == retinanet.evaluate(detector, data, "val", progress=False).metrics
    assert sum(len(found) for found in result.detections.values()) > 0


def test_fusing_again_takes_new_weights() -> None:
    detector = make()
    detector.fuse()
    before = detector.predict(make_image(64, 64))
    bias = detector.model.class_subnet.output.bias
    assert bias is not None
    nn.init.constant_(bias, -9.0)
    assert len(before) == len(detector.predict(make_image(64, 64))) > 0
    detector.fuse()
    assert len(detector.predict(make_image(64, 64))) == 0


def test_what_cannot_be_fused_works_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = make()
    expected = detector.predict(make_image(64, 64))

    def fails(*args: Any) -> None:
        raise NotImplementedError("no such operation\nwith details")

    monkeypatch.setattr("retinanet.inference.cpu_fusion.fuse", fails)
    with pytest.warns(UserWarning, match=r"^the network stays as it is, which is slower: no such operation$"):
        detector.fuse()
    assert_same(detector.predict(make_image(64, 64)), expected, 0)


def test_weights_that_do_not_fit(detector: Detector, tmp_path: Path) -> None:
    from retinanet.checkpoints import native

    path = tmp_path / "model.safetensors"
    state = detector.model.state_dict()
    native.save(path, {**state, "box_subnet.output.bias": torch.zeros(4)}, detector.settings, NAMES)
    with pytest.raises(
        RequestError,
        match=r"^.*model\.safetensors: box_subnet\.output\.bias has the shape \(4,\), where \(36,\) is needed",
    ):
        retinanet.load(path)
    native.save(path, {n: t for n, t in state.items() if "box_subnet" not in n}, detector.settings, NAMES)
    with pytest.raises(RequestError, match=r"lacks the tensor that is box_subnet\.output\.bias here and \d+ more"):
        retinanet.load(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.fill_(math.nan), "not finite"),
        (lambda t: t.fill_(math.inf), "not finite"),
        (lambda t: t.to(torch.int8), "torch.int8"),
        (lambda t: t.half(), None),
        (lambda t: t.bfloat16(), None),
        (lambda t: t.double(), None),
    ],
)
def test_weights_are_finite_floats(detector: Detector, tmp_path: Path, change: Any, words: str | None) -> None:
    from retinanet.checkpoints import native

    path, name = tmp_path / "model.safetensors", "class_subnet.output.weight"
    state = detector.model.state_dict()
    native.save(path, state | {name: change(state[name].clone())}, detector.settings, NAMES)
    if words is None:
        assert retinanet.load(path, "cpu").model.class_subnet.output.weight.dtype == torch.float32
    else:
        with pytest.raises(RequestError, match=f"{name} .*{words}"):
            retinanet.load(path)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("backbone", {"options": {"layers": [9999, 9999, 9999, 9999]}}),
        ("head", {"depth": 64, "width": 8192}),
        ("pyramid", {"channels": 8192}),
        ("anchors", {"scales": (1.0,) * 64, "ratios": (1.0,) * 64}),
    ],
)
def test_settings_that_ask_for_too_much_are_refused_before_they_are_followed(
    detector: Detector, tmp_path: Path, section: str, values: dict[str, Any]
) -> None:
    from retinanet.checkpoints import native

    settings = replace(detector.settings, **{section: replace(getattr(detector.settings, section), **values)})
    path = tmp_path / "model.safetensors"
    native.save(path, detector.model.state_dict(), settings, NAMES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RequestError, match=r"is needed|cannot be built|lacks"):
        retinanet.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10**6


@pytest.mark.parametrize(
    "names", ["abc", [1, 2, 3], ["a", "a", "b"], ["a", "", "b"], ["a", " ", "b"], ["a", None, "b"]]
)
def test_class_names_that_cannot_be_used(detector: Detector, tmp_path: Path, names: Any) -> None:
    from retinanet.checkpoints import native
    from retinanet.weight_files import metadata

    for refused in (
        lambda: Detector(detector.model, names),
        lambda: native.save(tmp_path / "x.safetensors", {}, detector.settings, names),
        lambda: metadata.about({}, names, {}),
    ):
        with pytest.raises(RequestError, match="class name"):
            refused()


@pytest.mark.parametrize("source", [None, "", " ", 123, b"x", ["a"]])
def test_sources_of_another_type(source: Any) -> None:
    with pytest.raises(RequestError, match="a model's name cannot be"):
        retinanet.load(source)


@pytest.mark.parametrize(
    "options",
    [{"device": "cudaa"}, {"device": ""}, {"device": 1.5}, {"device": ["cpu"]}, {"precision": "fp17"},
     {"precision": ""}, {"precision": 16}, {"precision": ["fp32"]}],
)  # fmt: skip
def test_devices_and_precisions_that_there_are_not(detector: Detector, tmp_path: Path, options: dict[str, Any]) -> None:
    detector.save(tmp_path / "model.safetensors")
    with pytest.raises(RequestError, match=f"^{next(iter(options))} "):
        retinanet.load(tmp_path / "model.safetensors", **options)


def test_variances_are_not_negative(detector: Detector, tmp_path: Path) -> None:
    from retinanet.checkpoints import native

    state = detector.model.state_dict()
    name = next(name for name in state if name.endswith("running_var"))
    native.save(tmp_path / "x.safetensors", state | {name: -state[name]}, detector.settings, NAMES)
    with pytest.raises(RequestError, match=f"{name} holds variances below 0"):
        retinanet.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("values", [{"std": (1e-320, 1, 1)}, {"std": (0, 1, 1)}, {"mean": (math.inf, 0, 0)}])
def test_pixels_stay_finite(values: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"^model\.preprocessing\."):
        PreprocessingSettings(**values)


def test_class_names_must_fit(detector: Detector) -> None:
    with pytest.raises(RequestError, match=r"^2 class names for a model of 3 classes$"):
        Detector(detector.model, ["a", "b"])


@pytest.mark.kernels
def test_auto_is_what_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make().save(tmp_path / "model.safetensors")
    for value in ("fp32", "bf16"):
        monkeypatch.setenv("RETINANET_PRECISION", value)
        loaded = retinanet.load(tmp_path / "model.safetensors", "cpu", "auto")
        assert loaded.precision == value
        assert len(loaded.predict(make_image(50, 90))) > 5


def test_bfloat16_finds_nearly_the_same(detector: Detector) -> None:
    image = make_image(50, 90)
    narrow = Detector(detector.model, NAMES, precision="bf16").predict(image)
    usual = detector.predict(image)
    assert narrow.boxes.dtype == narrow.scores.dtype == torch.float32
    torch.testing.assert_close(narrow.scores[:3], usual.scores[:3], rtol=0, atol=0.03)


def test_prediction_leaves_the_model_trainable() -> None:
    """Evaluation within training: predict, then train on the same size."""
    detector = make()
    detector.predict(make_image(64, 96))
    model = detector.model.train()
    anchors = model.anchors(64, 96)
    targets = match(torch.cat(anchors), [torch.tensor([[0.0, 0, 32, 32]])], [torch.tensor([1])], MatchingSettings())

    losses = detection_loss(model(torch.randn(1, 3, 64, 96)), targets, anchors, LossSettings(box="giou"))
    sum(losses, torch.zeros(())).backward()
    assert all(p.grad is not None for p in model.parameters())
