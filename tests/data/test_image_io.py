"""Whatever an image's file holds, (3, H, W) uint8 RGB comes out, or one line that says why not."""

import os
import pickle
import signal
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin, TiffImagePlugin

from retinanet.common.errors import RequestError
from retinanet.data import image_io
from retinanet.data.image_io import ImageError, read, to_tensor
from retinanet.data.pixel_formats import ALPHA_IGNORED

ORIENTATION = 0x0112


def colours(height=6, width=8):
    """A gradient in which every pixel differs."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 30, y * 40, (x + y) * 15], 2).astype(np.uint8)


def saved(tmp_path, image, name="image.png", **options):
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
    image = read(saved(tmp_path, flat.quantize(4), "image.gif"))
    assert image[:, 3, 3].tolist() == [10, 200, 30]


def test_palette_with_transparency_is_laid_over_white(tmp_path):
    palette = Image.new("P", (8, 6), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 1), 1)
    image = read(saved(tmp_path, palette, transparency=0))
    assert image[:, 0, 0].tolist() == [255, 255, 255]
    assert image[:, 1, 1].tolist() == [40, 50, 60]


@pytest.mark.parametrize("alpha", [0, 1])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_alpha_that_hides_everything_is_ignored(tmp_path, mode, alpha):
    grey = Image.fromarray(colours()[..., 0])
    if mode == "P":
        path = saved(tmp_path, grey.quantize(8), transparency=bytes([alpha] * 8))
    else:
        path = saved(tmp_path, Image.merge(mode, [grey] * (len(mode) - 1) + [Image.new("L", grey.size, alpha)]))
    notes = []
    image = read(path, notes=notes)
    assert np.abs(image[0].numpy().astype(int) - colours()[..., 0]).max() <= (15 if mode == "P" else 0)
    assert notes == [ALPHA_IGNORED]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(tmp_path, mode):
    layer = Image.new(mode, (8, 6), (0, 0, 0, 0) if mode == "RGBA" else (0, 0))
    layer.putpixel((2, 1), (100, 100, 100, 255) if mode == "RGBA" else (100, 255))
    image = read(saved(tmp_path, layer))
    assert image[:, 0, 0].tolist() == [255, 255, 255]
    assert image[:, 1, 2].tolist() == [100, 100, 100]


def test_cmyk(tmp_path):
    image = read(saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "image.jpg", quality=95))
    red, green, blue = image[:, 4, 4].tolist()
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_16_bit_grey_is_scaled_to_8(tmp_path, name):
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    image = read(saved(tmp_path, Image.fromarray(values), name))
    assert image[0].tolist() == [[0, 1, 128, 255]]


RAMP = np.mgrid[:40, :60][0] * 6  # 0 to 234
DEEP = [
    (RAMP.astype(np.int32), 255),
    (RAMP.astype(np.int32) * 1000, 2**18 - 1),
    (RAMP.astype(np.uint16), 255),
    (RAMP.astype(np.uint16) * 4, 1023),
    (RAMP.astype(np.uint16) * 16, 4095),
    (RAMP.astype(np.uint16) * 64, 16383),
    (RAMP.astype(np.uint16) * 257, 65535),
    ((RAMP / 255).astype(np.float32), 1),
    ((RAMP / 234 * 1.02).astype(np.float32), 1),
    ((RAMP + 18).astype(np.float32), 255),
    ((RAMP * 16).astype(np.float32), 4095),
]


@pytest.mark.parametrize(("values", "full"), DEEP)
def test_more_than_8_bits_are_scaled_by_their_range(tmp_path, values, full):
    """From a file, a PIL image, an array and a tensor alike, and noted once."""
    expected = np.clip(np.rint(values.astype(np.float64) * 255 / full), 0, 255)
    assert expected.max() > 200
    path = saved(tmp_path, Image.fromarray(values), "image.tif")
    grey = torch.from_numpy(values)[None]
    colour = np.stack([values] * 3, 2)
    for given in (path, Image.fromarray(values), values, colour, grey, torch.from_numpy(colour).permute(2, 0, 1)):
        notes = []
        image = to_tensor(given, notes)
        assert image.dtype == torch.uint8
        assert np.array_equal(image.numpy(), np.stack([expected] * 3))
        assert notes == [f"values of 0 to {full} scaled to 8 bits"]
    notes = []
    assert image_io.header(path, notes) == (40, 60, False)
    assert notes == [image_io.DEEP]


def test_the_declared_range_counts(tmp_path):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = 1023  # MaxSampleValue
    image = read(saved(tmp_path, Image.fromarray(RAMP.astype(np.uint16)), "image.tif", tiffinfo=tags))
    assert image.max() == round(234 * 255 / 1023)
    path = tmp_path / "image.pgm"
    path.write_bytes(b"P5 60 40 1023\n" + RAMP.astype(">u2").tobytes())
    assert read(path).max() == round(234 * 255 / 1023)


def test_true_and_false_are_white_and_black():
    for given in (RAMP > 100, torch.from_numpy(RAMP > 100)[None]):
        assert np.array_equal(to_tensor(given)[0].numpy(), np.where(RAMP > 100, 255, 0))


def deep_png(path, values):
    """A colour PNG of 16 bits, which Pillow cannot write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks.items():
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    path.write_bytes(content)
    return path


