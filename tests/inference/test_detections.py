"""The result type: what it says of itself, and what others get of it."""

import copy
import csv
import json
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.common.errors import RequestError, WorkError
from retinanet.inference.class_colours import PALETTE
from retinanet.inference.detections import Detection, Detections

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


def test_it_is_a_sequence(found, empty):
    assert [one.name for one in found] == ["bird", "dog", "bird"]
    box, score, label, name = found[1]
    assert (box, score, label, name) == ((0.0, 0.0, 5.0, 5.0), 0.5, 0, "dog")
    assert found[-1] == found[2] == found[np.int64(2)] == found[torch.tensor(2)]
    assert isinstance(found[0], Detection)
    assert {type(value) for value in (*found[0].box, found[0].score)} == {float}
    assert [one.score for one in reversed(found)] == [0.25, 0.5, 0.75]
    assert found[0] in found
    assert list(empty) == []
    assert not empty
    for wrong in (3, -4):
        with pytest.raises(IndexError, match=f"there is no detection {wrong}: there are 3"):
            found[wrong]
    with pytest.raises(IndexError):
        empty[0]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, 2), [0, 2]),
        ([True, False, True], [0, 2]),
        (np.array([True, False, True]), [0, 2]),
        (torch.tensor([False, False, False]), []),
        ([2, 0], [2, 0]),
        (np.array([-1]), [2]),
        (torch.tensor([1, 1], dtype=torch.int32), [1, 1]),
        ([], []),
        ((), []),
    ],
)
def test_some_of_them(found, index, expected):
    some = found[index]
    assert isinstance(some, Detections)
    assert some.labels.tolist() == [found.labels.tolist()[i] for i in expected]
    assert some.boxes.tolist() == [found.boxes.tolist()[i] for i in expected]
    assert some.boxes.shape == (len(expected), 4)
    assert (some.scores.dtype, some.labels.dtype) == (torch.float32, torch.int64)


def test_masks_of_its_own_tensors(found, empty):
    assert found[found.scores > 0.3] == found[(found.boxes[:, 0] < 20).numpy()] == found.first(2)
    assert found[found.labels == 2].names == ["bird", "bird"]
    assert len(empty[empty.scores > 0.5]) == 0


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([True, False], "the mask has 2 values for 3 detections"),
        (torch.ones(4, dtype=torch.bool), "the mask has 4 values for 3 detections"),
        ("cat", "an index must be .*, not 'cat'"),
        (None, "an index must be"),
        (1.0, "an index must be"),
        (True, "an index must be"),
        ([0.5, 1.0], "an index must be"),
        (torch.ones((3, 3), dtype=torch.bool), "an index must be"),
        ((0, slice(None)), "an index must be"),
        (10**30, "an index must be"),
        (torch.ones(3, dtype=torch.uint8), "an index of uint8"),
    ],
)
def test_what_is_no_index(found, index, message):
    with pytest.raises(RequestError, match=f"^{message}"):
        found[index]


def test_slices_backwards(found, empty):
    assert found[::-1] == found[[2, 1, 0]]
    assert found[2:0:-1] == found[[2, 1]]
    assert found[::2] == found[[0, 2]]
    assert len(empty[::-1]) == len(found[5:]) == 0


def test_what_is_not_finite_is_neither_json_nor_drawn(found):
    found.boxes[1, 2] = float("nan")
    with pytest.raises(RequestError, match=r"detection 1 has the box .*nan.* not finite"):
        found.to_json()
    with pytest.raises(RequestError, match="box 1 has a side that is not a number"):
        found.draw(np.zeros((100, 120, 3), np.uint8))
    assert len(found[[0, 2]].to_json()) > 0


def test_numbers_and_ids_that_do_not_fit(found):
    with pytest.raises(RequestError, match="1 numbers for 3 boxes"):
        found.draw(np.zeros((100, 120, 3), np.uint8), numbers=[1])
    for ids in ([7], {0: 7}):
        with pytest.raises(RequestError, match="category_ids must have an id for each of 3 labels"):
            found.to_coco(1, ids)


@pytest.mark.parametrize("path", [None, 3, "a\0.png", "a\0.json"])
def test_save_to_what_is_no_path(found, path):
    with pytest.raises(RequestError, match=r"^path "):
        found.save(path)


@pytest.mark.parametrize(("name", "longest"), [("a.jpg", 65500), ("a.webp", 16383)])
def test_save_more_pixels_than_a_format_holds(empty, tmp_path, name, longest):
    empty.source = np.zeros((longest + 1, 1, 3), np.uint8)
    with pytest.raises(WorkError, match=rf"holds at most {longest} pixels a side, not {longest + 1}: write a \.png"):
        empty.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_indices_out_of_range(found):
    with pytest.raises(IndexError, match="there is no detection 7: there are 3"):
        found[[0, 7]]


