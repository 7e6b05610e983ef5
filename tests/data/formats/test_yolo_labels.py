"""Lines with more columns than a box: keypoints, confidences and track ids, polygons; never one as another."""

import numpy as np
import pytest
from PIL import Image

from retinanet.data import open_data

BOX = "0 0.19375 0.458333 0.2625 0.4"
CORNERS = [10, 31, 52, 79]  # of the same in 160 x 120 pixels
BOX_ONLY = f"{BOX}\n"


@pytest.fixture
def read(tmp_path):
    """Open a data set of images of 160 x 120 pixels with these label files."""

    def opened(*texts, more=""):
        for i, text in enumerate(texts):
            for folder in ("images", "labels"):
                (tmp_path / "train" / folder).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (160, 120)).save(tmp_path / f"train/images/{i}.png")
            (tmp_path / f"train/labels/{i}.txt").write_text(text)
        (tmp_path / "data.yaml").write_text(f"train: train/images\nval: valid/images\nnames: [red, blue]\n{more}")
        return open_data(tmp_path, "train")

    return opened


def kinds(data):
    return {fault.kind: (fault.count, fault.action) for fault in data.report.faults.values()}


def test_declared_keypoints_are_no_polygon(read):
    pose = f"{BOX} 0.10 0.90 0.20 0.95 0.05 0.05 0.9 0.9\n"
    data = read(pose + "1 0.5 0.5 0.5 0.5\n", pose, more="kpt_shape: [4, 2]\n")
    assert np.allclose(data.boxes(0), [CORNERS, [40, 30, 120, 90]], atol=0.01)
    assert np.allclose(data.boxes(1), [CORNERS], atol=0.01)
    (note,) = data.report.notes
    assert note.startswith("2 lines have 4 keypoints")
    assert not data.report.faults
    assert data.report.facts.polygons == 0


@pytest.mark.parametrize("line", [f"{BOX} 0.9", f"{BOX} 0.1 0.9 0.2 0.9", f"{BOX} 0.1 0.9 2 0.2 0.9 2 0.3 0.9 2"])
def test_lines_that_are_not_what_kpt_shape_says_are_named(read, line):
    data = read(f"{BOX} 0.10 0.90 1 0.20 0.95 2\n{line}\n", more="kpt_shape: [2, 3]\n")
    assert np.allclose(data.boxes(0), [CORNERS], atol=0.01)
    assert kinds(data) == {"malformed line": (1, "left out")}
    assert "train/labels/0.txt line 2" in data.report.lines()[0]
    assert "5 or 11" in data.report.lines()[0]


@pytest.mark.parametrize("shape", ["4", "[4]", "[4, 5]", "[0, 2]", "[a, 2]", "[4.5, 2]"])
def test_a_kpt_shape_that_is_none(read, shape):
    with pytest.raises(ValueError, match=r"data.yaml: kpt_shape must be \[number of keypoints, 2 or 3\]"):
        read(BOX_ONLY, more=f"kpt_shape: {shape}\n")


@pytest.mark.parametrize(
    "texts",
    [
        (f"{BOX} 0.87\n", f"{BOX} 0\n{BOX} 1\n"),  # confidences
        (f"{BOX} 3\n", f"{BOX} 17\n"),  # track ids
        (f"{BOX} 0.87 17\n", f"{BOX} 0.87 1\n", f"{BOX} 0.2 0\n"),  # both; 0 and 1 could end a triangle
        (f"{BOX} 0.87 1\n", f"{BOX} 0.5 1\n", f"{BOX} 0.2 1\n"),  # triangles do not all end at the edge
    ],
)
def test_confidences_and_track_ids_are_passed_over(read, texts):
    data = read(*texts)
    assert data.num_boxes == sum(text.count("\n") for text in texts)
    assert np.allclose(data.annotations.boxes, CORNERS, atol=0.01)
    assert kinds(data) == {"confidence or track id beside a box, passed over": (data.num_boxes, "repaired")}
    assert data.report.facts.polygons == 0


