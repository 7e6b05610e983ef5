"""Functions of the user's own in place of the losses, the matching, the optimizer and the augmentation."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.recorder import Recorder
from helpers.tiny_run import tiny
from retinanet.common.errors import DivergedError, RequestError
from retinanet.config.settings import MatchingSettings, OhemSettings
from retinanet.losses import box_loss, sigmoid_focal_loss
from retinanet.ops.iou_assigner import match_reference
from retinanet.training.events import StepDone
from retinanet.training.own_parts import OwnParts, name_of
from retinanet.training.trainer import train


def losses(recorder: Recorder) -> Tensor:
    return torch.tensor([(event.class_loss, event.box_loss) for event in recorder.of(StepDone)])


def by_reference(anchors: Tensor, boxes: Tensor, labels: Tensor) -> Tensor:
    found, indices = match_reference(anchors, boxes, labels, MatchingSettings())
    return torch.where(found < 0, found, indices)


def unchanged(image: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return image, boxes, labels


def adamw(parameters: Any) -> torch.optim.Optimizer:
    """The built-in optimizer of the tiny settings."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 1e-4},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 1e-4},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999))


PARTS: dict[str, Any] = {
    "loss": partial(sigmoid_focal_loss, gamma=2.0),
    "box_loss": partial(box_loss, kind="smooth_l1"),
    "matcher": by_reference,
    "optimizer": adamw,
    "transform": unchanged,
}


@pytest.mark.parametrize("normalizer", ["batch", "image"])
def test_the_built_in_parts_given_as_functions_train_the_same(data: Path, tmp_path: Path, normalizer: Any) -> None:
    settings = tiny(steps=4, eval_every=0.0, accumulate=2)
    settings = replace(settings, loss=replace(settings.loss, normalizer=normalizer))
    found = []
    for name, parts in (("plain", {}), ("own", PARTS)):
        recorder = Recorder()
        train(data, settings, tmp_path / name, callbacks=[recorder], **parts)
        found.append((losses(recorder), [event.lr for event in recorder.of(StepDone)]))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=1e-6)
    assert found[1][1] == pytest.approx(found[0][1])
    facts = json.loads((tmp_path / "own" / "run.json").read_text())
    assert facts["own"] == {
        "loss": "sigmoid_focal_loss(gamma=2.0)",
        "box_loss": "box_loss(kind='smooth_l1')",
        "matcher": "by_reference",
        "optimizer": "adamw",
        "transform": "unchanged",
    }
    assert "Recorder" in facts["callbacks"]


def test_a_resumed_run_needs_the_same_functions_and_goes_on_exactly(data: Path, tmp_path: Path) -> None:
    recorders = [Recorder(), Recorder(), Recorder()]
    train(data, tiny(steps=6, eval_every=0.0), tmp_path / "whole", callbacks=[recorders[0]], **PARTS)
    run = tmp_path / "run"
    train(data, tiny(steps=3, eval_every=0.0, warmup=0), run, callbacks=[recorders[1]], **PARTS)
    longer = tiny(steps=6, eval_every=0.0, warmup=0)
    for changed in ({"loss": None}, {"loss": sigmoid_focal_loss}, {"transform": None}, {"optimizer": torch.optim.SGD}):
        with pytest.raises(RequestError, match=f"cannot resume.*{next(iter(changed))}="):
            train(data, longer, run, resume=True, **PARTS | changed)
    train(data, longer, run, resume=True, callbacks=[recorders[2]], **PARTS)
    assert [event.step for event in recorders[2].of(StepDone)] == [4, 5, 6]
    rates = [event.lr for event in recorders[2].of(StepDone)]
    assert max(rates) <= 1e-3 + 1e-12
    assert json.loads((run / "run.json").read_text())["own"]["matcher"] == "by_reference"