def test_colours_of_16_bits_are_never_black(tmp_path):
    """Pillow keeps the upper 8 bits of each, which is nothing of values up to 4095."""
    colour = np.stack([RAMP, RAMP // 2, RAMP // 3], 2)
    image = read(deep_png(tmp_path / "a.png", colour * 257))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), colour)
    notes = []
    image = read(deep_png(tmp_path / "b.png", colour * 64), notes=notes)
    assert np.abs(image.permute(1, 2, 0).numpy().astype(int) - colour).max() <= 4
    assert notes == ["values of 0 to 16383 scaled to 8 bits"]
    for factor in (1, 16):
        with pytest.raises(ImageError, match="16 bits"):
            read(deep_png(tmp_path / "c.png", colour * factor))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP.astype(np.float32) - 100, "from -100 to 134"),
        (RAMP.astype(np.int32) - 5, "from -5 to 229"),
        ((RAMP / 255 - 0.45).astype(np.float32) / 0.22, "from -2.0"),
        ((RAMP / 200).astype(np.float32), "to 1.17"),
        (np.where(RAMP > 0, RAMP, np.nan).astype(np.float32), "not finite"),
        (np.where(RAMP > 0, RAMP, np.inf).astype(np.float32), "not finite"),
    ],
)
def test_values_that_are_no_colours_are_refused(tmp_path, values, message):
    path = saved(tmp_path, Image.fromarray(values), "image.tif")
    for function, given in ((read, path), (image_io.header, path), (to_tensor, values)):
        with pytest.raises(ImageError, match=message):
            function(given)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["image.png", "image.tif"])
