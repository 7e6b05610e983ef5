"""Whatever a picture's file holds, (3, H, W) uint8 RGB comes out, or one line that says why not."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.data import pictures
from retinanet.data.pictures import PictureError, read, to_tensor

ORIENTATION = 0x0112


def colours(height=6, width=8):
    """A gradient in which every pixel differs."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 30, y * 40, (x + y) * 15], 2).astype(np.uint8)


def saved(tmp_path, image, name="picture.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_rgb_is_exact(tmp_path):
    array = colours()
    image = read(saved(tmp_path, Image.fromarray(array)))
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert np.array_equal(image.permute(1, 2, 0).numpy(), array)


def test_grey_becomes_three_equal_channels(tmp_path):
    grey = colours()[..., 0]
    image = read(saved(tmp_path, Image.fromarray(grey)))
    assert np.array_equal(image.numpy(), np.stack([grey] * 3))


def test_one_bit(tmp_path):
    image = read(saved(tmp_path, Image.fromarray(colours()[..., 0] > 100)))
    assert set(image.flatten().tolist()) == {0, 255}
    assert image.shape == (3, 6, 8)


def test_palette(tmp_path):
    flat = Image.new("RGB", (8, 6), (10, 200, 30))
    image = read(saved(tmp_path, flat.quantize(4), "picture.gif"))
    assert image[:, 3, 3].tolist() == [10, 200, 30]


def test_palette_with_transparency_is_laid_over_white(tmp_path):
    palette = Image.new("P", (8, 6), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 1), 1)
    image = read(saved(tmp_path, palette, transparency=0))
    assert image[:, 0, 0].tolist() == [255, 255, 255]
    assert image[:, 1, 1].tolist() == [40, 50, 60]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(tmp_path, mode):
    layer = Image.new(mode, (8, 6), (0, 0, 0, 0) if mode == "RGBA" else (0, 0))
    layer.putpixel((2, 1), (100, 100, 100, 255) if mode == "RGBA" else (100, 255))
    image = read(saved(tmp_path, layer))
    assert image[:, 0, 0].tolist() == [255, 255, 255]
    assert image[:, 1, 2].tolist() == [100, 100, 100]


def test_cmyk(tmp_path):
    image = read(saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "picture.jpg", quality=95))
    red, green, blue = image[:, 4, 4].tolist()
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("name", ["picture.png", "picture.tif"])
def test_16_bit_grey_is_scaled_to_8(tmp_path, name):
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    image = read(saved(tmp_path, Image.fromarray(values), name))
    assert image[0].tolist() == [[0, 1, 128, 255]]


def test_numbers_that_are_no_colours_are_refused(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.ones((4, 4), np.float32)), "picture.tif")
    with pytest.raises(PictureError) as error:
        read(path)
    expected = "its pixels are floating-point numbers; save it with 8 or 16 bits"
    assert str(error.value) == f"cannot read the picture {path}: {expected}"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["picture.png", "picture.tif"])