@pytest.mark.parametrize("length", [3])
def test_resumed_after_an_interruption(data: Path, tmp_path: Path, length: int) -> None:
    """The same losses as without the interruption, with momentum in the user's optimizer."""

    class Break(Recorder):
        def on_step(self, trainer: Any, event: StepDone) -> None:
            if event.step == length + 1:
                raise RuntimeError("power cut")

    parts = {"optimizer": partial(torch.optim.SGD, lr=1e-3, momentum=0.9), "loss": sigmoid_focal_loss}
    settings = tiny(steps=6, eval_every=1.2)  # evaluated, and saved, after step 3
    whole, resumed = Recorder(), Recorder()
    train(data, settings, tmp_path / "whole", callbacks=[whole], **parts)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="power cut"):
        train(data, settings, tmp_path / "run", callbacks=[Break()], **parts)  # type: ignore[arg-type]
    train(data, settings, tmp_path / "run", resume=True, callbacks=[resumed], **parts)  # type: ignore[arg-type]
    torch.testing.assert_close(losses(resumed), losses(whole)[-len(losses(resumed)) :], rtol=0, atol=0)
    assert len(losses(resumed)) == 6 - length


def test_groups_of_an_optimizer_keep_their_ratio(data: Path, tmp_path: Path) -> None:
    seen: list[list[float]] = []

    def two_rates(parameters: Any) -> torch.optim.Optimizer:
        half = len(parameters) // 2
        return torch.optim.SGD([{"params": parameters[:half], "lr": 1e-4}, {"params": parameters[half:], "lr": 1e-2}])

    class Watch(Recorder):
        def on_step(self, trainer: Any, event: StepDone) -> None:
            seen.append([group["lr"] for group in trainer.optimizer.param_groups])
            assert event.lr == pytest.approx(seen[-1][1])

    settings = tiny(steps=9, eval_every=0.0, warmup=0, schedule="steps", milestones=[0.5])
    train(data, settings, tmp_path / "run", callbacks=[Watch()], optimizer=two_rates)
    assert [low / high for low, high in seen] == pytest.approx([0.01] * len(seen))
    assert seen[0][1] == pytest.approx(1e-2)
    assert seen[-1][1] == pytest.approx(1e-3)


def infinite(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.sum() * 0).log()


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        ({"loss": "focal"}, RequestError, ["loss=", "'focal'"]),
        ({"optimizer": 0.1}, RequestError, ["optimizer=", "torch.optim.AdamW"]),
        ({"optimizer": lambda p: None}, RequestError, ["optimizer=", "None"]),
        ({"optimizer": lambda p: torch.optim.SGD([torch.zeros(1)], 0.1)}, RequestError, ["optimizer=", "others"]),
        ({"optimizer": lambda p: torch.optim.SGD(p, 0.0)}, RequestError, ["optimizer=", "above 0"]),
        ({"loss": lambda logits, labels: logits.mean(1)}, RequestError, ["loss=", "shape ()"]),
        ({"matcher": lambda anchors, boxes, labels: labels}, RequestError, ["matcher=", "int64"]),
        ({"transform": lambda image, boxes, labels: None}, RequestError, ["transform", "three tensors", "None"]),
        ({"transform": lambda image, boxes, labels: (image, boxes[:1], labels)}, RequestError, ["transform", "(n,)"]),
        ({"transform": lambda image, boxes, labels: (image, boxes / 0, labels)}, RequestError, ["not finite"]),
        ({"loss": infinite}, DivergedError, ["step 1", "loss=infinite", "logarithm"]),
    ],
)
def test_what_does_not_work_is_one_line(
    data: Path, tmp_path: Path, parts: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    with pytest.raises(error) as caught:
        train(data, tiny(steps=2, eval_every=0.0), tmp_path / "run", **parts)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


def test_mining_ranks_by_the_built_in_loss(data: Path) -> None:
    settings = tiny()
    mining = replace(settings, loss=replace(settings.loss, ohem=OhemSettings(batch=8)))
    with pytest.raises(RequestError, match=r"loss=.*loss\.ohem\.batch"):
        OwnParts(loss=sigmoid_focal_loss).criterion(mining, ("red", "green"))
    OwnParts(box_loss=PARTS["box_loss"]).criterion(mining, ("red", "green"))


def test_names() -> None:
    assert name_of(torch.optim.RAdam) == "RAdam"
    assert name_of(partial(partial(box_loss, kind="l1"), beta=2.0)) == "box_loss(kind='l1', beta=2.0)"
    assert name_of(torch.nn.Linear(1, 1)) == "Linear"
    assert name_of(lambda x: x) == "<lambda>"