@pytest.mark.parametrize(
    ("texts", "unclear"),
    [
        ([f"{BOX} 0.87 1\n"], 1),  # alone: a triangle or a box
        ([f"{BOX} 0.87 1\n0 0.1 0.1 0.5 0.1 0.3 0.4\n{BOX} 0.87 7\n"], 1),  # the split has both
        ([f"0 0.5 0.5 0.2 0.1 {angle}\n" for angle in (0.3, 0.9, 1.3, -0.4)], 2),  # oriented boxes
        ([f"0 0.2 0.2 0.2 0.1 0.2 0.2 {seen} 0.21 0.2 {seen}\n" for seen in (0, 1)], 2),  # keypoints and whether seen
        (["0 0.5 0.5 0.2 0.2 0.5 0.5 1 0.4 0.5 1 0.45 0.55 1 0.5 0.5 1\n", "0 0.5 0.5 0.2 0.2 " + "0.5 0.5 2 " * 4], 1),
    ],
)
def test_lines_that_fit_two_formats_are_left_out_and_named(read, texts, unclear):
    data = read(BOX_ONLY, *texts)
    named = kinds(data).get("line that fits two formats", (0, ""))[0]
    assert named == unclear
    assert len(data.report.faults) > 0
    lost = sum(fault.count for fault in data.report.faults.values() if fault.action == "left out")
    assert lost + data.num_boxes == 1 + sum(len(text.splitlines()) for text in texts)
    assert sum(data.report.facts.used.values()) == data.num_boxes


def test_six_and_seven_columns_beside_polygons(read):
    polygon = "1 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5 0.05 0.3\n"
    data = read(f"{polygon}0 0.1 0.2 0.3 0.4 0.2 1\n", polygon)  # a triangle that ends at the edge, among outlines
    assert np.allclose(data.boxes(0), [[8, 12, 80, 60], [16, 24, 48, 120]], atol=0.01)
    assert data.report.facts.polygons == 3
    assert not data.report.faults


def test_oriented_boxes_are_polygons(read):
    rng = np.random.default_rng(0)
    centre, side = rng.uniform(0.2, 0.8, (40, 1, 2)), rng.uniform(0.02, 0.15, (40, 1, 1))
    corners = centre + side * np.array([[-1, -0.5], [0.8, -1], [1, 0.5], [-0.8, 1]])
    data = read(*("1 " + " ".join(f"{v:.5f}" for v in one.ravel()) for one in corners))
    expected = np.concatenate([corners.min(1), corners.max(1)], 1) * [160, 120, 160, 120]
    order = [int(data.path(i).stem) for i in range(40)]
    assert np.allclose(data.annotations.boxes, expected[order], atol=0.01)
    assert not data.report.faults


def test_keypoints_that_nobody_declared(read):
    rng = np.random.default_rng(0)
    sides = rng.uniform(0.05, 0.15, (40, 2))
    centres = rng.uniform(0.2, 0.8, (40, 2))
    points = centres[:, None] + sides[:, None] * rng.uniform(-0.5, 0.5, (40, 4, 2))
    rows = np.concatenate([centres, sides, points.reshape(40, -1)], 1)
    data = read(*("0 " + " ".join(f"{v:.6f}" for v in row) for row in rows))
    corners = np.concatenate([centres - sides / 2, centres + sides / 2], 1) * [160, 120, 160, 120]
    order = [int(data.path(i).stem) for i in range(40)]
    assert np.allclose(data.annotations.boxes, corners[order], atol=0.01)
    (line,) = data.report.lines()
    assert "kpt_shape" in line
    data = read("0 " + " ".join(f"{v:.6f}" for v in rows[0]), *[""] * 39)  # one alone is no proof
    assert kinds(data) == {"line that fits two formats": (1, "left out")}


def drawn(rows):
    return ["0 " + " ".join(f"{value:.6f}" for value in row) + "\n" for row in rows]


@pytest.mark.parametrize(("points", "each"), [(2, 2), (5, 2), (2, 3), (4, 3)])
def test_keypoints_of_large_central_boxes_are_no_polygon(read, points, each):
    rng = np.random.default_rng(1)
    sides = rng.uniform(0.6, 0.95, (20, 2))
    centres = rng.uniform(sides / 2, 1 - sides / 2)
    spots = centres[:, None] + sides[:, None] * rng.uniform(-0.5, 0.5, (20, points, 2))
    scores = rng.uniform(0.5, 1, (20, points, each - 2))  # as predictions have in place of a visibility
    spots = np.concatenate([spots, scores], 2).reshape(20, -1)
    data = read(BOX_ONLY, *drawn(np.concatenate([centres, sides, spots], 1)))
    assert kinds(data) == {"line that fits two formats": (20, "left out")}
    assert "kpt_shape" in data.report.lines()[0]
    assert data.num_boxes == 1


