"""Data sets of black images with boxes, for what looks at annotations alone."""

import json

from PIL import Image

from retinanet.data import open_data


def coco(root, scenes, names=("a", "b")):
    """A data set of black images: ((height, width), [(x1, y1, x2, y2, label)]) each."""
    (root / "train").mkdir(parents=True)
    (root / "annotations").mkdir()
    images, annotations = [], []
    for i, ((height, width), boxes) in enumerate(scenes):
        Image.new("RGB", (width, height)).save(root / "train" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": height, "width": width})
        for x1, y1, x2, y2, label in boxes:
            box = [float(x1), float(y1), float(x2 - x1), float(y2 - y1)]
            annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": label + 1, "bbox": box})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(names)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return open_data(root, "train")
