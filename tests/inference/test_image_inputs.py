"""What predict takes: paths, URLs, folders, patterns, arrays of either order, lists and generators."""

from __future__ import annotations

import functools
import re
import threading
import warnings
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.agreeing import assert_agree
from helpers.exported_models import changed, make, make_image
from retinanet.common.arguments import PredictOptions
from retinanet.common.errors import RequestError
from retinanet.inference.detections import Detections
from retinanet.inference.detector import Detector
from retinanet.inference.tiling import predict_sliced

SIZES = {"a.png": (50, 90), "b.png": (90, 50), "inner/c.png": (50, 90)}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, and files that are none."""
    for seed, (name, size) in enumerate(SIZES.items()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        array(make_image(*size, seed)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("hello")
    return tmp_path


def array(pixels: Any) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def same(detector: Detector, found: Detections, other: Detections) -> None:
    assert len(found) > 0
    assert_agree(found, other, detector.settings.postprocessing)


def test_folders_patterns_and_lists_give_lists(detector: Detector, folder: Path) -> None:
    paths = [folder / name for name in SIZES]
    alone = [detector.predict(path) for path in paths]
    for given in (folder, str(folder), f"{folder}/**/*.png", paths, tuple(map(str, paths))):
        results = detector.predict(given)
        assert isinstance(results, list)
        assert [Path(found.source) for found in results] == paths
        for found, expected in zip(results, alone, strict=True):
            same(detector, found, expected)
    assert [found.source for found in detector.predict(f"{folder}/a.*")] == [paths[0]]


def test_a_name_with_pattern_letters_is_a_file(detector: Detector, folder: Path) -> None:
    (folder / "a.png").rename(folder / "[1].png")
    assert isinstance(detector.predict(folder / "[1].png"), Detections)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("empty", "there is no image in the folder .*empty or its subfolders; skipped: .*notes.txt"),
        ("*.jpg", "nothing matches the pattern .*"),
        ("no.jpg", "cannot read the image .*no.jpg: there is no such file"),
    ],
)
def test_nothing_there(detector: Detector, tmp_path: Path, given: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("hello")
    with pytest.raises(RequestError, match=message):
        detector.predict(tmp_path / given)


def test_contents_of_files_and_open_files(detector: Detector, folder: Path) -> None:
    content = (folder / "a.png").read_bytes()
    for given in (bytearray(content), memoryview(content)):
        same(detector, detector.predict(given), detector.predict(content))
    with open(folder / "a.png", "rb") as file, pytest.raises(RequestError, match=r"an open file is no image.*read\(\)"):
        detector.predict(file)


def test_generators_are_read_lazily(detector: Detector) -> None:
    read: list[int] = []

    def images() -> Iterator[Any]:
        for i in range(5):
            read.append(i)
            yield make_image(*((50, 90), (90, 50))[i % 2], i)

    results = detector.predict(images(), batch_size=2)
    assert read == []
    first = next(results)
    assert read == [0, 1]
    same(detector, first, detector.predict(make_image(50, 90, 0)))
    rest = list(results)
    assert read == [0, 1, 2, 3, 4]
    for i, found in enumerate(rest, 1):
        same(detector, found, detector.predict(make_image(*((50, 90), (90, 50))[i % 2], i)))
    assert list(detector.predict(iter([]))) == []
    with pytest.raises(RequestError, match="threshold"):  # at once, not with the first image
        detector.predict(images(), threshold=2)


def test_calling_it_is_predicting(detector: Detector, folder: Path) -> None:
    same(detector, detector(folder / "a.png", threshold=0.5), detector.predict(folder / "a.png", threshold=0.5))
    assert len(detector([make_image(9, 9)] * 2)) == 2


def test_blue_green_red(detector: Detector) -> None:
    rgb = make_image(50, 90).permute(1, 2, 0).numpy()
    expected = detector.predict(rgb)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    found = detector.predict(bgr, bgr=True)
    same(detector, found, expected)
    assert np.shares_memory(found.source, bgr)  # a view, not a copy
    assert found.draw().tobytes() == expected.draw(rgb).tobytes()
    assert detector.predict(bgr) != expected
    same(detector, detector.predict(Image.fromarray(rgb), bgr=True), expected)  # PIL knows its order
    with pytest.raises(RequestError, match="bgr is for arrays"):
        detector.predict(make_image(9, 9), bgr=True)
    grey = rgb[..., 0]
    assert detector.predict(grey, bgr=True) == detector.predict(grey)


def test_images_that_cannot_be_read(detector: Detector, folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(RequestError, match=r"cannot read the image .*broken\.jpg: .*on_error=\"skip\""):
        detector.predict(folder)
    with pytest.warns(UserWarning, match=r"^1 of 4 images cannot be read and are left out: .*broken\.jpg: ") as caught:
        results = detector.predict(folder, on_error="skip")
    assert [caught[0].filename, len(caught)] == [__file__, 1]
    assert [Path(found.source).name for found in results] == ["a.png", "b.png", "c.png"]
    with pytest.raises(RequestError, match="image 1 "):
        detector.predict([make_image(9, 9), np.zeros((3, 3, 7))])
    with pytest.warns(UserWarning, match=r"^1 of 2 images .*image 1 \(from 0\): an array of float64"):
        assert len(detector.predict([make_image(9, 9), np.zeros((3, 3, 7))], on_error="skip")) == 1
    with pytest.raises(RequestError, match=r"broken\.jpg"):  # one image alone cannot be left out
        detector.predict(folder / "broken.jpg", on_error="skip")
    with pytest.raises(RequestError, match="on_error must be"):
        detector.predict(folder, on_error="ignore")  # type: ignore[call-overload]
    with pytest.raises(RequestError, match="bgr must be"):
        detector.predict(folder, bgr=1)


def test_warnings_of_a_generator_count_all_images(detector: Detector) -> None:
    images = iter([np.full((9, 9, 3), 0.5), "missing.png", np.full((9, 9, 3), 0.5)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(list(detector.predict(images, batch_size=1, on_error="skip"))) == 2
    messages = sorted(str(warning.message) for warning in caught)
    assert messages[0].startswith("1 of 3 images cannot be read and are left out: missing.png")
    assert messages[1:] == ["2 of 3 images: values of 0 to 1 scaled to 8 bits"]


def test_the_source_is_no_copy(detector: Detector, folder: Path) -> None:
    image = Image.open(folder / "a.png")
    pixels = make_image(50, 90)
    for given in (image, pixels, str(folder / "a.png")):
        assert detector.predict(given).source is given
    assert detector.predict([pixels])[0].source is pixels
    content = (folder / "a.png").read_bytes()
    same(detector, detector.predict(content), detector.predict(image))
    sliced = predict_sliced(detector, folder / "a.png", 40)
    assert sliced.source == folder / "a.png"
    assert sliced.draw().size == (90, 50)


def test_urls(detector: Detector, folder: Path) -> None:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        found = detector.predict(f"{base}/a.png?token=secret")
        with pytest.raises(
            RequestError, match=re.escape(f"cannot read the image {base}/notes.txt: it is not an image")
        ):
            detector.predict(f"{base}/notes.txt")
        with pytest.raises(RequestError, match=re.escape(f"{base}/no.png: the server returns 404")):
            detector.predict([f"{base}/a.png", f"{base}/no.png"])
    finally:
        server.shutdown()
        server.server_close()
    same(detector, found, detector.predict(folder / "a.png"))
    assert found.source == f"{base}/a.png"
    assert found.draw().tobytes() == found.draw(folder / "a.png").tobytes()  # without the server


def test_default_threshold(folder: Path) -> None:
    """The one of the best F1, for predict alone: what compares models uses the model's own."""
    detector = make()  # its best F1 is at 0.4, its own threshold is 0.3
    assert detector.default_threshold == detector.threshold == 0.4
    image = make_image(50, 90)
    most = {"max_detections": 10_000}
    usual, lower, everything = (detector.predict(image, threshold=t, **most) for t in (None, 0.3, 0))
    assert usual == lower.above(0.4)
    assert 0 < len(usual) < len(lower) < len(everything)
    assert detector.detect_each([image], PredictOptions(**most)) == [lower]
    assert next(detector.predict(iter([image]), **most)) == usual
    unknown = changed(detector, {})
    unknown.about.pop("threshold")
    assert unknown.default_threshold is None
    assert unknown.predict(image, **most) == lower
