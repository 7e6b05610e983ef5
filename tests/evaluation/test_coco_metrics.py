"""COCO's twelve numbers: pycocotools, fed from the annotation JSON alone, is the judge of our judge."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
import torch

from helpers.synthetic_data import Scenes
from retinanet.data import open_data
from retinanet.evaluation import coco_metrics
from retinanet.inference.detections import Detections

PUBLISHED = (0.505, 0.697, 0.573, 0.586, 0.519, 0.501, 0.387, 0.594, 0.595, 0.640, 0.566, 0.564)


def pycoco(truth, results, images=None):
    """pycocotools' evaluation; annotations are counted from 1, since an id of 0 means "unmatched" to it."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truths, found = COCO(), COCO()
    truths.dataset = truth | {"annotations": [box | {"id": n} for n, box in enumerate(truth["annotations"], 1)]}
    found.dataset = truth | {"annotations": []}
    with contextlib.redirect_stdout(io.StringIO()):
        truths.createIndex()
        found.createIndex()
        if results:  # it cannot load an empty list
            found = truths.loadRes(copy.deepcopy(results))
        judge = COCOeval(truths, found, "bbox")
        if images is not None:
            judge.params.imgIds = images
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return judge


def assert_same(result, judge, truth):
    np.testing.assert_allclose(list(result.stats.values()), judge.stats, rtol=0, atol=1e-6)
    assert " ".join(result.stats) == "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl"
    assert result.images == len(judge.params.imgIds)
    names = {category["id"]: category["name"] for category in truth["categories"]}
    assert [one.name for one in result.per_class] == [names[ident] for ident in judge.params.catIds]
    for k, (ident, one) in enumerate(zip(judge.params.catIds, result.per_class)):
        boxes = [box for box in truth["annotations"] if box["category_id"] == ident and not box["iscrowd"]]
        assert one.boxes == sum(box["image_id"] in judge.params.imgIds for box in boxes)
        precision = judge.eval["precision"][:, :, k, 0, -1]
        if one.boxes:
            assert (one.ap, one.ap50) == pytest.approx((precision.mean(), precision[0].mean()), abs=1e-6)
        else:
            assert one.ap is one.ap50 is None


def perturbed(truth, seed):
    """The truth as a middling detector would find it: jittered, some missed, some of a wrong class, some invented."""
    random = np.random.default_rng(seed)
    categories = [category["id"] for category in truth["categories"]]
    results = []
    for box in truth["annotations"]:
        for _ in range(random.choice(3, p=(0.2, 0.6, 0.2))):
            x, y, w, h = np.array(box["bbox"]) + random.normal(0, 0.08, 4) * np.tile(box["bbox"][2:], 2)
            label = box["category_id"] if random.random() < 0.9 else int(random.choice(categories))
            results.append((box["image_id"], label, [x, y, x + abs(w), y + abs(h)], random.random() ** 0.5))
    for image in truth["images"]:
        for _ in range(random.integers(4)):
            x, y, w, h = random.uniform(1, 200, 4)
            results.append((image["id"], int(random.choice(categories)), [x, y, x + w, y + h], random.random()))
    results.sort(key=lambda result: -result[3])
    return results


def both(results, image_ids, category_ids, names):
    """The same detections for COCO's code and for ours: {place: Detections}, rounded to float32 alike."""
    records, found = [], {}
    for image, category, box, score in results:
        x1, y1, x2, y2 = (float(v) for v in np.float32(box))
        bbox, score = [x1, y1, x2 - x1, y2 - y1], float(np.float32(score))
        records.append({"image_id": image, "category_id": category, "bbox": bbox, "score": score})
        found.setdefault(image_ids.index(image), []).append(((x1, y1, x2, y2), score, category_ids.index(category)))
    return records, {
        place: Detections(*(torch.tensor(column) for column in zip(*rows)), tuple(names))
        for place, rows in found.items()
    }


def corners(bbox):
    x, y, w, h = bbox
    return x, y, x + w, y + h


def rows_of(results):
    """A COCO result file as (image, category, corners, score), by descending score."""
    rows = [(r["image_id"], r["category_id"], corners(r["bbox"]), r["score"]) for r in results]
    return sorted(rows, key=lambda row: -row[3])


# ---------------------------------------------------------------------------------------------- published images


