"""COCO's twelve box numbers by faster-coco-eval, equal to pycocotools'."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from retinanet.common.errors import RequestError
from retinanet.common.text import TextError, read_text

if TYPE_CHECKING:
    from retinanet.data.dataset import DetectionData
    from retinanet.inference.detections import Detections

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


class ClassResult(NamedTuple):
    """AP and AP50 of one class in 0..1, None where the class has no truth; the boxes of the truth, crowds left out."""

    name: str
    ap: float | None
    ap50: float | None
    boxes: int

    def row(self) -> dict[str, Any]:
        """As result files and tables have it."""
        return {"name": self.name, "AP": self.ap, "AP50": self.ap50, "boxes": self.boxes}


@dataclass(frozen=True)
class CocoResult:
    """What COCO's evaluation says.

    Attributes:
        stats: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl in 0..1; -1 where there is no truth (of
            that size), as in COCO's own code.
        per_class: one entry a class, in the order of the labels.
        images: how many were judged.
    """

    stats: dict[str, float]
    per_class: list[ClassResult]
    images: int


def evaluate(data: DetectionData, found: Mapping[int, Detections], indices: Iterable[int] | None = None) -> CocoResult:
    """Judge detections against a data set.

    Regions of ``data.crowd`` (COCO's crowds, Pascal VOC's difficult boxes) are neither to be found nor wrong to find.

    Args:
        found: place of an image in ``data`` -> its detections, labels as in ``data``. Images that are missing here
            count as images in which nothing was found.
        indices: judge these images alone.
    """
    judged = sorted(set(range(len(data)) if indices is None else indices))
    truth: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for i in judged:
        rows = zip(
            data.boxes(i).astype(np.float64).tolist(),
            data.labels(i).tolist(),
            data.crowd(i).tolist(),
            data.areas(i).tolist(),
        )
        for (x1, y1, x2, y2), label, crowd, area in rows:
            box = [x1, y1, x2 - x1, y2 - y1]
            truth.append({"image_id": i, "category_id": label, "bbox": box, "area": area, "iscrowd": int(crowd)})
        if i in found:
            results.extend(found[i].to_coco(i))
    return _judge(judged, dict(enumerate(data.class_names)), truth, results)


def evaluate_json(truth_path: str | Path, results_path: str | Path) -> CocoResult:
    """Judge a COCO result file against a COCO annotation file, both taken as they are.

    Raises:
        RequestError: a file that cannot be read or is none of the two, or results for images that the truth has not.
    """
    truth, results = _read(truth_path), _read(results_path)
    lists = ("images", "annotations", "categories")
    if not isinstance(truth, dict) or not all(isinstance(truth.get(key), list) for key in lists):
        raise RequestError(f"{truth_path} is not a COCO annotation file: it needs the lists {', '.join(lists)}")
    if not isinstance(results, list):
        raise RequestError(f"{results_path} is not a COCO result file: it must be a list of detections")
    for place, box in enumerate(truth["annotations"]):
        if not _is_box(box, "category_id"):
            raise RequestError(f"{truth_path} annotations[{place}] needs image_id, category_id and bbox [x, y, w, h]")
    for key, needed in (("images", {"id"}), ("categories", {"id", "name"})):
        for place, record in enumerate(truth[key]):
            if not isinstance(record, dict) or not needed <= record.keys():
                raise RequestError(f"{truth_path} {key}[{place}] needs {' and '.join(sorted(needed))}")
    images = {image["id"] for image in truth["images"]}
    for place, result in enumerate(results):
        if not _is_box(result, "category_id", "score"):
            raise RequestError(f"{results_path} [{place}] needs image_id, category_id, bbox [x, y, w, h] and score")
        if result["image_id"] not in images:
            image = result["image_id"]
            raise RequestError(f"{results_path} [{place}] is of image {image}, which {truth_path} does not have")
    names = {category["id"]: str(category["name"]) for category in truth["categories"]}
    # Judged by their boxes: a result file may bring areas of its own, those of masks, which COCO's code overwrites.
    found = [{key: result[key] for key in ("image_id", "category_id", "bbox", "score")} for result in results]
    return _judge(sorted(images), names, truth["annotations"], found)


def _is_box(record: Any, *keys: str) -> bool:
    """Whether a record has an image, a bbox of four numbers, and a number under each of ``keys``."""
    if not isinstance(record, dict) or not isinstance(record.get("image_id"), int | float | str):
        return False
    bbox = record.get("bbox")
    numbers = [record.get(key) for key in keys] + (bbox if isinstance(bbox, list) and len(bbox) == 4 else [None])
    return all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)


def _read(path: str | Path) -> Any:
    try:
        return json.loads(read_text(path))
    except TextError:
        raise
    except ValueError as error:
        raise RequestError(f"{path} is not valid JSON: {error}") from error


def _judge(
    images: Sequence[int],
    names: Mapping[int, str],
    truth: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
) -> CocoResult:
    """Ids in ``truth`` and ``results`` are those of ``images`` and ``names``."""
    from faster_coco_eval import COCO, COCOeval_faster

    if not images:
        return CocoResult(dict.fromkeys(NAMES, -1.0), [ClassResult(name, None, None, 0) for name in names.values()], 0)
    # Ids are counted anew from 1: an id of 0 means "unmatched" inside the evaluation.
    image_of = {ident: i for i, ident in enumerate(images, 1)}
    category_of = {ident: k for k, ident in enumerate(names, 1)}
    sides = {
        "images": [{"id": i} for i in image_of.values()],
        "categories": [{"id": category_of[ident], "name": name} for ident, name in names.items()],
    }

    def side(boxes: Sequence[Mapping[str, Any]]) -> Any:
        known = [b for b in boxes if b["image_id"] in image_of and b["category_id"] in category_of]
        annotations = [
            {
                "id": n,
                "image_id": image_of[b["image_id"]],
                "category_id": category_of[b["category_id"]],
                "bbox": b["bbox"],
                "area": b.get("area", b["bbox"][2] * b["bbox"][3]),
                "iscrowd": b.get("iscrowd", 0),
                **({"score": b["score"]} if "score" in b else {}),
            }
            for n, b in enumerate(known, 1)
        ]
        return COCO({**sides, "annotations": annotations})

    def silent(*_: object) -> None: ...

    truths = side(truth)
    judge = COCOeval_faster(truths, side(results), "bbox", print_function=silent)
    judge.run()
    counts = np.zeros(len(names) + 1, np.int64)
    for box in truths.dataset["annotations"]:
        counts[box["category_id"]] += not box["iscrowd"]
    # precision: (10 IoU thresholds, 101 recalls, classes, 4 sizes, 3 limits of detections); -1: a class without truth
    precision = judge.eval["precision"][:, :, :, 0, -1]
    per_class = [
        ClassResult(name, _mean(precision[:, :, k]), _mean(precision[0, :, k]), int(counts[k + 1]))
        for k, name in enumerate(names.values())
    ]
    stats = dict(zip(NAMES, map(float, judge.stats), strict=True))
    return CocoResult(stats, per_class, len(images))


def _mean(precision: np.ndarray) -> float | None:
    return float(precision.mean()) if (precision > -1).all() else None
