import dataclasses
import math

import pytest

from retinanet.common.errors import WorkError
from retinanet.evaluation.confusion import worst
from retinanet.report.run_page import write_run_page

HOSTILE = "</script><script>alert('$x_1$')</script><b>&amp;\""


def test_a_page_of_a_run(tmp_path, make_set, run, sound):
    facts = run(make_set())
    write_run_page(tmp_path / "report.html", facts)
    page = sound(tmp_path / "report.html")
    stats = facts.stats
    for words in (f"AP {stats['AP']:.3f}", f"AP50 {stats['AP50']:.3f}", "1 h 2 min", "12 steps, 6 epochs"):
        assert words in page.said
    for name in ("numbers", "next", "course", "classes", "confusion", "errors", "images", "loss", "time", "settings"):
        assert name in page.ids
    assert page.said.count("missed") > 1
    assert len([one for one in page.images if one.get("src")]) == 2 * len(worst(facts.images, 8))
    assert len([one for one in page.images if one.get("role") == "img"]) == 5
    # what the figures show stands in tables too
    for curve in facts.curves.per_class:
        assert f"{curve.best_f1:.3f} {curve.threshold:.2f}" in page.said
    assert "model.preprocessing.size 64 800" in page.said
    assert "backward 5.0 s (40 %)" in page.said
    matrix = facts.confusion.matrix
    assert f"red {matrix[0, 0]} {matrix[0, 1]} {matrix[0, 2]}" in page.said


def test_the_same_run_gives_the_same_bytes(tmp_path, make_set, run):
    facts = run(make_set())
    for name in ("a.html", "b.html"):
        write_run_page(tmp_path / name, facts)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_hostile_class_is_only_a_name(tmp_path, make_set, run, sound):
    write_run_page(tmp_path / "report.html", run(make_set((HOSTILE, "$"))))
    page = sound(tmp_path / "report.html")
    assert HOSTILE not in page.text
    assert page.said.count("alert(") >= 3  # in tables, curves and the matrix: written, not run
    assert page.text.count("<script>") == 1


@pytest.mark.parametrize("classes", [1, 300])
def test_one_class_and_many(tmp_path, make_set, run, sound, classes):
    names = [f"class {i}" for i in range(classes)]
    write_run_page(tmp_path / "report.html", run(make_set(names, count=40, boxes=9)))
    page = sound(tmp_path / "report.html")
    assert all(name in page.said for name in names)
    assert ("matrix" in page.classes) == (classes == 1)
    assert ("The most frequent class confusions." in page.said) == (classes == 300)


def test_nothing_was_found(tmp_path, make_set, run, sound):
    write_run_page(tmp_path / "report.html", run(make_set(), nothing=True))
    page = sound(tmp_path / "report.html")
    assert "No detection is right yet." in page.said
    assert "No detection is right, so" in page.said
    assert "no detections" in page.said


def test_no_truth_to_measure_on(tmp_path, make_set, run, sound):
    write_run_page(tmp_path / "report.html", run(make_set(val_boxes=0)))
    page = sound(tmp_path / "report.html")
    assert "AP – mean over" in page.said
    assert "best F1 –" in page.said
    assert "-1.0" not in page.said
    assert "The split val has no boxes" in page.said


def test_missing_values_are_dashes(tmp_path, make_set, run, sound):
    """A page without loss curves, coverage, images, metrics and times; numbers that are None or NaN."""
    facts = run(make_set(), metrics=[], choices=[], seconds_in={}, seconds=math.nan)
    stats = dict.fromkeys(facts.stats, math.nan) | {"AP75": None}
    rows = [row | {"AP": None, "AP50": math.nan} for row in facts.per_class]
    facts = dataclasses.replace(facts, stats=stats, per_class=rows, loss_curves=None, coverage=None, images=())
    write_run_page(tmp_path / "report.html", facts)
    page = sound(tmp_path / "report.html")
    for words in (
        "AP – mean",
        "AP50 – AP at",
        "time –",
        "No training step was recorded",
        "No times were recorded",
        "No image has",
    ):
        assert words in page.said
    assert "loss" not in page.ids


def test_a_loss_of_zero_and_a_single_step(tmp_path, make_set, run, sound):
    row = {"step": "1", "epoch": "1", "seconds": "2", "lr": "1", "class_loss": "0", "box_loss": "0", "AP": ""}
    write_run_page(tmp_path / "report.html", run(make_set(), metrics=[row]))
    assert "At the end: class 0, box 0." in sound(tmp_path / "report.html").said


def test_a_folder_that_is_not_there(tmp_path, make_set, run):
    with pytest.raises(WorkError, match=r"^cannot write .*none/report.html: no such file or directory$"):
        write_run_page(tmp_path / "none" / "report.html", run(make_set()))