def test_of_classes(found):
    assert found.of("dog").scores.tolist() == [0.5]
    assert found.of("bird", "dog") == found
    assert len(found.of("cat")) == len(found.of()) == 0
    with pytest.raises(RequestError, match=r"the detector has no class 'brid'; did you mean bird\?$"):
        found.of("dog", "brid")
    with pytest.raises(RequestError, match=r"no class 'zebra': it has dog, cat, bird$"):
        found.of("zebra")
    with pytest.raises(RequestError, match="class names are texts"):
        found.of(["dog"])


def test_equality(found, empty):
    assert found == copy.copy(found) == copy.deepcopy(found) == pickle.loads(pickle.dumps(found))
    assert found != empty
    assert found != found[[1, 0, 2]]
    assert found != Detections(found.boxes, found.scores, found.labels, ("a", "b", "c"))
    assert found != 3
    assert found in [empty, found]
    with pytest.raises(TypeError):
        hash(found)


def test_repr_is_short(found, empty):
    found.source = "a.jpg"
    assert repr(found) == "<Detections: 3 in a.jpg: 2 bird, 1 dog, scores 0.25 to 0.75>"
    assert repr(empty) == "<Detections: 0>"
    assert repr(found[0]) == "Detection('bird', 0.75, box=(10.2, 20.0, 40.0, 60.5))"
    many = Detections(torch.zeros(999, 4), torch.rand(999), torch.arange(999), tuple(map(str, range(999))))
    assert len(repr(many)) < 120


def test_the_image_is_remembered(found, tmp_path):
    array = np.full((100, 120, 3), 90, np.uint8)
    for source in kinds(array, tmp_path):
        found.source = source
        for one in (found, found[:], found.above(0), found.of("bird", "dog"), pickle.loads(pickle.dumps(found))):
            assert one.draw().tobytes() == found.draw(array).tobytes()
        assert found[:2].source is source
    found.source = tmp_path / "gone.png"
    with pytest.raises(RequestError, match=r"gone\.png: there is no such file"):
        found.draw()
    found.source = None
    with pytest.raises(RequestError, match="which image"):
        found.draw()


def test_save(found, tmp_path):
    found.source = Image.new("RGB", (120, 100), (90, 90, 90))
    assert found.save(tmp_path / "a.png") == tmp_path / "a.png"
    assert Image.open(tmp_path / "a.png").tobytes() == found.draw().tobytes()
    for name, kind in (("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP")):
        assert Image.open(found.save(str(tmp_path / name))).format == kind
    found.source = tmp_path / "a.png"
    assert json.loads(found.save(tmp_path / "a.json").read_text()) == found.to_dict()
    with open(found.save(tmp_path / "a.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == found.names
    assert {row["image"] for row in rows} == {str(tmp_path / "a.png")}
    assert [float(rows[0][side]) for side in ("score", "x1", "y1", "x2", "y2")] == [0.75, 10.25, 20, 40, 60.5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.JPEG", "a.csv", "a.jpg", "a.json", "a.png", "a.webp"]


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.txt", ".png"])
def test_save_under_another_ending(found, tmp_path, name):
    found.source = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(RequestError, match=r"an image is written as \.png or \.jpg"):
        found.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_save_where_there_is_no_folder(found, tmp_path):
    found.source = np.zeros((9, 9, 3), np.uint8)
    for name in ("no/a.png", "no/a.csv", "no/a.json"):
        with pytest.raises(WorkError, match=f"cannot write {tmp_path}/{name}: no such file or directory"):
            found.save(tmp_path / name)


def test_a_spreadsheet_runs_no_name(found, tmp_path):
    found.class_names = ("=1+1", "cat", "bird")
    found.source = "-a.jpg"
    text = found.save(tmp_path / "a.csv").read_text()
    assert "./-a.jpg,'=1+1,0.5" in text


def test_plain_values(found, empty):
    found.source = "a.jpg"
    expected = {
        "image": "a.jpg",
        "detections": [
            {"name": "bird", "label": 2, "score": 0.75, "box": [10.25, 20, 40, 60.5]},
            {"name": "dog", "label": 0, "score": 0.5, "box": [0, 0, 5, 5]},
            {"name": "bird", "label": 2, "score": 0.25, "box": [30, 40, 90, 70]},
        ],
    }
    assert found.to_dict() == json.loads(found.to_json()) == expected
    assert empty.to_dict() == json.loads(empty.to_json()) == {"image": None, "detections": []}
    found.source = np.zeros((9, 9, 3), np.uint8)
    assert found.to_dict()["image"] is None


def test_to_pandas(found, empty):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    found.source = "a.jpg"
    frame = pandas.concat([found.to_pandas(), empty.to_pandas()])
    assert list(frame.columns) == ["image", "name", "label", "score", "x1", "y1", "x2", "y2"]
    assert frame[frame.score > 0.3].name.tolist() == ["bird", "dog"]
    assert frame[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == found.boxes.tolist()
    assert frame.image.tolist() == ["a.jpg"] * 3


def test_pandas_is_not_installed(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if there were none
    with pytest.raises(RequestError, match=r"pip install pandas$"):
        found.to_pandas()
