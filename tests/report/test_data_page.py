import dataclasses

import pytest

from helpers.data_page_facts import MODEL, facts
from retinanet.analysis.doctor import Finding, examine
from retinanet.report import data_page
from retinanet.report.data_page import DataFacts, write_data_page

HOSTILE = "</script><script>alert('$x_1$')</script><b>&amp;\""


def finding(severity, text, **others):
    return Finding("labels.made-up", severity, others.pop("split", "train"), others.pop("count", 1), text, **others)


@pytest.mark.slow
def test_a_page_of_a_real_data_set(tmp_path, real, sound):
    inputs = facts(real("bccd"), ("train", "val", "test"))
    inputs = dataclasses.replace(inputs, findings=examine(inputs.splits, MODEL))
    write_data_page(tmp_path / "data.html", inputs)
    page = sound(tmp_path / "data.html")
    for name, one in inputs.surveys.items():
        assert f"{name} {one.images} {one.empties} {one.boxes:,}".replace(",", " ") in page.said
    for words in ("bccd", "Pascal VOC layout", "640 × 480", "Platelets", "11.4 times the boxes of the rarest"):
        assert words in page.said
    for one in inputs.findings:
        assert " ".join(one.text.split()) in page.said
        assert all(example in page.said for example in one.examples)
    assert len([one for one in page.images if one.get("src")]) == 12
    assert len([one for one in page.images if one.get("role") == "img"]) == 4
    assert all(len(one["src"]) < 200_000 for one in page.images if one.get("src"))


def test_the_same_data_give_the_same_bytes(tmp_path, make_set):
    inputs = facts(make_set())
    for name in ("a.html", "b.html"):
        write_data_page(tmp_path / name, inputs)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_findings_stand_in_the_order_of_their_weight(tmp_path, make_set, sound):
    findings = [
        finding("note", "a fact", remedy="nothing"),
        finding("warning", "a doubt", remedy="look at `train.json`", examples=("one", "two"), count=2),
        finding("error", "a fault", remedy="mend it"),
    ]
    write_data_page(tmp_path / "data.html", facts(make_set(), findings=findings))
    page = sound(tmp_path / "data.html")
    places = [page.said.index(words) for words in ("a fault", "mend it", "a doubt", "look at train.json", "a fact")]
    assert places == sorted(places)
    assert "<code>train.json</code>" in page.text
    assert "warning · train a doubt Fix: look at" in page.said
    assert "Fix: nothing" not in page.said
    assert "Fix 1 error before training, and check 1 warning." in page.said


@pytest.mark.parametrize(
    ("severities", "verdict"),
    [
        ([], "The data set is ready for training."),
        (["note"], "The data set is ready for training."),
        (["warning"] * 2, "The data set is ready for training; check 2 warnings."),
        (["error"] * 2, "Fix 2 errors before training."),
    ],
)
def test_the_verdict(make_set, severities, verdict):
    findings = [finding(severity, "what", remedy="how") for severity in severities]
    assert data_page._verdict(facts(make_set(), findings=findings)).startswith(
        verdict + " RetinaNet can be trained on "
    )


def test_a_hostile_class_and_finding_are_only_words(tmp_path, make_set, sound):
    findings = [finding("error", HOSTILE, remedy=HOSTILE, examples=(HOSTILE,), split=HOSTILE)]
    write_data_page(tmp_path / "data.html", facts(make_set((HOSTILE, "$")), findings=findings))
    page = sound(tmp_path / "data.html")
    assert HOSTILE not in page.text
    assert page.text.count("<script>") == 1
    assert page.said.count("alert(") >= 6


@pytest.mark.parametrize("classes", [1, 300])
def test_one_class_and_many(tmp_path, make_set, sound, classes):
    names = [f"class {i}" for i in range(classes)]
    write_data_page(tmp_path / "data.html", facts(make_set(names, count=40, boxes=9)))
    page = sound(tmp_path / "data.html")
    assert all(name in page.said for name in names)


def test_no_boxes_at_all(tmp_path, make_set, sound):
    write_data_page(tmp_path / "data.html", facts(make_set(boxes=0), findings=[]))
    page = sound(tmp_path / "data.html")
    assert "There are no boxes to train on." in page.said
    assert "median box –" in page.said


def test_no_split_that_can_be_used(tmp_path, sound):
    broken = finding("error", "cannot be used", remedy="restore it")
    empty = DataFacts(tmp_path, "COCO", surveys={}, findings=[broken], coverages={}, choices=[], splits={})
    write_data_page(tmp_path / "data.html", empty)
    page = sound(tmp_path / "data.html")
    assert "No split is usable." in page.said
    assert "cannot be used" in page.said
