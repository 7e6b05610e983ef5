"""Findings from the faults that the readers repaired or left out."""

from __future__ import annotations

from collections.abc import Iterator

from retinanet.analysis.doctor.finding import Finding, Severity, Split
from retinanet.data.faults import RENAMED
from retinanet.data.formats.outlines import NO_BOX, ROTATED
from retinanet.data.formats.safe_paths import OUTSIDE
from retinanet.data.formats.yolo_labels import PREDICTION

KINDS: dict[str, tuple[str, Severity, str]] = {
    "missing image": ("files.missing-image", "error", "restore the files, or take their annotations out"),
    "unreadable image": ("files.unreadable-image", "error", "replace or remove these files"),
    OUTSIDE: (
        "files.outside",
        "error",
        "put these files into the data set's folder, or links to them, and name them relative to it",
    ),
    "unreadable annotation file": ("files.unreadable-annotations", "error", "write these files again"),
    "size that disagrees with the file": (
        "files.other-size",
        "error",
        "export the annotations for the images as they are: their boxes are in pixels of another size",
    ),
    "size before EXIF rotation, read unrotated": (
        "files.exif-size",
        "warning",
        "save the images upright, without the EXIF orientation: other programs rotate them, but not the boxes",
    ),
    "label file without an image": (
        "files.label-without-image",
        "warning",
        "restore the images, or remove the label files",
    ),
    "image listed twice": ("files.listed-twice", "warning", "list each image once"),
    "malformed image entry": ("labels.malformed-image", "error", "give every image an id and a file_name"),
    "repeated image id": ("labels.repeated-image-id", "error", "give every image an id of its own"),
    "malformed annotation": ("labels.malformed", "error", "complete or remove these annotations"),
    "malformed line": ("labels.malformed", "error", "write each line as: class cx cy w h"),
    "line that fits two formats": (
        "labels.two-formats",
        "error",
        "write each line as: class cx cy w h; or declare keypoints with kpt_shape in the YAML",
    ),
    PREDICTION: ("labels.prediction", "warning", "nothing, where these are predictions to train on"),
    "box with keypoints, taken without them": (
        "labels.keypoints",
        "warning",
        "check a few boxes, and declare the keypoints: kpt_shape: [number, columns] in the YAML",
    ),
    ROTATED: ("boxes.rotated", "warning", "nothing, where upright boxes are enough: they are larger than the objects"),
    NO_BOX: ("labels.no-box", "warning", "nothing, where they are no objects; else draw boxes or polygons"),
    "box on a rotated view of the image": ("labels.rotated-view", "error", "draw these boxes on the upright image"),
    "box with several labels, the first is read": ("labels.several", "warning", "give each box one label"),
    "no bbox, taken from the segmentation": ("labels.no-bbox", "warning", "nothing, where the outlines are right"),
    "id written as text or fraction, matched": ("labels.id-types", "warning", "write ids as whole numbers"),
    "label file that is not read": (
        "files.unused-labels",
        "warning",
        "keep the labels of an image in one folder: in labels, or beside it",
    ),
    RENAMED: ("files.other-name", "warning", "nothing here; other programs may not find these files"),
    "annotation of an unknown image": ("labels.unknown-image", "error", "add the images, or remove these annotations"),
    "unknown class": ("labels.unknown-class", "error", "add the class to the data set's list, or correct its number"),
    "annotation written twice": ("boxes.written-twice", "warning", "remove the repetitions"),
    "repeated annotation id, given a new one": ("labels.repeated-id", "warning", "give every annotation its own id"),
    "class that the model does not know": (
        "classes.differ",
        "error",
        "give all splits the list of classes of the training set",
    ),
    "box with a coordinate that is not a finite number": ("boxes.not-finite", "error", "draw these boxes again"),
    "box of no area": ("boxes.no-area", "error", "draw these boxes again, or remove them: they are left out"),
    "box outside the image": (
        "boxes.outside",
        "error",
        "correct or remove these boxes; if there are many, the coordinates have another size or order",
    ),
    "box partly outside the image, clipped": (
        "boxes.partly-outside",
        "warning",
        "nothing, where objects reach over the edge: boxes are clipped there; else correct them",
    ),
}

"""For each kind of fault of :class:`retinanet.data.faults.Report`: the code, the severity and the remedy."""


def check(split: Split, strict: bool = False) -> Iterator[Finding]:
    """One finding for each kind of fault, which is an error if ``strict``, and one for each note of the readers."""
    for fault in split.data.report.faults.values():
        name = fault.kind.replace(" ", "-")
        severe: Severity = "error" if fault.action == "left out" else "warning"
        code, severity, remedy = KINDS.get(fault.kind, (f"labels.{name}", severe, "correct the annotations"))
        text = f"{fault.kind}: {fault.count} {fault.action}"
        yield Finding(
            code, "error" if strict else severity, split.name, fault.count, text, remedy, tuple(fault.examples)
        )
    for note in split.data.report.notes:
        if "background" not in note:  # split_checks reports images without boxes for all layouts
            yield Finding("labels.reading", "note", split.name, 0, note, "nothing, where that is right")
