"""What is timed side by side is the same work."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from retinanet.bench import torchvision_bench
from retinanet.cli import main


def test_both_losses_have_the_same_gradient() -> None:
    work = torchvision_bench.focal_loss(600, 5)
    torch.testing.assert_close(work.ours().clone(), work.theirs(), rtol=1e-4, atol=1e-9)


def test_both_sides_match_alike() -> None:
    work = torchvision_bench.box_matching(128, 96, boxes=5, batch=2)
    ours, theirs = work.ours(), torch.stack(work.theirs())
    assert torch.equal(ours.labels >= 0, theirs >= 0)
    assert torch.equal(ours.labels == -1, theirs == -1)
    assert ours.num_positives > 0


def test_both_sides_find_the_same_boxes_in_the_same_outputs() -> None:
    work = torchvision_bench.post_processing(256, 320, classes=20, batch=2)
    for (boxes, scores, _), found in zip(work.ours(), work.theirs(), strict=True):
        assert len(scores) == len(found["scores"]) >= 5
        torch.testing.assert_close(scores, found["scores"])
        assert float((boxes[:, None] - found["boxes"]).abs().amax(dim=2).amin(dim=1).max()) < 1e-2


def test_both_sides_find_the_same_boxes_in_a_image() -> None:
    work = torchvision_bench.inference(size=128, precision="fp32")
    found, expected = work.ours(), work.theirs()[0]
    assert len(found) == len(expected["scores"]) >= 5
    torch.testing.assert_close(found.scores, expected["scores"], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_both_sides_train_on_the_same_loss() -> None:
    work = torchvision_bench.training_step(128, batch=1, boxes=3, classes=5)
    torch.testing.assert_close(work.ours(), work.theirs(), rtol=1e-3, atol=1e-4)


def test_a_comparison() -> None:
    row = torchvision_bench.Comparison("work", (1.0, 2.0, 4.0), (2.0, 6.0, 4.0)).row()
    assert (row["ours_seconds"], row["torchvision_seconds"]) == (2.0, 4.0)
    assert (row["ratio"], row["ratio_low"], row["ratio_high"], row["rounds"]) == (2.0, 1.0, 3.0, 3)


@pytest.mark.slow
def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torchvision_bench, "focal_loss", partial(torchvision_bench.focal_loss, 600, 5))
    monkeypatch.setattr(torchvision_bench, "box_matching", partial(torchvision_bench.box_matching, 64, 64))
    monkeypatch.setattr(torchvision_bench, "post_processing", partial(torchvision_bench.post_processing, 64, 64))
    monkeypatch.setattr(torchvision_bench, "inference", partial(torchvision_bench.inference, size=64))
    assert main(["bench", "--no-training", "--rounds", "2", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["rounds"] for row in result["comparisons"]] == [2] * 4
    assert all(row["ratio_low"] <= row["ratio"] <= row["ratio_high"] for row in result["comparisons"])


def test_a_wrong_number_of_rounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--rounds", "0"]) == 2
    assert "--rounds must be at least 1, not 0" in capsys.readouterr().err
