"""What a run prints: the plan, the classes, the epochs, and its ending."""

from pathlib import Path

import pytest

from helpers.tiny_run import tiny
from retinanet.analysis.anchor_fit import Choice
from retinanet.terminal.console import Output, class_table
from retinanet.terminal.data_lines import class_line
from retinanet.terminal.plan_line import plan_line
from retinanet.terminal.progress import Progress, epoch_text
from retinanet.terminal.run_ending import next_lines
from retinanet.training import events


def started(settings, **changes):
    facts = {"step": 0, "steps": 6, "budget": None, "images": 10, "processes": 1, "device": "cpu", "precision": "fp32"}
    return events.Started(**(facts | changes), output=Path("runs/a"), settings=settings)


def step(number, epoch, fraction, steps):
    return events.StepDone(number, epoch, 1.0, 0.1, 1.0, 1.0, 1.0, steps, fraction, 9.0)


def test_the_plan_in_one_line():
    line = plan_line(started(tiny(steps=6)))
    for fact in (
        "resnet18",
        "64 x 96 px",
        "9 anchors",
        "P3 to P7",
        "batches of 4",
        "6 steps (2.4 epochs)",
        "cpu in fp32",
    ):
        assert fact in line
    line = plan_line(
        started(tiny(steps=6), steps=None, budget=125, step=3, processes=2), [Choice("model", "half a network", "")]
    )
    for fact in ("half a network", "2:05 from step 3", "2 processes"):
        assert fact in line
    assert "resnet18" not in line


def test_few_classes_are_all_named_and_many_are_not():
    assert class_line(["b", "a"], [3, 40]) == "labels, with boxes: 0 b (3), 1 a (40)"
    line = class_line([f"c{i}" for i in range(80)], range(80))
    assert "79 c79 (79), 78 c78 (78), 77 c77 (77), 76 c76 (76) and 76 more" in line
    assert "c75" not in line


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (step(1, 0.4, 1 / 6, 6), "epoch 1 of 3"),
        (step(5, 2.0, 5 / 6, 6), "epoch 2 of 3"),
        (step(6, 2.4, 1.0, 6), "epoch 3 of 3"),
        (step(1, 0.4, 0.001, None), "epoch 1"),  # a budget: too early to tell
        (step(10, 4.0, 0.5, None), "epoch 4 of about 8"),
        (step(20, 8.2, 1.0, None), "epoch 9 of about 9"),
    ],
)
def test_the_epoch_of_a_step(event, text):
    assert epoch_text(event) == text


def test_the_best_and_the_worst_of_many_classes():
    rows = [{"name": f"c{i}", "AP": None if i == 3 else i / 100, "AP50": 0.5, "boxes": i} for i in range(80)]
    names = list(class_table(rows, 15).columns[0].cells)
    assert names == [
        *(f"c{i}" for i in range(79, 72, -1)),
        "... 66 more ...",
        *(f"c{i}" for i in (7, 6, 5, 4, 2, 1, 0)),
    ]
    assert list(class_table(rows[:15], 15).columns[0].cells) == [f"c{i}" for i in range(15)]
    assert len(class_table(rows).columns[0]._cells) == 80


def test_what_to_do_next_can_be_pasted(tmp_path):
    run = tmp_path / "a run"
    run.mkdir()
    assert next_lines(run, Path("data"), "val", python=False)[1:] == [
        f"  retinanet predict '{run}' IMAGE...",
        f"  retinanet evaluate '{run}' data",
    ]
    (run / "report.html").touch()
    lines = next_lines(run, Path("data"), "test", python=True)
    assert f"open '{run}/report.html'" in lines[1]
    assert lines[-1] == f"  retinanet.evaluate({str(run)!r}, 'data', split='test')"
    assert next_lines(run, Path("data"), "test", python=False)[-1].endswith(" --split test")


def test_warnings_are_kept_for_the_end(capsys):
    progress = Progress(Output())
    progress.on_event(events.AnchorsCover(0.5, "many boxes are lost"))
    progress.on_event(events.AnchorsCover(0.999, "two boxes are lost", enough=True))
    progress.on_event(events.SettingsFitted([Choice("train.batch_size", 2, "small", "too few steps")]))
    progress.on_event(events.Problem("no report"))
    assert progress.warnings == ["many boxes are lost", "too few steps", "no report"]
    printed = capsys.readouterr().err
    assert "warning: many boxes are lost" in printed
    assert "note: two boxes are lost" in printed
    assert "small" not in printed
    explained = Progress(Output(), explain=True)
    explained.on_event(events.SettingsFitted([Choice("train.batch_size", 2, "small")]))
    assert "train.batch_size 2: small" in capsys.readouterr().err