@pytest.mark.parametrize(("split", "seed"), [("val2017", 0), ("val2017", 1), ("train2017", 2)])
def test_tiny_coco(real, split, seed):
    root = real("tiny_coco")
    truth = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    assert sum(box["iscrowd"] for box in truth["annotations"]) == 5
    data = open_data(root, split)
    image_ids = [data.image_id(i) for i in range(len(data))]
    records, found = both(perturbed(truth, seed), image_ids, data.category_ids, data.class_names)
    judge = pycoco(truth, records)
    assert 0.1 < judge.stats[0] < 0.9
    assert -1 not in judge.stats
    result = coco_metrics.evaluate(data, found)
    assert_same(result, judge, truth)
    assert any(one.boxes == 0 for one in result.per_class)  # 80 classes, not all of them in 50 images
    assert any(one.ap == 0 for one in result.per_class)

    some = [3, 40, 7, 7, 21, 22, 30]
    assert_same(
        coco_metrics.evaluate(data, found, indices=iter(some)),
        pycoco(truth, records, [image_ids[i] for i in {*some}]),
        truth,
    )


def test_tiny_coco_with_nothing_found(real):
    root = real("tiny_coco")
    truth = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    result = coco_metrics.evaluate(open_data(root, "val2017"), {})
    assert set(result.stats.values()) == {0.0}
    assert {(one.ap, one.ap50) for one in result.per_class if one.boxes} == {(0.0, 0.0)}
    assert_same(result, pycoco(truth, []), truth)