def test_exif_orientation(tmp_path, orientation, name):
    upright = colours()
    # What a camera held that way stores, so that turning it as EXIF says gives the upright image back.
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
    height, width, turned = image_io.header(path)
    assert (width, height) if turned else (height, width) == (6, 8)
    if name.endswith("png"):
        assert np.array_equal(read(path, exif=False).permute(1, 2, 0).numpy(), stored)
        assert turned == (orientation >= 5)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_the_first_of_several_pages_or_frames_is_used_and_noted(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    for count in (2, 1):
        path = saved(tmp_path, frames[0], f"image{suffix}", save_all=True, append_images=frames[1:count])
        notes, glance = [], []
        red, green, _ = read(path, notes=notes)[:, 0, 0].tolist()
        image_io.header(path, glance)
        assert (red > 240, green < 15) == (True, True)
        assert notes == glance == [image_io.SEVERAL] * (count - 1)


# -------------------------------------------------------------------------------------------------------- the limit


def test_the_limit_of_pixels(tmp_path, monkeypatch, recwarn):
    """Named with the way around it, set by argument or environment, and Pillow's own is as it was."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)  # Pillow alone warns from 600 and refuses from 1200
    before = Image.MAX_IMAGE_PIXELS
    for name in ("a.png", "a.jpg", "a.tif", "a.webp", "a.gif"):
        path = saved(tmp_path, Image.new("RGB", (40, 50), "red"), name)
        assert read(path).shape == (3, 50, 40)
        assert image_io.header(path) == (50, 40, False)
        for limited in ({"max_pixels": 1999}, {}):
            with monkeypatch.context() as patch:
                if not limited:
                    patch.setenv(image_io.LIMIT_VARIABLE, "1999")
                with pytest.raises(
                    ImageError, match=r"40 x 50 = 2000 pixels.*1999.*RETINANET_MAX_PIXELS.*--max-pixels"
                ):
                    read(path, **limited)
        assert read(path, max_pixels=2000).shape == (3, 50, 40)
    assert before == Image.MAX_IMAGE_PIXELS == 600
    assert not recwarn.list
    for wrong in ("many", "0", "-1", "1.5"):
        monkeypatch.setenv(image_io.LIMIT_VARIABLE, wrong)
        with pytest.raises(RequestError, match=image_io.LIMIT_VARIABLE):
            read(path)


def test_pillows_limit_is_back_after_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    sound = saved(tmp_path, Image.new("RGB", (40, 50)))
    (tmp_path / "cut.png").write_bytes(sound.read_bytes()[:60])

    def attempt(number):
        try:
            return read((sound, tmp_path / "cut.png")[number % 2], max_pixels=(3000, 100, 5000)[number % 3]).shape
        except ImageError as error:
            return error.reason

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(attempt, range(300)))
    assert {result[:2] for result in results if isinstance(result, str)} == {"it"}
    assert sum(not isinstance(result, str) for result in results) == 100
    assert Image.MAX_IMAGE_PIXELS == 600


def test_a_forked_process_does_not_wait_for_the_parents_threads(tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    path = saved(tmp_path, Image.new("RGB", (40, 50)))
    with image_io.opened(path), image_io._lock:  # as a thread of the parent holds them
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            os._exit(0 if read(path).shape == (3, 50, 40) and Image.MAX_IMAGE_PIXELS != image_io.MAX_PIXELS else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_large_images_are_copied_in_bands(tmp_path, monkeypatch):
    monkeypatch.setattr(image_io, "BAND", 24)
    array = colours(11, 8)
    assert np.array_equal(read(saved(tmp_path, Image.fromarray(array))).permute(1, 2, 0).numpy(), array)


def test_given_images():
    array = colours()
    expected = torch.from_numpy(array).permute(2, 0, 1)
    for given in (array, Image.fromarray(array), expected, np.ascontiguousarray(array[:, ::-1])[:, ::-1]):
        assert torch.equal(to_tensor(given), expected)
    readonly = array.copy()
    readonly.flags.writeable = False
    assert torch.equal(to_tensor(readonly), expected)
    assert torch.equal(to_tensor(array[..., 0]), expected[:1].expand(3, -1, -1))
    assert torch.equal(to_tensor(expected[:1]), expected[:1].expand(3, -1, -1))


EXPECTED = "give a path, a PIL image, an (H, W, 3) or (H, W) RGB or grey array, or a (3, H, W) tensor"


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (np.zeros((4, 4, 3), complex), "an array of complex128 and shape (4, 4, 3)"),
        (np.array([["a"]]), "an array of <U1 and shape (1, 1)"),
        (np.zeros((4, 4, 4), np.uint8), "an array of uint8 and shape (4, 4, 4)"),
        (np.zeros((0, 4, 3), np.uint8), "an array of uint8 and shape (0, 4, 3)"),
        (torch.zeros(3, 4, 4, dtype=torch.complex64), "a tensor of complex64 and shape (3, 4, 4)"),
        (torch.zeros(4, 4), "a tensor of float32 and shape (4, 4)"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "a tensor of uint8 and shape (4, 4, 3)"),
        (7, "a int"),
    ],
)
def test_given_things_that_are_no_images(given, what):
    with pytest.raises(ImageError) as error:
        to_tensor(given)
    assert str(error.value) == f"cannot read the image given: {what}; {EXPECTED}"


def broken(tmp_path, kind):
    path = tmp_path / "image.jpg"
    if kind == "text":
        path.write_text("not an image\n")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "HEIC":
        path.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 50)
    elif kind == "no sides":
        Image.new("RGB", (4, 4)).save(path, "BMP")
        path.write_bytes(path.read_bytes()[:18] + bytes(8) + path.read_bytes()[26:])
    elif kind == "program":
        Image.new("RGB", (4, 4)).save(path, "EPS")
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "there is no such file"),
        ("text", "it is not an image that Pillow knows"),
        ("empty", "the file is empty"),
        ("no sides", "its width or height is 0"),
        ("folder", "is a directory"),
        ("pipe", "it is a pipe, a socket or a device, not a regular file"),
        ("HEIC", "HEIC needs pillow-heif: pip install 'retinanet[heif]'"),
        ("program", "EPS is a program, which is not run; save it as PNG"),
    ],
)
def test_files_that_are_no_images(tmp_path, monkeypatch, kind, reason):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = broken(tmp_path, kind)
    for function in (read, image_io.header, to_tensor):
        with pytest.raises(ImageError) as error:
            function(path)
        assert str(error.value) == f"cannot read the image {path}: {reason}"
        assert error.value.reason == reason


@pytest.mark.parametrize("name", ["image.jpg", "image.png"])
def test_a_file_cut_short_is_found_without_decoding_sound_ones(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    content = path.read_bytes()
    assert image_io.header(path) == (64, 64, False)
    path.write_bytes(content + b"\0" * 500)  # what some cameras append
    assert image_io.header(path) == (64, 64, False)
    path.write_bytes(content[: len(content) // 2])
    for function in (image_io.header, read):
        with pytest.raises(ImageError, match=r"^cannot read the image .*: it is damaged or cut short \(") as error:
            function(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["image.bmp", "image.gif", "image.ppm", "image.tif", "image.webp"])
def test_other_files_cut_short_are_found(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    assert image_io.header(path) == (64, 64, False)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for function in (image_io.header, read):
        with pytest.raises(ImageError, match=r"^cannot read the image .*: it is "):
            function(path)


def test_whatever_a_decoder_raises_is_a_image_error(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("RGB", (4, 4)), "image.png")

    def fail(*arguments, **options):
        raise RuntimeError("decoder\nfailed")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(ImageError, match=r"image\.png: it is damaged or cut short \(decoder failed\)$"):
        read(path)


def test_a_image_error_travels_between_processes(tmp_path):
    error = ImageError("a.jpg", "the file is empty")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.name, again.reason) == (str(error), "a.jpg", "the file is empty")


def test_heic(tmp_path):
    """Turned as its EXIF says, once."""
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    heif.register_heif_opener()
    colour = np.zeros((48, 64, 3), np.uint8)
    colour[:24], colour[24:, :32] = (200, 30, 30), (30, 200, 30)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = saved(tmp_path, Image.fromarray(colour), "image.heic", exif=exif.tobytes())
    assert image_io.header(path)[:2] == (64, 48)
    red, green, _ = read(path)[:, 4, 4].tolist()  # its lower left corner stands upper left
    assert (red < 60, green > 170) == (True, True)
