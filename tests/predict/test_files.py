"""Files in, files out: names, formats, errors, interruptions."""

import csv
import json
import os
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers.agreeing import assert_agree, from_coco
from helpers.tiny_run import tiny
from retinanet.common.errors import RequestError, WorkError
from retinanet.config.model_settings import PostprocessingSettings
from retinanet.inference.detector import Detector
from retinanet.inference.tiling import predict_sliced
from retinanet.model import RetinaNet
from retinanet.predict import files, predictor
from retinanet.predict.files import predict_files
from retinanet.predict.inputs import find_sources
from retinanet.predict.outputs import OutputOptions
from retinanet.predict.predictor import Callbacks, Tiling
from retinanet.predict.video import VideoOptions

NAMES = ("red", "green")
ALL = OutputOptions(formats=("json", "csv", "yolo"))
UNDRAWN = OutputOptions(draw=False)


@pytest.fixture(scope="module")
def detector():
    """Random weights with scores about a half: every image has detections."""
    torch.manual_seed(0)
    model = RetinaNet(tiny().model, len(NAMES), load_weights=False)
    nn.init.normal_(model.class_subnet.output.weight, std=0.3)
    nn.init.zeros_(model.class_subnet.output.bias)
    return Detector(model, NAMES)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Seven images of several sizes and kinds in folders, some with the same name."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name, size in {
        "a.jpg": (60, 90), "a.png": (64, 64), "b.bmp": (100, 50), "inner/a.jpg": (64, 64), "inner/deep/c.jpeg": (1, 1),
        "inner/ü e.webp": (33, 47), "z.tif": (20, 300),
    }.items():  # fmt: skip
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    (folder / "notes.txt").write_text("no image")
    return folder


def names(sources):
    return [name for _, name in find_sources(sources).images]


# ---------------------------------------------------------------------------------------------------------- sources


def test_a_folder_with_its_subfolders(images):
    assert names([images]) == [
        "a.jpg", "a-2.png", "b.jpg", "inner/a.jpg", "inner/deep/c.jpeg", "inner/ü e.jpg", "z.jpg",
    ]  # fmt: skip


def test_one_source_without_a_list(images):
    assert names(str(images)) == names(images) == names([images])
    assert names(str(images / "a.jpg")) == ["a.jpg"]


def test_files_of_one_name_from_two_places(images):
    assert names([images / "a.jpg", images / "inner" / "a.jpg"]) == ["a.jpg", "a-2.jpg"]


def test_a_pattern_and_a_file_named_twice(images):
    assert names([f"{images}/*.jpg", images / "a.jpg", f"{images}/../{images.name}/a.jpg"]) == ["a.jpg"]
    assert names([f"{images}/**/*.jp*g"]) == ["a.jpg", "a-2.jpg", "c.jpeg"]
    assert names([f"{images}/in*"]) == ["a.jpg", "deep/c.jpeg", "ü e.jpg"]


def test_a_file_with_the_signs_of_a_pattern_in_its_name(images, tmp_path):
    shutil.copy(images / "a.jpg", tmp_path / "a[1].jpg")
    assert names([tmp_path / "a[1].jpg"]) == ["a[1].jpg"]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "which images"),
        (["{t}/no.jpg"], "no image or folder {t}/no.jpg"),
        (["{t}/*.jpg"], r"pattern {t}/\*\.jpg"),
        (["{t}"], "no image or video in the folder {t}"),
    ],
)
def test_sources_without_images(tmp_path, sources, message):
    with pytest.raises(RequestError, match=message.format(t=tmp_path)):
        find_sources([source.format(t=tmp_path) for source in sources])


# ---------------------------------------------------------------------------------------------------------- results


