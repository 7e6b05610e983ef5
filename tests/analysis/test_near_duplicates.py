"""Near-duplicates: altered copies are found, other images are not, and flat ones match nothing but their copies."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from helpers.synthetic_data import Sample, encoded, pixels, png, sound, write
from retinanet.analysis.near_duplicates import (
    CELLS,
    PARTNERS,
    ImageFigures,
    connected_groups,
    inspect_images,
    similar_pairs,
    spread,
)
from retinanet.data import open_data


def figures_of(root, contents):
    """The figures of images with these contents."""
    images = [Sample(f"{i:03}.png", content, [[0, 1, 1, 20, 20]], size(content)) for i, content in enumerate(contents)]
    return inspect_images(open_data(write(root, "yolo", {"train": images}), "train"))


def size(content):
    with Image.open(io.BytesIO(content)) as image:
        return image.size[::-1]


def pairs(found):
    return list(zip(found.first.tolist(), found.second.tolist(), found.exact.tolist()))


def made_up(cells, contents=None):
    n = len(cells)
    return ImageFigures(
        total=n,
        indices=np.arange(n) * 2,  # every other image was looked at
        contents=np.arange(n, dtype=np.uint64) if contents is None else np.array(contents, np.uint64),
        cells=np.asarray(cells, np.float16),
        means=np.zeros((n, 3), np.float32),
        grey=np.zeros(n, np.bool_),
    )


ALTERATIONS = {
    "compressed": lambda image: encoded(image, "JPEG", quality=30),
    "half the size": lambda image: encoded(image.resize((image.width // 2, image.height // 2))),
    "darker": lambda image: encoded(image.point(lambda value: 255 * (value / 255) ** 1.5)),
    "grey": lambda image: encoded(image.convert("L")),
    "blurred": lambda image: encoded(image.filter(ImageFilter.GaussianBlur(2))),
    "cropped": lambda image: encoded(image.crop((2, 2, image.width - 2, image.height - 2))),
    "turned by EXIF": lambda image: encoded(image.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=quarter()),
}


def quarter():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("name", ALTERATIONS)
def test_altered_copies_look_alike(tmp_path, name):
    found = similar_pairs(figures_of(tmp_path, [*(png(seed) for seed in range(30)), ALTERATIONS[name](pixels(7))]))
    assert pairs(found) == [(7, 30, False)]
    assert 0.75 < found.similarity[0] <= 1


def test_exact_copies_are_reported_apart(tmp_path):
    found = similar_pairs(figures_of(tmp_path, [png(0), png(1), png(0), png(2), png(0)]))
    # Each with the first of its copies; the third pair ties nothing new, and is found as they look alike.
    assert pairs(found) == [(0, 2, True), (0, 4, True), (2, 4, True)]
    assert found.similarity.tolist() == [1, 1, 1]
    assert connected_groups(found.first, found.second) == [[0, 2, 4]]


def test_between_two_splits():
    rng = np.random.default_rng(0)
    cells = rng.uniform(0, 255, (20, CELLS, CELLS))
    one, other = made_up(cells[:12]), made_up(cells[::-1][:12], 100 + np.arange(12))
    assert pairs(similar_pairs(one, other)) == [(16, 22, False), (18, 20, False), (20, 18, False), (22, 16, False)]


def test_flat_images_match_their_copies_only():
    rng = np.random.default_rng(0)
    flat = np.full((6, CELLS, CELLS), 200.0) + rng.normal(0, 0.1, (6, CELLS, CELLS))
    flat[:] = flat[0]  # look the same to the last bit
    assert pairs(similar_pairs(made_up(flat, [1, 2, 3, 1, 4, 5]))) == [(0, 6, True)]
    assert made_up(flat).blank.all()


def test_a_scene_seen_again_and_again_gives_few_pairs_and_one_group():
    rng = np.random.default_rng(0)
    cells = rng.uniform(0, 255, (CELLS, CELLS)) + rng.normal(0, 2, (900, CELLS, CELLS))
    found = similar_pairs(made_up(cells))
    assert len(found) <= 900 * PARTNERS
    assert (found.first < found.second).all()
    assert connected_groups(found.first, found.second) == [list(range(0, 1800, 2))]


def test_five_thousand_images():
    rng = np.random.default_rng(0)
    cells = rng.uniform(0, 255, (5000, CELLS, CELLS))
    cells[4321] = cells[17] + 3
    assert pairs(similar_pairs(made_up(cells))) == [(34, 8642, False)]


def test_groups():
    first, second = np.array([5, 1, 9, 1]), np.array([6, 2, 5, 3])
    assert connected_groups(first, second) == [[1, 2, 3], [5, 6, 9]]
    assert connected_groups(first[:0], second[:0]) == []


def test_a_limit_is_spread_evenly(tmp_path):
    assert spread(10, 4).tolist() == [0, 2, 5, 7]
    assert spread(3, None).tolist() == spread(3, 5).tolist() == [0, 1, 2]
    data = open_data(write(tmp_path, "coco", sound()), "train")
    reported = []
    figures = inspect_images(data, limit=8, on_progress=lambda done, total: reported.append((done, total)))
    assert (figures.total, figures.indices.tolist()) == (40, list(range(0, 40, 5)))
    assert reported == [(8, 8)]
    assert inspect_images(data, [4, 2]).indices.tolist() == [2, 4]


def test_colours_and_contrast(tmp_path):
    plain = Image.new("RGB", (128, 96), (200, 100, 50))
    figures = figures_of(tmp_path, [encoded(plain), encoded(pixels(1).convert("L")), png(2)])
    np.testing.assert_allclose(figures.means[0], [200, 100, 50])
    assert figures.grey.tolist() == [False, True, False]
    assert figures.blank.tolist() == [True, False, False]
    assert figures.contrast[0] == 0
    assert figures.contrast[2] > 10
    grey = np.asarray(pixels(2).convert("L"), np.float32)
    assert abs(figures.cells[2].mean() - grey.mean()) < 0.6


def test_damaged_images_do_not_stop_the_others(tmp_path):
    whole = png(1)
    figures = figures_of(tmp_path, [png(0), whole[:500] + bytes(300) + whole[800:], encoded(pixels(2), "JPEG")])
    assert figures.indices.tolist() == [0, 2]
    assert [i for i, _ in figures.failed] == [1]
    assert figures.other_format == ((2, "JPEG"),)


@pytest.mark.parametrize(
    ("name", "splits", "expected"),
    [
        ("bccd", ("train", "val", "test"), [("BloodImage_00038.jpg", "BloodImage_00037.jpg")]),
        ("coco128", ("train", "val"), []),
        ("tiny_coco", ("train", "val"), []),
    ],
)
def test_published_images_have_no_false_matches(real, name, splits, expected):
    opened = [open_data(real(name), split) for split in splits]
    figures = [inspect_images(data) for data in opened]
    found = []
    for i, one in enumerate(figures):
        assert len(similar_pairs(one)) == 0
        for j in range(i + 1, len(figures)):
            match = similar_pairs(one, figures[j])
            found += [(opened[i].path(a).name, opened[j].path(b).name) for a, b in zip(match.first, match.second)]
    assert found == expected
