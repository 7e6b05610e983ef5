"""The result type: what it says of itself, and what others get of it."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.common.errors import RequestError
from retinanet.inference.class_colours import PALETTE
from retinanet.inference.detections import Detections

NAMES = ("dog", "cat", "bird")


@pytest.fixture
def found():
    boxes = torch.tensor([[10.25, 20, 40, 60.5], [0, 0, 5, 5], [30, 40, 90, 70]])
    return Detections(boxes, torch.tensor([0.75, 0.5, 0.25]), torch.tensor([2, 0, 2]), NAMES)


@pytest.fixture
def empty():
    return Detections(torch.zeros((0, 4)), torch.zeros(0), torch.zeros(0, dtype=torch.int64), NAMES)


def test_length_and_names(found, empty):
    assert len(found) == 3
    assert found.names == ["bird", "dog", "bird"]
    assert (len(empty), empty.names) == (0, [])


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 3), (0.25, 2), (0.3, 2), (0.5, 1), (0.75, 0), (1, 0)])
def test_above_is_exclusive(found, threshold, count):
    some = found.above(threshold)
    assert some.class_names == NAMES
    for name in ("boxes", "scores", "labels"):
        assert torch.equal(getattr(some, name), getattr(found, name)[:count])
        assert getattr(some, name).dtype == getattr(found, name).dtype
    assert len(found) == 3


@pytest.mark.parametrize("threshold", [float("nan"), "0.3", 1.5, 2, -1, None, True])
def test_above_what_is_no_score(found, threshold):
    with pytest.raises(RequestError, match=r"^threshold must be "):
        found.above(threshold)


def test_above_of_nothing(empty):
    assert empty.above(0.5).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("category_ids", "expected"),
    [(None, [2, 0, 2]), ((1, 3, 90), [90, 1, 90]), ([7, 8, 0], [0, 7, 0]), ({0: 18, 2: 16}, [16, 18, 16])],
)
def test_to_coco(found, category_ids, expected):
    rows = found.to_coco(42, category_ids)
    assert [row["category_id"] for row in rows] == expected
    assert [row["image_id"] for row in rows] == [42] * 3
    assert [row["score"] for row in rows] == [0.75, 0.5, 0.25]
    assert [row["bbox"] for row in rows] == [[10.25, 20, 29.75, 40.5], [0, 0, 5, 5], [30, 40, 60, 30]]
    plain = [row["bbox"][0] for row in rows] + [row["score"] for row in rows] + [row["category_id"] for row in rows]
    assert {type(value) for value in plain} == {float, int}  # JSON takes no tensors


def test_widths_are_not_rounded(empty):
    """16000.1 and 16000.2 are float32 numbers near these; their difference is exact in doubles alone."""
    corners = np.float32([16000.1, 0.1, 16000.2, 3000.7])
    one = Detections(torch.from_numpy(corners)[None], torch.tensor([0.5]), torch.tensor([0]), NAMES)
    x1, y1, x2, y2 = (float(v) for v in corners)
    assert one.to_coco(1)[0]["bbox"] == [x1, y1, x2 - x1, y2 - y1]
    assert empty.to_coco(1) == empty.to_coco(1, {}) == []


def test_to_supervision_and_back(found, empty):
    supervision = pytest.importorskip("supervision", reason="supervision is not installed: pip install '.[video]'")
    for one in (found, empty):
        other = one.to_supervision()
        assert isinstance(other, supervision.Detections)
        assert len(other) == len(one)
        back = Detections(*(torch.from_numpy(v) for v in (other.xyxy, other.confidence, other.class_id)), NAMES)
        for name in ("boxes", "scores", "labels"):
            assert torch.equal(getattr(back, name), getattr(one, name))
        assert other["class_name"].tolist() == one.names
    sure = found.to_supervision()[found.to_supervision().confidence > 0.3]
    assert sure["class_name"].tolist() == ["bird", "dog"]


def test_supervision_is_not_installed(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)  # as if there were none
    with pytest.raises(RequestError) as error:
        found.to_supervision()
    assert str(error.value) == (
        "to_supervision needs the package supervision, which is not installed: pip install supervision"
    )


def kinds(array, folder):
    Image.fromarray(array).save(folder / "image.png")
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    yield from (array.copy(), Image.fromarray(array), tensor, tensor.contiguous(), str(folder / "image.png"))


def pixels(image):
    if isinstance(image, torch.Tensor):
        return image.permute(1, 2, 0).numpy().copy()
    return np.array(Image.open(image) if isinstance(image, str) else image)


@pytest.mark.parametrize("size", [(100, 80), (1, 1), (1, 90), (90, 1)])
def test_draw_leaves_the_image_as_it_is(found, tmp_path, size):
    """Images of a pixel's width or height are the ones whose memory a conversion may share."""
    array = np.full((*size, 3), 90, np.uint8)
    results = []
    for source in kinds(array, tmp_path):
        image = found.draw(source)
        assert (image.mode, image.size) == ("RGB", size[::-1])
        assert (pixels(source) == 90).all()
        results.append(image.tobytes())
    assert len(set(results)) == 1
    assert results[0] != array.tobytes()


def test_what_is_drawn(found, empty):
    source = Image.new("RGB", (160, 120), (90, 90, 90))
    assert empty.draw(source).tobytes() == source.tobytes()
    image = found.draw(source)
    assert image.getpixel((89, 60)) == PALETTE[2]  # a bird: the colour of the third class, though no cat is there
    assert (np.asarray(image) == PALETTE[0]).all(axis=-1).any()
    # classes are named, with their scores
    renamed = Detections(found.boxes, found.scores, found.labels, ("dog", "cat", "bard"))
    assert renamed.draw(source).tobytes() != image.tobytes()
    surer = Detections(found.boxes, found.scores + 0.1, found.labels, NAMES)
    assert surer.draw(source).tobytes() != image.tobytes()