def test_exif_orientation(tmp_path, orientation, name):
    upright = colours()
    # What a camera held that way stores, so that turning it as EXIF says gives the upright picture back.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.transpose(1, 0, 2), 2),
        8: np.rot90(upright, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = image.getexif()
    exif[ORIENTATION] = orientation
    path = saved(tmp_path, image, name, exif=exif)
    assert np.array_equal(read(path).permute(1, 2, 0).numpy(), upright)
    height, width, turned = pictures.header(path)
    assert (width, height) if turned else (height, width) == (6, 8)
    if name.endswith("png"):
        assert np.array_equal(read(path, exif=False).permute(1, 2, 0).numpy(), stored)
        assert turned == (orientation >= 5)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    image = read(saved(tmp_path, frames[0], "picture.gif", save_all=True, append_images=frames[1:]))
    assert image[:, 0, 0].tolist() == [255, 0, 0]


def test_given_pictures():
    array = colours()
    expected = torch.from_numpy(array).permute(2, 0, 1)
    for given in (array, Image.fromarray(array), expected, np.ascontiguousarray(array[:, ::-1])[:, ::-1]):
        assert torch.equal(to_tensor(given), expected)
    readonly = array.copy()
    readonly.flags.writeable = False
    assert torch.equal(to_tensor(readonly), expected)
    assert torch.equal(to_tensor(array[..., 0]), expected[:1].expand(3, -1, -1))
    assert torch.equal(to_tensor(expected[:1]), expected[:1].expand(3, -1, -1))


EXPECTED = "give a path, a PIL image, an (H, W, 3) uint8 RGB array or a (3, H, W) uint8 tensor"


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (np.zeros((4, 4, 3)), "an array of float64 and shape (4, 4, 3)"),
        (np.zeros((4, 4, 4), np.uint8), "an array of uint8 and shape (4, 4, 4)"),
        (np.zeros((0, 4, 3), np.uint8), "an array of uint8 and shape (0, 4, 3)"),
        (torch.zeros(3, 4, 4), "a tensor of float32 and shape (3, 4, 4)"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "a tensor of uint8 and shape (4, 4, 3)"),
        (7, "a int"),
    ],
)
def test_given_things_that_are_no_pictures(given, what):
    with pytest.raises(PictureError) as error:
        to_tensor(given)
    assert str(error.value) == f"cannot read the picture given: {what}; {EXPECTED}"


def broken(tmp_path, kind):
    path = tmp_path / "picture.jpg"
    if kind == "text":
        path.write_text("not a picture\n")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "there is no such file"),
        ("text", "it is not a picture that Pillow knows"),
        ("empty", "the file is empty"),
        ("folder", "is a directory"),
    ],
)
def test_files_that_are_no_pictures(tmp_path, kind, reason):
    path = broken(tmp_path, kind)
    for function in (read, pictures.header, to_tensor):
        with pytest.raises(PictureError) as error:
            function(path)
        assert str(error.value) == f"cannot read the picture {path}: {reason}"
        assert error.value.reason == reason


@pytest.mark.parametrize("name", ["picture.jpg", "picture.png"])
def test_a_file_cut_short_is_found_without_decoding_sound_ones(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    content = path.read_bytes()
    assert pictures.header(path) == (64, 64, False)
    path.write_bytes(content + b"\0" * 500)  # what some cameras append
    assert pictures.header(path) == (64, 64, False)
    path.write_bytes(content[: len(content) // 2])
    for function in (pictures.header, read):
        with pytest.raises(PictureError, match=r"^cannot read the picture .*: it is damaged or cut short \(") as error:
            function(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["picture.bmp", "picture.gif", "picture.ppm", "picture.tif", "picture.webp"])
def test_other_files_cut_short_are_found(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    assert pictures.header(path) == (64, 64, False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for function in (pictures.header, read):
        with pytest.raises(PictureError, match=r"^cannot read the picture .*: it is "):
            function(path)


def test_numbers_that_are_no_colours_are_found_at_a_glance_too(tmp_path):
    path = saved(tmp_path, Image.fromarray(np.ones((4, 4), np.float32)), "picture.tif")
    with pytest.raises(PictureError, match=r"its pixels are floating-point numbers; save it with 8 or 16 bits$"):
        pictures.header(path)


def test_whatever_a_decoder_raises_is_a_picture_error(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("RGB", (4, 4)), "picture.png")

    def fail(*arguments, **options):
        raise RuntimeError("decoder\nfailed")

    monkeypatch.setattr(Image.Image, "convert", fail)
    with pytest.raises(PictureError, match=r"picture\.png: it is damaged or cut short \(decoder failed\)$"):
        read(path)


def test_a_picture_error_travels_between_processes(tmp_path):
    error = PictureError("a.jpg", "the file is empty")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name, again.reason) == (str(error), "a.jpg", "the file is empty")