@pytest.mark.parametrize("points", [4, 5, 8])
def test_small_polygons_in_the_middle_stay_polygons(read, points):
    rng = np.random.default_rng(0)
    angles = (np.arange(points) + rng.uniform(0, 0.8, (40, points))) * 2 * np.pi / points
    spread = np.stack([np.cos(angles), np.sin(angles)], 2) * rng.uniform(0.02, 0.1, (40, points, 1))
    corners = rng.uniform(0.45, 0.55, (40, 1, 2)) + spread
    data = read(*drawn(corners.reshape(40, -1)))
    assert (data.num_boxes, data.report.facts.polygons) == (40, 40)
    assert not data.report.faults


def six(order, count=20):
    """Lines of six columns, as ``order`` makes them of a box inside the image."""
    rng = np.random.default_rng(2)
    rows = []
    for i in range(count):
        w, h = rng.uniform(0.05, 0.4, 2)
        x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
        rows.append(" ".join(f"{value:.6g}" for value in order((x, y, w, h), rng, i)) + "\n")
    return rows


@pytest.mark.parametrize(
    "order",
    [
        lambda box, rng, i: (0, rng.uniform(0.2, 1), *box),  # class, confidence, box
        lambda box, rng, i: (rng.choice([1, 0.9]), *box, 0),  # confidence, box, class
        lambda box, rng, i: (0, *box, rng.choice([0, 30, 45, 90])),  # angles
        lambda box, rng, i: (0, *box, 15 * i),
        lambda box, rng, i: (0, *box, rng.uniform(0, 1.57)),
    ],
)
@pytest.mark.parametrize("together", [False, True])
def test_six_columns_that_are_no_box_and_a_confidence(read, order, together):
    lines = six(order)
    data = read(BOX_ONLY, *(["".join(lines)] if together else lines))
    assert data.num_boxes == 1
    left_out = sum(count for count, action in kinds(data).values() if action == "left out")
    assert left_out == sum(count for count, _ in kinds(data).values()) == 20


def test_whole_angles_repeat_in_a_file_and_track_ids_do_not(read):
    angles = ["".join(six(lambda box, rng, i: (0, *box, rng.integers(0, 180)), 30)) for _ in range(2)]
    data = read(BOX_ONLY, *angles)
    assert data.num_boxes == 1
    data = read(BOX_ONLY, *["".join(six(lambda box, rng, i: (0, *box, i), 30))] * 2)
    assert data.num_boxes == 61


def test_confidences_of_boxes_of_every_size_are_passed_over(read):
    data = read(*six(lambda box, rng, i: (0, *box, rng.uniform(0.2, 1))))
    assert kinds(data) == {"confidence or track id beside a box, passed over": (20, "repaired")}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.1 0.1 0.2 0.2 1.3 30", "1.3 cannot be a coordinate"),
        ("0 10 10 60 10 60 40", "10 cannot be a coordinate"),
        ("0 0.5 0.5 0.2 0.2 7.5", "an angle?"),
        ("0 0.5 0.5 0.2 0.2 nan", "neither a confidence"),
        ("0,0.5,0.5,0.1,0.1", "1 columns"),
        ("0 0,5 0,5 0,1 0,1", "0,5 is not a number: write a decimal point"),
        ("0 0.5 0.5 0.1 0_1", "0_1 is not a number"),
        ("0 0.5 0.5 0.1 none", "none is not a number"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.87", "8 columns"),
    ],
)
def test_lines_that_are_nothing_are_named(read, line, reason):
    data = read(f"{BOX_ONLY}{line}\n")
    assert np.allclose(data.annotations.boxes, [CORNERS], atol=0.01)
    assert kinds(data) == {"malformed line": (1, "left out")}
    assert "train/labels/0.txt line 2" in data.report.lines()[0]
    assert reason in data.report.lines()[0]


@pytest.mark.parametrize(
    "text", [f"\ufeff{BOX}\r\n\r\n1 .5 .5 .5 .5", f"{BOX}\r1\t.5\t.5\t.5\t.5", f"{BOX} \n+1 5e-1 .5 .5 .5"]
)
def test_ends_of_lines_tabs_and_blanks(read, text):
    data = read(text)
    assert np.allclose(data.boxes(0), [CORNERS, [40, 30, 120, 90]], atol=0.01)
    assert data.labels(0).tolist() == [0, 1]
    assert not data.report.faults
