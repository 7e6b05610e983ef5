"""Images by the names that annotation files give them."""

import pytest

from retinanet.data.faults import Report
from retinanet.data.formats.image_lookup import ImageLookup


@pytest.fixture
def root(tmp_path):
    for name in ("images/a.jpg", "images/b/c.png", "images/d/c.png", "x.y.jpg", "images/É.jpg", "e.jpg", "e.png"):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "secret.jpg").touch()
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("name", "there", "repaired"),
    [
        ("a.jpg", "images/a.jpg", 0),
        ("a", "images/a.jpg", 0),
        ("images/a.jpg", "images/a.jpg", 0),
        ("A.JPG", "images/a.jpg", 0),
        ("/home/me/a.jpg", "images/a.jpg", 1),
        ("C:\\me\\images\\a.jpg", "images/a.jpg", 1),
        ("b/c.png", "images/b/c.png", 0),
        ("/me/d/c.png", "images/d/c.png", 1),
        ("d\\c.png", "images/d/c.png", 0),
        ("x.y", "x.y.jpg", 0),
        ("e\u0301.jpg", "images/É.jpg", 0),
        ("../set/e.png", "e.png", 0),
    ],
)
def test_found(root, name, there, repaired):
    report = Report()
    lookup = ImageLookup(root, [root / "images", root])
    assert lookup.locate(name, "row 1", report) == root / there or lookup.find(name).samefile(root / there)
    assert report.count == repaired


@pytest.mark.parametrize("name", ["c.png", "c", "e", "", "gone.jpg", "a\0.jpg", "x" * 5000])
def test_names_of_none_or_of_several(root, name):
    assert ImageLookup(root, [root / "images"]).find(name) is None


@pytest.mark.parametrize("name", ["../secret.jpg", "../../secret.jpg", "/etc/shadow.jpg"])
def test_names_outside(root, name):
    report = Report()
    assert ImageLookup(root, [root]).locate(name, "row 1", report) is None
    assert report.lines() == [f"path outside the data set (1 left out): row 1: {name}"]
