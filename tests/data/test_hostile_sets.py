"""Some two hundred broken and malicious data sets: each is refused in one line, or opened without what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.hostile_names import obeyed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by Linux's means"),
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What came of each, by its name; all of them in one process with a gigabyte to spare."""
    script, folder = Path(__file__).parents[1] / "helpers" / "hostile_sets.py", tmp_path_factory.mktemp("hostile")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, check=False, timeout=300)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{lines[-1:]}: {done.stderr[-3000:]}"
    assert not list(folder.rglob("hacked"))
    return {line["name"]: line for line in lines if "name" in line}


def test_none_hangs_breaks_or_takes_all_memory(outcomes):
    assert len(outcomes) > 200
    assert [one for one in outcomes.values() if "broken" in one] == []


def test_what_is_refused_says_where_in_one_line(outcomes):
    for one in outcomes.values():
        for text in [one["refused"]] if "refused" in one else one["said"]:
            assert text
            assert "Errno" not in text
            assert len(text) < 3000
        assert obeyed("".join(one.get("said", ()))) == set()


@pytest.mark.parametrize("kind", ["image", "line", "xml"])
def test_one_bad_file_leaves_the_others_in_use(outcomes, kind):
    there = {name: one for name, one in outcomes.items() if name.startswith(f"{kind}: ")}
    assert len(there) > 15
    for name, one in there.items():
        assert all(images >= 1 and boxes >= 1 for images, boxes in one.get("opened", ())), name
    refused = {name for name, one in there.items() if "refused" in one}
    # A class name of 10 MB; and an image whose head is sound, which fails where it is decoded.
    assert refused <= {"xml: a huge text", "image: png of 80 megapixels without pixels"}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("json: a way out", "path outside the data set (1 left out)"),
        ("json: a way out by backslashes", "path outside the data set (1 left out)"),
        ("json: an absolute way out", "path outside the data set (1 left out)"),
        ("json: a device", "path outside the data set (1 left out)"),
        ("voc list: ways out", "path outside the data set (2 left out)"),
        ("image: pipe", "unreadable image (1 left out)"),
        ("image: socket", "unreadable image (1 left out)"),
        ("image: link to a device", "unreadable image (1 left out)"),
        ("image: link to nothing", "missing image (1 left out)"),
        ("image: link to itself", "missing image (1 left out)"),
        ("image: postscript", "unreadable image (1 left out)"),
        ("label: pipe", "unreadable annotation file (1 left out)"),
        ("label: link to a device", "unreadable annotation file (1 left out)"),
        ("line: one long line", "malformed line (1 left out)"),
        ("line: fullwidth", "malformed line (1 left out)"),
        ("line: underscores", "malformed line (1 left out)"),
        ("line: 1e400", "box with a coordinate that is not a finite number (1 left out)"),
        ("xml: billion laughs", "unreadable annotation file (1 left out)"),
        ("xml: external entity", "unreadable annotation file (1 left out)"),
        ("xml: punycode", "unreadable annotation file (1 left out)"),
        ("xml: surrogates in utf-7", "unreadable annotation file (1 left out)"),
        ("label: link to itself", "unreadable annotation file (1 left out)"),
        ("xml: pipe", "unreadable annotation file (1 left out)"),
        ("json: a box of nan", "box with a coordinate that is not a finite number (1 left out)"),
    ],
)
def test_what_is_left_out_is_counted(outcomes, name, fault):
    assert outcomes[name]["said"][0].startswith(fault)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yaml: bomb", "line 2 column 8"),
        ("yaml: a billion classes", "100000 classes at most"),
        ("yaml: python", "python/object/apply"),
        ("yaml: root", "holds more than the data set"),
        ("yaml: above", "holds more than the data set"),
        ("yaml: passwords", "is no list of images"),
        ("yaml: pipe", "a pipe, a socket or a device"),
        ("list of passwords", "is no list of images"),
        ("classes of passwords", "no list of class names /etc/passwd"),
        ("json: deep in images", "too deep"),
        ("json: images twice", "two lists 'images'"),
        ("json: sparse", "zeros instead of text"),
        ("json: a name with half a surrogate", "is not text"),
        ("the data set: pipe", "neither a file nor a folder"),
    ],
)
def test_what_cannot_be_used_is_named(outcomes, name, words):
    assert words in outcomes[name]["refused"]


def test_a_file_of_another_is_not_quoted(outcomes):
    for name in ("yaml: passwords", "list of passwords", "classes of passwords", "xml: external entity"):
        assert "root:" not in json.dumps(outcomes[name])


def test_links_in_circles_are_followed_once(outcomes):
    assert outcomes["folders in circles"]["opened"] == [[2, 2]]
