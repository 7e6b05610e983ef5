"""DeepForest's layouts, of the hub and of its trainer, give the boxes of the model that it makes of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from retinanet.checkpoints.foreign import deepforest, torchvision
from retinanet.common.errors import RequestError
from retinanet.weight_files.reader import read

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoints"))
from test_torchvision import SIZES, assert_same, converted, made

HUB = {
    "architecture": "retinanet",
    "label_dict": {"Bird": 0},
    "nms_thresh": 0.05,
    "num_classes": 1,
    "score_thresh": 0.1,
}


def saved(folder: Path, model: Any, config: dict[str, Any] | None) -> Path:
    save_file(model.state_dict(), folder / "model.safetensors", {"format": "pt"})
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder / "model.safetensors"


def test_from_the_hub(tmp_path: Path) -> None:
    model = made(
        1, depth=18, eps=1e-5, nms_thresh=0.05, score_thresh=0.1, detections_per_img=300, topk_candidates=1000, **SIZES
    )
    detector, checkpoint = converted(saved(tmp_path, model, HUB))
    assert_same(model, detector, least=5)
    assert checkpoint.class_names == ("Bird",)
    assert checkpoint.extra["origin"].startswith("DeepForest")
    post = checkpoint.settings.postprocessing
    assert (post.threshold, post.nms_iou, post.max_detections, post.candidates) == (0.1, 0.05, 300, 1000)
    assert any("detections_per_img 300" in sentence for sentence in checkpoint.extra["assumed"])


def test_its_own_thresholds_sizes_and_labels(tmp_path: Path) -> None:
    own = {"nms_thresh": 0.3, "score_thresh": 0.2, "detections_per_img": 40, "topk_candidates": 100, **SIZES}
    model = made(2, depth=18, eps=1e-5, **own)
    labels = {"Dead": 1, "Alive": 0}
    detector, checkpoint = converted(
        saved(tmp_path, model, {**own, "num_classes": 2, "label_dict": labels}), small=False
    )
    assert checkpoint.class_names == ("Alive", "Dead")
    assert_same(model, detector, least=5)
    assert not any("DeepForest's defaults" in sentence for sentence in checkpoint.extra["assumed"])


@pytest.mark.parametrize(("name", "eps"), [("weecology/deepforest-tree", 1e-5), (None, 0.0)])
def test_a_checkpoint_of_its_trainer(tmp_path: Path, name: str | None, eps: float) -> None:
    model = made(1, depth=18, eps=eps, nms_thresh=0.05, score_thresh=0.15, **SIZES)
    config = {"score_thresh": 0.15, "nms_thresh": 0.05, "model": {"name": name}, "label_dict": None, "num_classes": 1}
    value = {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"model.{key}": tensor for key, tensor in model.state_dict().items()},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}}],
        "hyper_parameters": {"config": config},
        "label_dict": {"Tree": 0},
        "numeric_to_label_dict": {0: "Tree"},
    }
    torch.save(value, tmp_path / "a.ckpt")
    detector, checkpoint = converted(tmp_path / "a.ckpt")
    assert checkpoint.class_names == ("Tree",)
    assert_same(model, detector, least=5)


def test_an_older_checkpoint(tmp_path: Path) -> None:
    """Of DeepForest 1: the score's threshold among the architecture's settings, and always torchvision's COCO model."""
    model = made(1, depth=18, eps=0.0)
    config = {"nms_thresh": 0.05, "retinanet": {"score_thresh": 0.4, "nms_thresh": 0.07}}
    hyper = {"label_dict": {"Tree": 0}, "num_classes": 1, "config": config}
    value = {"state_dict": {f"model.{key}": t for key, t in model.state_dict().items()}, "hyper_parameters": hyper}
    torch.save(value, tmp_path / "a.pl")
    settings = torchvision.convert(read(tmp_path / "a.pl")).settings
    assert settings.backbone.norm_eps == 0
    assert (settings.postprocessing.threshold, settings.postprocessing.nms_iou) == (0.4, 0.07)


def test_what_is_not_deepforest_s(tmp_path: Path) -> None:
    """Without labels, or with those of another model, it is a file of torchvision's."""
    model = made(1, depth=18, eps=1e-5)
    checkpoint = torchvision.convert(read(saved(tmp_path, model, {"label_dict": {"a": 0, "b": 1}})))
    assert checkpoint.class_names == ("class 0",)
    assert checkpoint.extra["origin"].startswith("torchvision")
    assert checkpoint.settings.postprocessing.threshold == 0.05
    for beside in ({}, {"label_dict": None}, {"label_dict": {"a": 1}}, {"label_dict": {"a": "0"}}, {"label_dict": [0]}):
        assert deepforest.recognise({"config": beside}, 1) is None
    for value in ("high", True, 2.0):
        with pytest.raises(RequestError, match=r"score_thresh|threshold"):
            deepforest.recognise({"config": {**HUB, "score_thresh": value}}, 1).applied(checkpoint.settings)  # type: ignore[union-attr]