def test_the_pair_that_coco_publishes(real):
    paths = [real("coco_eval") / f"instances_val2014_{end}.json" for end in ("100", "fakebbox100_results")]
    truth, results = (json.loads(path.read_text()) for path in paths)
    truth["images"].sort(key=lambda image: image["id"])  # pycocotools' order, which decides among equal scores
    result, records = evaluate(truth, results)
    assert list(result.stats.values()) == pytest.approx(PUBLISHED, abs=6e-4)
    for entry in truth["annotations"]:  # data sets hold float32 corners, so pycocotools gets the same
        x1, y1, x2, y2 = (float(v) for v in np.float32(corners(entry["bbox"])))
        entry["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    assert_same(result, pycoco(truth, records), truth)


def test_a_real_detector(real):
    """Its file counts images from 51, in the order of the annotation file, and classes from 1 to 80."""
    published = json.loads((real("coco_eval") / "tiny_coco_val_stats.json").read_text())
    results = json.loads((real("coco_eval") / "tiny_coco_val_results.json").read_text())
    data = open_data(real("tiny_coco"), "val2017")
    _, found = both(rows_of(results), range(51, 101), range(1, 81), data.class_names)
    assert list(coco_metrics.evaluate(data, found).stats.values()) == pytest.approx(published, abs=1e-6)


# ---------------------------------------------------------------------------------------------- invented images


class Truth(Scenes):
    """The contents of a COCO file; the areas are those of the file, which may be smaller than the boxes."""

    def __init__(self, truth):
        ids = [category["id"] for category in truth["categories"]]
        rows = [[b for b in truth["annotations"] if b["image_id"] == image["id"]] for image in truth["images"]]
        scenes = [[(ids.index(b["category_id"]), *corners(b["bbox"]), b["iscrowd"]) for b in image] for image in rows]
        super().__init__(scenes, tuple(category["name"] for category in truth["categories"]))
        self.areas = lambda i: np.array([b["area"] for b in rows[i]], np.float64)


def invented(seed, images=6, boxes=6, crowds=0.2, categories=(0, 1, 5)):
    """Boxes of all sizes on whole pixels, so that IoUs meet the thresholds exactly; the last category has none."""
    random = np.random.default_rng(seed)
    annotations = []
    for image in range(images):
        for _ in range(random.integers(boxes + 1)):
            side = [16, 64, 200][random.integers(3)]
            bbox = [float(v) for v in (*random.integers(0, 60, 2), *random.integers(side // 2, side + 1, 2))]
            area = bbox[2] * bbox[3] * random.choice([1, 0.5])  # a mask may cover less than its box
            category, crowd = int(random.choice(categories[:-1])), int(random.random() < crowds)
            entry = {"id": len(annotations), "image_id": image, "category_id": category}
            annotations.append(entry | {"bbox": bbox, "area": area, "iscrowd": crowd})
    return {
        "images": [{"id": image} for image in range(images)],
        "annotations": annotations,
        "categories": [{"id": ident, "name": f"class {ident}"} for ident in categories],
    }


def guesses(truth, seed, scores=1000, copies=3):
    """Copies of the truth cut down to 10, 9, ... 4 tenths; ``scores`` different scores at most."""
    random = np.random.default_rng(seed)
    results = []
    for box in truth["annotations"]:
        for _ in range(random.integers(copies + 1)):
            x, y, w, h = box["bbox"]
            w *= random.integers(4, 11) / 10
            category = box["category_id"] if random.random() < 0.8 else truth["categories"][-1]["id"]
            results.append((box["image_id"], category, [x, y, x + w, y + h], random.integers(1, scores + 1) / scores))
    return sorted(results, key=lambda result: -result[3])


CASES = {
    "usual": ({}, {}),
    "crowds everywhere": ({"crowds": 0.7}, {}),
    "only crowds": ({"crowds": 1.0}, {}),
    "no crowds": ({"crowds": 0.0}, {}),
    "two scores": ({}, {"scores": 2}),
    "equal scores": ({}, {"scores": 1}),
    "more than a hundred in an image": ({"images": 2, "boxes": 40}, {"copies": 12}),
    "one image": ({"images": 1}, {}),
    "nothing found": ({}, {"copies": 0}),
}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("case", CASES)
def test_invented_images(case, seed):
    truth = invented(seed, **CASES[case][0])
    image_ids, category_ids = [image["id"] for image in truth["images"]], [0, 1, 5]
    data = Truth(truth)
    records, found = both(guesses(truth, seed, **CASES[case][1]), image_ids, category_ids, data.class_names)
    assert_same(coco_metrics.evaluate(data, found), pycoco(truth, records), truth)


def box(image, bbox, category=0, **more):
    return {"image_id": image, "category_id": category, "bbox": bbox, **more}


TRUTH = {
    "images": [{"id": 0}, {"id": 3}],
    "categories": [{"id": 0, "name": "cat"}, {"id": 9, "name": "dog"}, {"id": 4, "name": "owl"}],
    "annotations": [
        box(0, [0, 0, 40, 40], id=0, area=1600, iscrowd=0),
        box(0, [100, 0, 80, 80], id=1, area=6400, iscrowd=1),
        box(3, [0, 0, 50, 10], 9, id=2, area=500, iscrowd=0),
    ],
}


def evaluate(truth, results):
    """Our evaluation of the contents of COCO's two files, and the results rounded to float32 as it takes them."""
    data = Truth(truth)
    image_ids, category_ids = ([entry["id"] for entry in truth[key]] for key in ("images", "categories"))
    records, found = both(rows_of(results), image_ids, category_ids, data.class_names)
    return coco_metrics.evaluate(data, found), records


def test_numbers_that_a_person_can_count():
    """A box with a detection, one without, a class without truth; a detection in a crowd is not wrong."""
    result, _ = evaluate(TRUTH, [box(0, [110, 10, 40, 40], score=0.9), box(0, [0, 0, 40, 40], score=0.5)])
    assert result.images == 2
    assert result.per_class == [("cat", 1.0, 1.0, 1), ("dog", 0.0, 0.0, 1), ("owl", None, None, 0)]
    expected = {"AP": 0.5, "AP50": 0.5, "APs": 0.0, "APm": 1.0, "APl": -1.0, "AR1": 0.0, "AR100": 0.5, "ARl": -1.0}
    assert expected.items() <= {name: round(value, 9) for name, value in result.stats.items()}.items()
    # An IoU of 0.7 reaches the first five of ten thresholds.
    result, _ = evaluate(TRUTH, [box(0, [0, 0, 40, 28], score=0.5)])
    assert result.per_class[0] == ("cat", pytest.approx(0.5), 1.0, 1)


@pytest.mark.parametrize("order", [1, -1])
def test_classes_keep_their_order(order):
    truth = TRUTH | {"categories": TRUTH["categories"][::order]}
    result, _ = evaluate(truth, [box(0, [0, 0, 40, 40], score=0.5)])
    assert [one.name for one in result.per_class] == ["cat", "dog", "owl"][::order]
    assert {one.name: one.ap for one in result.per_class} == {"cat": 1.0, "dog": 0.0, "owl": None}


def test_no_images_and_no_truth():
    none = [("cat", None, None, 0), ("dog", None, None, 0), ("owl", None, None, 0)]
    for truth in (TRUTH | {"images": []}, TRUTH | {"annotations": []}):
        result, _ = evaluate(truth, [])
        assert set(result.stats.values()) == {-1.0}
        assert result.per_class == none
        assert result.images == len(truth["images"])
    result = coco_metrics.evaluate(Truth(TRUTH), {}, indices=[])
    assert (set(result.stats.values()), result.per_class, result.images) == ({-1.0}, none, 0)
