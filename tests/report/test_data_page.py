import pytest

from helpers.data_page_facts import MODEL, facts
from retinanet.analysis.doctor import Finding, examine
from retinanet.report import data_page
from retinanet.report.data_page import write_data_page

HOSTILE = "</script><script>alert('$x_1$')</script><b>&amp;\""


def finding(severity, text, **others):
    return Finding("labels.made-up", severity, others.pop("split", "train"), others.pop("count", 1), text, **others)


def test_a_page_of_a_real_data_set(tmp_path, real, sound):
    inputs = facts(real("bccd"), ("train", "val", "test"))
    inputs["findings"] = examine(inputs["splits"], MODEL)
    write_data_page(tmp_path / "data.html", **inputs)
    page = sound(tmp_path / "data.html")
    for name, one in inputs["surveys"].items():
        assert f"{name} {one.images} {one.empties} {one.boxes:,}".replace(",", " ") in page.said
    for words in ("bccd", "Pascal VOC layout", "640 × 480", "Platelets", "the commonest 11.4 times the rarest"):
        assert words in page.said
    for one in inputs["findings"]:
        assert " ".join(one.text.split()) in page.said
        assert all(example in page.said for example in one.examples)
    assert len([one for one in page.images if one.get("src")]) == 12
    assert len([one for one in page.images if one.get("role") == "img"]) == 4
    assert all(len(one["src"]) < 200_000 for one in page.images if one.get("src"))


def test_the_same_data_give_the_same_bytes(tmp_path, make_set):
    inputs = facts(make_set())
    for name in ("a.html", "b.html"):
        write_data_page(tmp_path / name, **inputs)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_findings_stand_in_the_order_of_their_weight(tmp_path, make_set, sound):
    findings = [
        finding("note", "a fact", remedy="nothing"),
        finding("warning", "a doubt", remedy="look at `train.json`", examples=("one", "two"), count=2),
        finding("error", "a fault", remedy="mend it"),
    ]
    write_data_page(tmp_path / "data.html", **facts(make_set(), findings=findings))
    page = sound(tmp_path / "data.html")
    places = [page.said.index(words) for words in ("a fault", "mend it", "a doubt", "look at train.json", "a fact")]
    assert places == sorted(places)
    assert "<code>train.json</code>" in page.text
    assert "warning · train a doubt What to do: look at" in page.said
    assert "What to do: nothing" not in page.said
    assert "1 thing should be put right before training, and 1 thing is worth a look." in page.said


@pytest.mark.parametrize(
    ("severities", "verdict"),
    [
        ([], "It can be trained on as it is."),
        (["note"], "It can be trained on as it is."),
        (["warning"] * 2, "It can be trained on as it is; 2 things are worth a look."),
        (["error"] * 2, "2 things should be put right before training."),
    ],
)
def test_the_verdict(make_set, severities, verdict):
    findings = [finding(severity, "what", remedy="how") for severity in severities]
    inputs = facts(make_set())
    said = data_page._verdict(inputs["surveys"], findings, inputs["coverages"])
    assert said.startswith(verdict + " RetinaNet can learn ")


def test_a_hostile_class_and_finding_are_only_words(tmp_path, make_set, sound):
    findings = [finding("error", HOSTILE, remedy=HOSTILE, examples=(HOSTILE,), split=HOSTILE)]
    write_data_page(tmp_path / "data.html", **facts(make_set((HOSTILE, "$")), findings=findings))
    page = sound(tmp_path / "data.html")
    assert HOSTILE not in page.text
    assert page.text.count("<script>") == 1
    assert page.said.count("alert(") >= 6


@pytest.mark.parametrize("classes", [1, 300])
def test_one_class_and_many(tmp_path, make_set, sound, classes):
    names = [f"class {i}" for i in range(classes)]
    write_data_page(tmp_path / "data.html", **facts(make_set(names, count=40, boxes=9)))
    page = sound(tmp_path / "data.html")
    assert all(name in page.said for name in names)


def test_no_boxes_at_all(tmp_path, make_set, sound):
    write_data_page(tmp_path / "data.html", **facts(make_set(boxes=0), findings=[]))
    page = sound(tmp_path / "data.html")
    assert "There are no boxes to learn from." in page.said
    assert "median box –" in page.said


def test_no_split_that_can_be_used(tmp_path, sound):
    empty = {"surveys": {}, "coverages": {}, "choices": [], "splits": {}}
    broken = finding("error", "cannot be used", remedy="restore it")
    write_data_page(tmp_path / "data.html", root=tmp_path, kind="COCO", findings=[broken], **empty)
    page = sound(tmp_path / "data.html")
    assert "No split can be used." in page.said
    assert "cannot be used" in page.said
