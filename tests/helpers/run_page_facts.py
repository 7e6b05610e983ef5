"""A small data set, and the facts of a run on it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from retinanet.analysis.coverage import cover
from retinanet.config.model_settings import ModelSettings, PreprocessingSettings
from retinanet.config.settings import MatchingSettings, Settings
from retinanet.data import open_data
from retinanet.evaluation import coco_metrics
from retinanet.evaluation.confusion import confusion_matrix, image_results
from retinanet.evaluation.loss_distribution import BINS, LogitCounts
from retinanet.evaluation.pr_curves import curves
from retinanet.evaluation.tide import error_costs
from retinanet.inference.detections import Detections
from retinanet.report.run_facts import RunFacts


def write_set(folder, names=("red", "green"), count=6, boxes=3, val_boxes=None) -> Path:
    """A COCO data set with the splits train and val: images with up to three boxes each, of the classes in turn."""
    root = folder / "a set"
    random = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    label = 0
    for split, most in (("train", boxes), ("val", boxes if val_boxes is None else val_boxes)):
        (root / split).mkdir()
        images, annotations = [], []
        for number in range(count):
            pixels = random.integers(0, 255, (60, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "height": 60, "width": 80})
            for _ in range(most):
                w, h = (int(value) for value in random.integers(12, 30, 2))
                box = [int(random.integers(0, 80 - w)), int(random.integers(0, 60 - h)), w, h]
                one = {"id": len(annotations) + 1, "image_id": number, "category_id": label % len(names) + 1}
                annotations.append(one | {"bbox": box, "area": w * h, "iscrowd": 0})
                label += 1
        categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def rows_of_metrics(stats, steps=12):
    """As read_metrics gives them: texts, empty where a row has no such number."""
    rows = []
    for step in range(1, steps + 1):
        row = {"step": str(step), "epoch": f"{step / 2}", "seconds": f"{step * 1.5}", "lr": "0.01"}
        rows.append(row | {"class_loss": f"{2 / step:.4g}", "box_loss": f"{1 / step:.4g}", "AP": "", "AP50": ""})
        if step % 4 == 0:
            row |= {"lr": "", "class_loss": "", "box_loss": ""}
            rows.append(row | {name: f"{value * step / steps:.6g}" for name, value in stats.items()})
    return rows


def run_facts(folder, root, *, nothing=False, **changes):
    """The facts of a run, with detections made from the truth: moved, of another class, or left out."""
    train, data = open_data(root, "train"), open_data(root, "val")
    random = np.random.default_rng(1)
    found = {}
    for index in range(len(data)):
        count = 0 if nothing else len(data.boxes(index))
        kept = random.random(count) < 0.8
        boxes = (data.boxes(index)[:count] + random.normal(0, 1.5, (count, 4)))[kept]
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        labels = data.labels(index)[:count][kept]
        labels = np.where(random.random(len(labels)) < 0.3, (labels + 1) % len(data.class_names), labels)
        scores = np.sort(random.random(len(labels)))[::-1].copy()
        tensors = (torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores, dtype=torch.float32))
        found[index] = Detections(*tensors, torch.tensor(labels), data.class_names)
    result, lines = coco_metrics.evaluate(data, found), curves(data, found)
    settings = Settings(model=ModelSettings(preprocessing=PreprocessingSettings(size=64, longer=96)))
    counts = np.zeros((2, BINS), np.int64)
    counts[0, 4100:4400], counts[1, 4300:4900] = 3, 1000
    facts = RunFacts(
        folder=folder / "runs" / "first",
        source=root,
        steps=12,
        seconds=3723.0,
        seconds_in={"data": 1.0, "forward": 4.0, "backward": 5.0, "optimiser": 0.5, "evaluation": 2.0},
        settings=settings,
        choices=[{"setting": "model.anchors.sizes", "value": (16.0, 32.0), "reason": "the boxes are small"}],
        metrics=rows_of_metrics(result.stats),
        stats=result.stats,
        per_class=[one.row() for one in result.per_class],
        data=data,
        detections=found,
        curves=lines,
        errors=error_costs(data, found, threshold=lines.threshold),
        confusion=confusion_matrix(data, found, lines.threshold),
        images=image_results(data, found, lines.threshold),
        loss_curves=LogitCounts(counts[0], counts[1]).curves(2.0),
        coverage=cover(train, settings.model, MatchingSettings()),
    )
    return dataclasses.replace(facts, **changes)