@pytest.mark.kernels
def test_all_formats_have_the_detections_of_predict(detector, images, tmp_path):
    seen = []
    output = tmp_path / "found"
    limits = PostprocessingSettings(threshold=0.4, max_detections=7)
    made = predict_files(
        detector, [images], output, threshold=0.4, max_detections=7, outputs=ALL, batch_size=3,
        callbacks=Callbacks(on_images=lambda *counts: seen.append(counts)),
    )  # fmt: skip
    assert seen == [(3, 7), (6, 7), (7, 7)]
    assert made.images == 7
    assert made.unreadable == []
    paths = [str(path) for path, _ in find_sources([images]).images]

    content = json.loads((output / "detections.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
    by_id = {image["id"]: image for image in content["images"]}
    assert [image["file_name"] for image in content["images"]] == paths
    assert (by_id[1]["height"], by_id[1]["width"]) == (60, 90)
    assert [a["id"] for a in content["annotations"]] == list(range(1, made.detections.total() + 1))
    found = {}
    for ident, path in enumerate(paths, 1):
        detections = from_coco([a for a in content["annotations"] if a["image_id"] == ident], NAMES)
        assert_agree(detections, detector.predict(path, threshold=0.4, max_detections=7), limits)
        found[path] = detections
    assert made.detections.total() == sum(map(len, found.values())) > 10
    for ident, (path, detections) in enumerate(found.items(), 1):
        stem = Path(names([images])[ident - 1]).with_suffix(".txt")
        height, width = by_id[ident]["height"], by_id[ident]["width"]
        rows = [line.split() for line in (output / "labels" / stem).read_text().splitlines()]
        assert [int(row[0]) for row in rows] == detections.labels.tolist()
        x, y, w, h, score = np.array(rows, float).reshape(-1, 6)[:, 1:].T
        corners = np.stack([(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height], 1)
        np.testing.assert_allclose(corners, detections.boxes.numpy(), atol=1e-3)
        np.testing.assert_allclose(score, detections.scores.numpy(), atol=1e-6)
        with Image.open(output / names([images])[ident - 1]) as drawn:
            assert drawn.size == (width, height), path
    assert (output / "classes.txt").read_text() == "red\ngreen\n"
    with open(output / "detections.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [path for path, d in found.items() for _ in range(len(d))]
    assert [row["name"] for row in rows] == [name for d in found.values() for name in d.names]
    boxes = torch.cat([d.boxes for d in found.values()]).numpy()
    np.testing.assert_allclose([[float(row[k]) for k in ("x1", "y1", "x2", "y2")] for row in rows], boxes, atol=0.006)


def test_the_json_opens_as_a_coco_file(detector, images, tmp_path, capsys):
    from pycocotools.coco import COCO

    predict_files(detector, [images], tmp_path / "found", outputs=UNDRAWN)
    truth = COCO(tmp_path / "found" / "detections.json")
    assert len(truth.getImgIds()) == 7
    assert [path.name for path in (tmp_path / "found").iterdir()] == ["detections.json"]


def test_an_image_without_detections(detector, images, tmp_path):
    made = predict_files(detector, [images / "a.jpg"], tmp_path / "found", threshold=0.999, outputs=ALL)
    assert made.detections.total() == 0
    assert json.loads((tmp_path / "found" / "detections.json").read_text())["annotations"] == []
    assert (tmp_path / "found" / "detections.csv").read_text().splitlines() == ["image,name,score,x1,y1,x2,y2"]
    assert (tmp_path / "found" / "labels" / "a.txt").read_text() == ""


# ----------------------------------------------------------------------------------------------------------- faults


def test_a_damaged_image_is_reported_and_the_others_are_done(detector, images, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    (folder / "b.bmp").write_bytes((folder / "b.bmp").read_bytes()[:80])
    (folder / "text.jpg").write_text("no image")
    problems = []
    callbacks = Callbacks(on_problem=lambda *problem: problems.append(problem))
    made = predict_files(detector, [folder], tmp_path / "found", callbacks=callbacks)
    assert made.images == 6
    assert problems == made.unreadable
    (first, reason), second = problems
    assert first == f"{folder}/b.bmp"
    assert reason.startswith("it is damaged or cut short")
    assert second[0] == f"{folder}/text.jpg"
    assert "not an image" in second[1]
    content = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert [entry["file_name"] for entry in content["unreadable"]] == [first, second[0]]
    assert len(content["images"]) == 6
    assert {a["image_id"] for a in content["annotations"]} <= set(range(1, 7))


def test_skipped_files_of_a_folder_are_reported(detector, images, tmp_path):
    folder = tmp_path / "images"
    (folder / ".cache").mkdir(parents=True)
    (folder / "inner").mkdir()
    for name in ("a.png", "inner/b.PNG", ".cache/c.png", ".d.png"):
        shutil.copy(images / "a.png", folder / name)
    for name in ("e.jxl", "inner/f.DNG", "g.pdf", "h.svg", "notes.txt"):
        (folder / name).write_text("something")
    (folder / "i.jpg").symlink_to("nothing")
    (folder / "linked").symlink_to(images)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "empty.jpg").touch()
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 50)
    made = predict_files(detector, [folder], tmp_path / "found")
    assert made.images == 2
    assert [Path(name).name for name, _ in made.unreadable] == ["empty.jpg", "phone.heic"]
    reasons = {str(Path(name).relative_to(folder)): reason for name, reason in made.skipped}
    assert {name: reason.split(":")[0] for name, reason in reasons.items()} == {
        ".cache": "hidden",
        ".d.png": "hidden",
        "e.jxl": "JPEG XL is not read",
        "g.pdf": "PDF is not read",
        "h.svg": "SVG is not read",
        "i.jpg": "a link to nothing",
        "inner/f.DNG": "a camera's raw file is not read",
        "linked": "a link to a folder, not followed",
        "notes.txt": "not an image or video by its suffix",
        "pipe.jpg": "not a regular file",
    }
    for name in ("a.png", "inner/b.PNG", "empty.jpg", "phone.heic"):
        (folder / name).unlink()
    with pytest.raises(RequestError, match=r"no image or video in the folder .*; skipped: .*e\.jxl \(JPEG XL"):
        predict_files(detector, [folder], tmp_path / "none")


def test_a_folder_that_may_not_be_read_is_named(detector, images, tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    shutil.copy(images / "a.png", tmp_path / "a.png")
    try:
        if os.access(tmp_path / "closed", os.R_OK):
            pytest.skip("this user may read everything")
        assert find_sources([tmp_path]).skipped == [(f"{tmp_path}/closed", "permission denied")]
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_changes_to_images_are_noted(detector, tmp_path):
    grey = np.mgrid[:40, :60][0] * 6
    Image.fromarray(grey.astype(np.int32)).save(tmp_path / "a.tif")
    Image.fromarray((grey * 16).astype(np.uint16)).save(tmp_path / "b.png")
    Image.new("RGBA", (60, 40), (200, 100, 50, 0)).save(tmp_path / "c.png")
    frames = [Image.new("RGB", (60, 40), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "d.tif", save_all=True, append_images=frames[1:])
    made = predict_files(detector, [tmp_path], tmp_path / "found")
    assert {note: [Path(name).name for name in names] for note, names in made.notes.items()} == {
        "values of 0 to 255 scaled to 8 bits": ["a.tif"],
        "values of 0 to 4095 scaled to 8 bits": ["b.png"],
        "alpha that hides the whole image ignored": ["c.png"],
        "only the first of several pages or frames used": ["d.tif"],
    }


def test_images_above_the_limit_are_named(detector, images, tmp_path):
    sources = [images / "a.jpg", images / "b.bmp"]  # 5400 and 5000 pixels
    found = find_sources(sources, max_pixels=5000)
    made = predict_files(detector, found, tmp_path / "found", tiling=Tiling(40))
    assert made.images == 1
    ((name, reason),) = made.unreadable
    assert name == str(images / "a.jpg")
    assert "90 x 60 = 5400 pixels, above the limit of 5000" in reason


def test_one_name_that_cannot_be_written_is_reported(detector, images, tmp_path):
    """A collision makes the longest names too long, a folder stands in the way, a side is too long for JPEG."""
    long = "x" * 251
    for folder in "ab":
        (tmp_path / folder / "k.jpg").mkdir(parents=True)
        shutil.copy(images / "a.png", tmp_path / folder / f"{long}.png")
        shutil.copy(images / "a.png", tmp_path / folder / "k.jpg" / "inner.png")
        shutil.copy(images / "b.bmp", tmp_path / folder / "k.bmp")
    Image.new("L", (66000, 1)).save(tmp_path / "b" / "wide.png")
    (tmp_path / "b" / "wide.png").rename(tmp_path / "b" / "wide.bmp")
    made = predict_files(detector, [tmp_path / "a", tmp_path / "b"], tmp_path / "found", outputs=ALL)
    assert made.images == 7
    assert made.unreadable == []
    named = {str(Path(name).relative_to(tmp_path)): reason for name, reason in made.unwritten}
    assert named.pop(f"b/{long}.png").endswith("file name too long")
    assert named.pop("b/wide.bmp").startswith(f"cannot write {tmp_path}/found/wide.jpg: ")
    assert list(named) == ["a/k.jpg/inner.png", "b/k.jpg/inner.png"]
    assert len(json.loads((made.output / "detections.json").read_text())["images"]) == 7
    assert not [path for path in made.output.rglob("*") if ".part" in path.name]


def test_a_name_of_244_characters(detector, images, tmp_path):
    name = "y" * 240 + ".png"
    shutil.copy(images / "a.png", tmp_path / name)
    made = predict_files(detector, [tmp_path / name], tmp_path / "found", outputs=ALL)
    assert (made.images, made.unwritten) == (1, [])
    assert (tmp_path / "found" / name).is_file()
    assert (tmp_path / "found" / "labels" / name).with_suffix(".txt").is_file()


def test_names_that_are_the_same_on_some_file_system(images, tmp_path):
    for name in ("a.png", "A.jpg", "e\u0301.png", "\u00e9.jpg"):
        shutil.copy(images / "a.png", tmp_path / name)
    given = [tmp_path / name for name in ("a.png", "A.jpg", "e\u0301.png", "\u00e9.jpg")]
    assert names(given) == ["a.png", "A-2.jpg", "e\u0301.png", "\u00e9-2.jpg"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VideoOptions(stride=0), "stride must be at least 1, not 0"),
        (lambda: find_sources(["."], max_pixels=0), "max_pixels must be at least 1, not 0"),
        (lambda: Tiling(slices=0), "slices must be at least 1, not 0"),
        (lambda: Tiling(slices=64, overlap=2), r"overlap .*\[0, 0\.9\], not 2"),
        (lambda: OutputOptions(formats=("xml",)), "xml.* json, csv, yolo"),
    ],
)
def test_options_that_cannot_be_used(make, message):
    with pytest.raises(RequestError, match=message):
        make()


def test_not_one_image_can_be_read(detector, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_text("no image")
    with pytest.raises(WorkError, match=rf"no image .* {tmp_path}/a\.jpg: .*not an image.* 1 more"):
        predict_files(detector, [tmp_path], tmp_path / "found")
    assert not (tmp_path / "found").exists(), "the same command can run again"


def test_images_that_cannot_be_opened_are_refused_without_a_model(images, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(WorkError, match=r"no image could be read: .*notes\.txt"):
        files.require_readable(find_sources([tmp_path / "notes.txt"]))
    files.require_readable(find_sources([tmp_path / "notes.txt", images]))


def test_a_folder_that_holds_something_is_left_alone(detector, images, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match="exists and is not empty: name a new folder with --output"):
        predict_files(detector, [images], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError])
def test_results_before_an_interruption_are_kept(detector, images, tmp_path, monkeypatch, kind):
    real, saved = files._save, []

    def stop_at_third(image, path):
        if len(saved) == 2:
            raise kind(28, "No space left on device")
        saved.append(path)
        real(image, path)

    monkeypatch.setattr(files, "_save", stop_at_third)
    with pytest.raises(WorkError if kind is OSError else kind, match=r"(?i)no space left on device"):
        predict_files(detector, [images], tmp_path / "found", outputs=OutputOptions(formats=("json", "csv")))
    content = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert len(content["images"]) == 3
    left = sorted(path.name for path in (tmp_path / "found").iterdir())
    assert left == ["a-2.png", "a.jpg", "detections.csv", "detections.json"], "no file that is half written"


def test_few_images_are_in_memory_at_a_time(detector, tmp_path, monkeypatch):
    """At most a batch and the images read ahead are in memory."""
    for number in range(30):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / f"{number:02}.png")
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0
    real = files.read

    def watched(path, **options):
        nonlocal most
        image = real(path, **options)
        alive.add(image)
        most = max(most, len(alive))
        return image

    monkeypatch.setattr(files, "read", watched)
    predict_files(detector, [tmp_path], tmp_path / "found", batch_size=2, outputs=UNDRAWN)
    assert 2 <= most <= 2 * 2 + files.READERS + 1


def test_large_images_go_alone(detector, tmp_path, monkeypatch):
    for number in range(3):
        Image.new("RGB", (50, 50)).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(predictor, "CHUNK_PIXELS", 2000)
    seen = []
    callbacks = Callbacks(on_images=lambda done, _: seen.append(done))
    predict_files(detector, [tmp_path], tmp_path / "found", outputs=UNDRAWN, callbacks=callbacks)
    assert seen == [1, 2, 3]


def test_slices(detector, images, tmp_path):
    """The result is that of predict_sliced."""
    options = {"threshold": 0.5, "max_detections": 9}
    for whole in (True, False):
        tiling = Tiling(48, 0.5, whole)
        made = predict_files(detector, [images / "z.tif"], tmp_path / str(whole), tiling=tiling, **options)
        expected = predict_sliced(detector, images / "z.tif", 48, 0.5, whole=whole, **options)
        content = json.loads((made.output / "detections.json").read_text())
        assert len(expected) == 9
        assert [a["bbox"] for a in content["annotations"]] == [a["bbox"] for a in expected.to_coco(1)]


def test_an_image_that_jpeg_cannot_hold_is_named_with_the_reason(detector, tmp_path, capfd):
    Image.new("RGB", (1, 65501)).save(tmp_path / "tall.bmp")
    Image.new("RGB", (9, 9)).save(tmp_path / "small.bmp")
    result = predict_files(detector, [tmp_path / "tall.bmp", tmp_path / "small.bmp"], tmp_path / "out", size=32)
    ((name, reason),) = result.unwritten
    assert name.endswith("tall.bmp")
    assert "JPEG holds at most 65500 pixels a side, not 65501" in reason
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["detections.json", "small.jpg"]
    assert capfd.readouterr().err == ""
