"""Real annotated images, to be written in the layouts of other tools, and the comparison with what is read."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinanet.data import open_data


@dataclass
class Annotated:
    """One image: its file, its height and width, and (class name, x1, y1, x2, y2) of each box."""

    path: Path
    size: tuple
    boxes: list

    @property
    def name(self):
        return self.path.name

    @property
    def stem(self):
        return self.path.stem

    def copy(self, folder, name=None):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(self.path, folder / (name or self.name)))


def annotated(root, split, count=5):
    """The first images of a data set. The last of them has no box, as images of only background."""
    data = open_data(root, split)
    images = []
    for i in range(count):
        boxes = [(data.class_names[label], *box) for label, box in zip(data.labels(i).tolist(), data.boxes(i).tolist())]
        images.append(Annotated(data.path(i), data.size(i), boxes if i + 1 < count else []))
    return images


def classes_of(images):
    return sorted({box[0] for image in images for box in image.boxes})


def require_same(data, images, rename=lambda name: name, atol=0.01):
    """Assert that a data set has exactly these images and boxes, by the stems of the files."""
    assert sorted(data.path(i).stem for i in range(len(data))) == sorted(rename(image.stem) for image in images)
    expected = {rename(image.stem): image for image in images}
    for i in range(len(data)):
        image = expected[data.path(i).stem]
        assert data.size(i) == image.size
        rows = [(data.class_names[k], *box) for k, box in zip(data.labels(i).tolist(), data.boxes(i).tolist())]
        assert [row[0] for row in rows] == [row[0] for row in image.boxes]
        wanted = np.array([row[1:] for row in image.boxes]).reshape(-1, 4)
        assert np.allclose(np.array([row[1:] for row in rows]).reshape(-1, 4), wanted, atol=atol)
    return data


def fault_counts(data):
    return {fault.kind: (fault.count, fault.action) for fault in data.report.faults.values()}


def put(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def voc_sheet(image, folder="images"):
    """An XML as labelImg 1.8.6 writes it."""
    objects = "".join(
        f"\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
        f"\t\t<difficult>0</difficult>\n\t\t<bndbox>\n"
        f"\t\t\t<xmin>{x1 + 1:.10g}</xmin>\n\t\t\t<ymin>{y1 + 1:.10g}</ymin>\n"
        f"\t\t\t<xmax>{x2:.10g}</xmax>\n\t\t\t<ymax>{y2:.10g}</ymax>\n\t\t</bndbox>\n\t</object>\n"
        for name, x1, y1, x2, y2 in image.boxes
    )
    height, width = image.size
    return (
        f"<annotation>\n\t<folder>{folder}</folder>\n\t<filename>{image.name}</filename>\n"
        f"\t<path>/home/me/{folder}/{image.name}</path>\n\t<source>\n\t\t<database>Unknown</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def yolo_label(image, classes):
    height, width = image.size
    return "".join(
        f"{classes.index(name)} {(x1 + x2) / 2 / width:.8f} {(y1 + y2) / 2 / height:.8f} "
        f"{(x2 - x1) / width:.8f} {(y2 - y1) / height:.8f}\n"
        for name, x1, y1, x2, y2 in image.boxes
    )


def coco_content(images, classes, prefix="", first_category=1):
    entries, annotations = [], []
    for ident, image in enumerate(images, 1):
        height, width = image.size
        entries.append({"id": ident, "width": width, "height": height, "file_name": f"{prefix}{image.name}"})
        for name, x1, y1, x2, y2 in image.boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": ident,
                    "category_id": classes.index(name) + first_category,
                    "segmentation": [],
                    "area": (x2 - x1) * (y2 - y1),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(classes, first_category)]
    return {"categories": categories, "images": entries, "annotations": annotations}
