"""Small data sets from a stranger who means harm, or whose tool broke; run by itself it opens them one by one.

``python hostile_sets.py FOLDER`` makes every case below in FOLDER and opens it, within a limit of memory and time, and
prints a line of JSON for each: its name, and what came of it. The process is ended at the first case that hangs.
"""

from __future__ import annotations

import faulthandler
import io
import json
import os
import resource
import shutil
import socket
import stat
import struct
import sys
import time
import zlib
from pathlib import Path

from hostile_layouts import foreign
from PIL import Image

SECONDS = 20  # five are wanted; tests share their machine with others
MEMORY = 1 << 30  # bytes beyond what the process has before the first case
PNG = b"\x89PNG\r\n\x1a\n"


def encoded(kind="PNG", size=(32, 24), **options):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, kind, **options)
    return buffer.getvalue()


IMAGE = encoded()


def file(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


def link(path, target):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def pipe(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def sparse(path, head=b"", size=1 << 36, tail=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as out:
        out.write(head)
        out.truncate(size)
        out.seek(0, 2)
        out.write(tail)


# ------------------------------------------------------------------------------------------------ sound data sets


def yolo(root, yaml="train: images\nnames: [red, blue]\n", label="0 0.5 0.5 0.5 0.5\n", image=IMAGE):
    """A set of two images, the second untouched by all cases: what is sound beside a fault stays in use."""
    file(root / "data.yaml", yaml)
    for name, text, content in (("a", label, image), ("b", "1 0.5 0.5 0.5 0.5\n", IMAGE)):
        file(root / f"images/{name}.png", content)
        file(root / f"labels/{name}.txt", text)


def voc(root, sheet=None, name="red"):
    usual = "<annotation><object><name>{}</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>20</ymax>"
    usual += "</bndbox></object></annotation>"
    file(root / "ImageSets/Main/train.txt", "a\nb\n")
    for stem, text in (("a", sheet if sheet is not None else usual.format(name)), ("b", usual.format("blue"))):
        file(root / f"JPEGImages/{stem}.png", IMAGE)
        file(root / f"Annotations/{stem}.xml", text)


def coco(root, images=None, annotations=None, categories=None, text=None, **extra):
    content = {
        "images": [{"id": 2, "file_name": "b.png", "height": 24, "width": 32}],
        "annotations": [{"id": 2, "image_id": 2, "category_id": 1, "bbox": [2, 3, 20, 15]}],
        "categories": categories or [{"id": 1, "name": "red"}],
        **extra,
    }
    content["images"] += [{"id": 1, "file_name": "a.png"}] if images is None else images
    content["annotations"] += annotations or []
    file(root / "annotations/instances_train.json", json.dumps(content) if text is None else text)
    file(root / "train/a.png", IMAGE)
    file(root / "train/b.png", IMAGE)


# --------------------------------------------------------------------------------------------------------- cases


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks):
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG + b"".join(
        [chunk(b"IHDR", head), *chunks, chunk(b"IDAT", zlib.compress(bytes(1 << 16))), chunk(b"IEND", b"")]
    )


def tiff(*entries, order="<"):
    body = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + struct.pack("<I", 8)


def gif(width, height, frames=1):
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    one = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02L\x01\x00"
    return head + one * frames + b";"


def images():
    """Contents of a file with the ending of an image."""
    bomb = zlib.compress(bytes(1 << 26))
    yield from {
        "nothing": b"",
        "one byte": b"\x89",
        "a head alone": IMAGE[:30],
        "cut short": IMAGE[:-20],
        "cut short jpeg": encoded("JPEG")[:-30],
        "text": b"hello\n" * 1000,
        "zeros": bytes(5000),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "pdf": b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9000 9000\n{} loop\n%%EOF\n",
        "html": b"<!doctype html><script>alert(1)</script>",
        "zip": b"PK\x03\x04" + bytes(200),
        "png of 4 gigapixels": png(65535, 65535),
        "png wider than any": png(2**31 - 1, 2**31 - 1),
        "png of 80 megapixels without pixels": png(10000, 8000),
        "png of no width": png(0, 10),
        "png text bomb": png(32, 24, *[chunk(b"zTXt", b"a\0\0" + bomb)] * 50),
        "png profile bomb": png(32, 24, chunk(b"iCCP", b"a\0\0" + bomb)),
        "png of many chunks": png(32, 24, *[chunk(b"tEXt", b"a\0b")] * 1000),
        "png exif nonsense": png(32, 24, chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")),
        "png animated nonsense": png(32, 24, chunk(b"acTL", struct.pack(">II", 2**31, 0))),
        "gif of 4 gigapixels": gif(65535, 65535),
        "gif of 100 000 frames": gif(32, 24, 100_000),
        "bmp of 4 gigapixels": b"BM" + struct.pack("<IIIIiiHHI", 0, 0, 54, 40, 65535, 65535, 1, 24, 0) + bytes(24),
        "bmp upside down": b"BM" + struct.pack("<IIIIiiHHI", 0, 0, 54, 40, 32, -(2**31), 1, 24, 0) + bytes(24),
        "tiff of 4 gigapixels": tiff((256, 4, 1, 65535), (257, 4, 1, 65535), (258, 3, 1, 8), (262, 3, 1, 1)),
        "tiff with huge tags": tiff((256, 4, 1, 32), (257, 4, 1, 24), (270, 2, 2**31, 8), (273, 4, 2**30, 8)),
        "tiff in a circle": tiff((256, 4, 1, 32), (257, 4, 1, 24)),
        "webp of lies": b"RIFF\xff\xff\xff\x7fWEBPVP8X\x0a\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff",
        "ppm of lies": b"P6 99999999 99999999 255\n",
        "ppm of endless digits": b"P6 " + b"9" * 10**6,
        "jp2 of lies": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\xff" * 100,
        "ico of lies": b"\0\0\x01\0\xff\xff" + b"\xff" * 200,
        "jpeg of 4 gigapixels": b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\x01\x01\x11\0\xff\xd9",
        "jpeg exif nonsense": encoded("JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        "avif of lies": b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + b"\xff" * 100,
        "psd of lies": b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 200000, 200000, 8, 3) + b"\xff" * 50,
        "fits bomb": b"".join(
            f"{key:8}= {value:>20}".ljust(80).encode()
            for key, value in (("SIMPLE", "T"), ("BITPIX", 8), ("NAXIS", 2), ("NAXIS1", 999999), ("NAXIS2", 999999))
        ) + b"END".ljust(80),
        "xpm of lies": b'/* XPM */\nstatic char *a[] = {\n"99999 99999 2 1",\n',
    }.items()  # fmt: skip


LINES = {
    "nan": "0 nan nan nan nan",
    "infinite": "0 inf 0.5 0.5 -inf",
    "1e400": "0 1e400 0.5 0.5 0.5",
    "1e-400": "0 0.5 0.5 1e-400 1e-400",
    "huge class": "9" * 5000 + " 0.5 0.5 0.5 0.5",
    "class 1e308": "1e308 0.5 0.5 0.5 0.5",
    "class nan": "nan 0.5 0.5 0.5 0.5",
    "negative class": "-1 0.5 0.5 0.5 0.5",
    "fullwidth": "０ ０.５ ０.５ ０.５ ０.５",
    "underscores": "0 0_0.5 0.5 0.5 1_0",
    "hexadecimal": "0x0 0x1 0x1 0x1 0x1",
    "one long line": "0 " + "0.5 " * 3_000_000,
    "one long word": "0" * 10_000_000,
    "many lines": "0\n" * 60_000,
    "a long polygon": "0 " + "0.5 0.6 " * 50_000,
    "control characters": "0\x1b[31m 0.5 0.5 0.5 0.5\n\x00\x00 1 1 1 1\n",
    "line separators": "0 0.5 0.5\u20280.5 0.5\x0b\x0c\x85",
    "half a surrogate": "\udc80 0.5 0.5 0.5 0.5",
    "binary": bytes(range(256)) * 100,
    "zeros": bytes(1 << 20),
    "utf-16": "0 0.5 0.5 0.5 0.5".encode("utf-16"),
    "html": "<script>alert(1)</script> 0 0 0 0",
}

YAMLS = {
    "bomb": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\ntrain: images\nnames: [*c]\n",
    "merge bomb": "a: &a {x: 1}\nb: &b {<<: [*a, *a]}\ntrain: images\nnames: {<<: [*b, *b], 0: red, 1: blue}\n",
    "recursive": "train: &a [*a]\nnames: [red, blue]\n",
    "deep": "names: " + "[" * 50_000,
    "deep mapping": "".join(" " * i + "a:\n" for i in range(1000)),
    "python": "train: images\nnames: !!python/object/apply:os.system [touch hacked]\n",
    "a billion classes": "train: images\nnc: 1000000000\n",
    "minus a billion classes": "train: images\nnc: -1000000000\n",
    "a gap": "train: images\nnames: {0: red, 1000000000: blue}\n",
    "a gap beyond 64 bits": "train: images\nnames: {0: red, 1: blue, 99999999999999999999999999: green}\n",
    "80 000 classes": "train: images\nnc: 80000\n",
    "10 000 times one class": "train: images\nnames: [" + "red, " * 10_000 + "]\n",
    "a date": "train: images\nnames: [2001-99-99, b]\n",
    "an empty number": "train: images\nnames: [!!int '', b]\n",
    "sexagesimal": "train: images\nnames: [1" + ":59" * 100_000 + ", b]\n",
    "endless digits": "train: images\nnames: [" + "9" * 100_000 + ", b]\n",
    "names in names": "train: images\nnames: [[[[a]]], {b: c}]\n",
    "null": "train: images\nnames: [null, ~]\n",
    "a set": "train: images\nnames: !!set {red, blue}\n",
    "escapes": 'train: images\nnames: ["\\e[31mred\\e]0;x\\a", "\\u202eblue\\n<script>"]\n',
    "surrogates": 'train: images\nnames: ["\\ud800", b]\n',
    "nul": "train: images\nnames: [a\0, b]\n",
    "root": "train: /\nnames: [red, blue]\n",
    "root by path": "path: /\ntrain: .\nnames: [red, blue]\n",
    "above": "train: ../..\nnames: [red, blue]\n",
    "proc": "train: /proc/self\nnames: [red, blue]\n",
    "device": "train: /dev/zero\nnames: [red, blue]\n",
    "passwords": "train: /etc/passwd\nnames: [red, blue]\n",
    "a long path": "train: " + "a" * 1900 + "/" + "b" * 90 + "\nnames: [red, blue]\n",
    "a mapping": "train: {a: b}\nnames: [red, blue]\n",
    "a number": "train: 5\nnames: [red, blue]\n",
    "nul in a path": 'train: "a\\0b"\nnames: [red, blue]\n',
    "binary": bytes(range(256)) * 10,
    "large": "# " + "x" * (2 << 20),
}

XMLS = {
    "billion laughs": '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "'
    + "&a;" * 1000 + '"><!ENTITY c "' + "&b;" * 1000 + '">]><annotation><object><name>&c;</name></object></annotation>',
    "external entity": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    "<annotation><object><name>&a;</name></object></annotation>",
    "external dtd": '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd"><annotation/>',
    "parameter entity": '<!DOCTYPE x [<!ENTITY % a SYSTEM "file:///dev/zero"> %a;]><annotation/>',
    "deep": "<a>" * 200_000,
    "many attributes": "<annotation " + " ".join(f'a{i}="1"' for i in range(100_000)) + "/>",
    "a huge text": "<annotation><object><name>" + "x" * 10_000_000 + "</name></object></annotation>",
    "many objects": "<annotation>" + "<object><name>a</name></object>" * 20_000 + "</annotation>",
    "an unknown encoding": '<?xml version="1.0" encoding="nonsense"?><annotation/>',
    "a codec that is none": '<?xml version="1.0" encoding="rot13"?><annotation/>',
    "utf-7": '<?xml version="1.0" encoding="utf-7"?><annotation/>',
    "punycode": '<?xml version="1.0" encoding="punycode"?>' + "a" * 3_000_000,
    "escapes as a codec": '<?xml version="1.0" encoding="unicode_escape"?><annotation>\\ud800</annotation>',
    "surrogates in utf-7": '<?xml version="1.0" encoding="utf-7"?><annotation>+2AA-</annotation>',
    "an undefined codec": '<?xml version="1.0" encoding="undefined"?><annotation/>',
    "nul": b"<annotation>\0</annotation>",
    "html": "<html><script>alert(1)</script></html>",
    "numbers": "<annotation><size><width>1e308</width><height>nan</height></size><object><name>a</name><bndbox>"
    "<xmin>-1e400</xmin><ymin>nan</ymin><xmax>１</xmax><ymax>1_0</ymax></bndbox></object></annotation>",
    "empty": "",
    "binary": bytes(range(256)) * 100,
}  # fmt: skip


def box(**changes):
    return {"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 3, 20, 15], **changes}]}


def image(**changes):
    return {"images": [{"id": 1, "file_name": "a.png", **changes}]}


def raw(text):
    """JSON that Python's writer would not write; it goes in place of the list of images."""
    return {"text": f'{{"images": {text}, "annotations": [], "categories": [{{"id": 1, "name": "red"}}]}}'}


NESTED = json.loads("[" * 300 + "]" * 300)
COCOS = {
    "deep": {"text": "[" * 1_000_000},
    "deep in images": raw('[{"id":' + "[" * 100_000 + "]" * 100_000 + "}]"),
    "deep objects": {"text": '{"a":' * 100_000},
    "endless digits": raw('[{"id": ' + "9" * 1_000_000 + ', "file_name": "a.png"}]'),
    "4000 digits": raw('[{"id": ' + "9" * 4000 + ', "file_name": "a.png", "width": ' + "9" * 4000 + "}]"),
    "an exponent": raw('[{"id": 1, "file_name": "a.png", "width": 1e308, "height": 1e-999}]'),
    "many lists": raw("[" + "[]," * 60_000 + "1]"),
    "images twice": {"text": '{"images": [], "images": [], "annotations": [], "categories": []}'},
    "a list": {"text": "[]"},
    "a word": {"text": '"images annotations categories"'},
    "cut short": {"text": '{"images": [{"id"'},
    "zeros": {"text": b'{"images":' + bytes(1 << 20)},
    "not utf-8": {"text": b'{"images": "\xff"}'},
    "no categories": {"categories": [{}]},
    "categories of lists": {"categories": [[1]]},
    "a category id that is a list": {"categories": [{"id": [1], "name": "a"}]},
    "a category named by a nest": {"categories": [{"id": 1, "name": NESTED}]},
    "a category without end": {"categories": [{"id": 1, "name": "x" * 1_000_000}]},
    "a category id of 300 digits": {"categories": [{"id": 1, "name": "red"}, {"id": 10**300, "name": "b"}]},
    "a supercategory that is a list": {"categories": [{"id": i, "name": str(i), "supercategory": []} for i in (0, 1)]},
    "20 000 categories": {"categories": [{"id": i, "name": str(i)} for i in range(20_000)]},
    "20 000 times one name": {"categories": [{"id": i, "name": "a"} for i in range(20_000)]},
    "a name with half a surrogate": {"categories": [{"id": 1, "name": "\ud800"}]},
    "a name of escapes": {"categories": [{"id": 1, "name": "\x1b[31m\x1b]0;x\x07\u202e\n[red][/]<script>"}]},
    "an image id that is a list": image(id=[1]),
    "an image id that is a nest": image(id=NESTED),
    "an image id of 300 digits": image(id=10**300),
    "a file name that is a list": image(file_name=["a.png"]),
    "a file name without end": image(file_name="a" * 100_000),
    "a file name with nul": image(file_name="a\0.png"),
    "a file name with half a surrogate": image(file_name="\ud800.png"),
    "an empty file name": image(file_name=""),
    "a file name that is a folder": image(file_name="."),
    "a file name with line breaks": image(file_name="a\n\x1b[31m\u202e.png"),
    "a way out": image(file_name="../../../../../../../../etc/passwd"),
    "a way out by backslashes": image(file_name="..\\..\\..\\..\\etc\\passwd"),
    "an absolute way out": image(file_name="/etc/passwd"),
    "a device": image(file_name="/dev/zero"),
    "an address": image(file_name="file:///etc/passwd"),
    "a negative size": image(width=-5, height=-5),
    "a size that is a list": image(width=[1], height={}),
    "a size of 32 bits": image(width=2**31, height=2**31),
    "an image that is a number": {"images": [5, None, "a", [], {}]},
    "a box of nan": box(bbox=[float("nan"), float("inf"), float("-inf"), 1]),
    "a box of 400 digits": box(bbox=[10**400, 0, 1, 1]),
    "a box of text": box(bbox=["1", "２", "1_0", "x"]),
    "a box of lists": box(bbox=[[1], [2], [3], [4]]),
    "a box of five": box(bbox=[1, 2, 3, 4, 5]),
    "a box that is a text": box(bbox="1234"),
    "a box that is a mapping": box(bbox={"a": 1, "b": 2, "c": 3, "d": 4}),
    "an annotation id that is a list": box(id=[1]),
    "an annotation id that is a nest": box(id={"a": NESTED}),
    "an unknown category": box(category_id=10**400),
    "a category that is a text": box(category_id="\x1b[31m" * 100_000),
    "an area that is a list": box(area=[[]]),
    "crowd that is a list": box(iscrowd=[1]),
    "an annotation that is a number": {"annotations": [5, None, "a", [], {}]},
    "many faults": {"annotations": [{"bbox": 1}] * 40_000},
}  # fmt: skip


def places():
    """What lies where a file or folder is expected."""

    def yolo_with(change):
        def make(root):
            yolo(root)
            change(root)

        return make

    def voc_with(change):
        def make(root):
            voc(root)
            change(root)

        return make

    def coco_with(change):
        def make(root):
            coco(root)
            change(root)

        return make

    def sock(path):
        path.unlink(missing_ok=True)
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path is short
        try:
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(path.name)
        finally:
            os.chdir(here)

    def folder(path):
        path.unlink()
        path.mkdir()

    def circle(path):
        path.mkdir(exist_ok=True)
        for name in ("up", "up2"):
            (path / name).symlink_to("..")
        (path / "here").symlink_to(".")
        (path / "itself").symlink_to("itself")
        (path / "x.png").symlink_to("x.png")

    def deep(path):
        here = os.getcwd()
        try:
            os.chdir(path)
            for _ in range(450):  # a longer path than Linux opens
                os.mkdir("deep-below")
                os.chdir("deep-below")
        finally:
            os.chdir(here)

    def listed(text):
        return yolo_with(
            lambda r: (file(r / "train.txt", text), file(r / "data.yaml", "train: train.txt\nnames: [red, blue]\n"))
        )

    half_jpeg = encoded("JPEG")
    yield "image: pipe", yolo_with(lambda r: pipe(r / "images/a.png"))
    yield "image: socket", yolo_with(lambda r: sock(r / "images/a.png"))
    yield "image: link to a device", yolo_with(lambda r: link(r / "images/a.png", "/dev/zero"))
    yield "image: link to nothing", yolo_with(lambda r: link(r / "images/a.png", "nowhere"))
    yield "image: link to itself", yolo_with(lambda r: link(r / "images/a.png", "a.png"))
    yield "image: folder", yolo_with(lambda r: folder(r / "images/a.png"))
    yield "image: sparse", yolo_with(lambda r: sparse(r / "images/a.png"))
    yield (
        "image: sparse with a head and an end",
        yolo_with(lambda r: sparse(r / "images/a.png", half_jpeg[:-2], tail=half_jpeg[-2:])),
    )
    yield "image: name of escapes", yolo_with(lambda r: file(r / "images/\x1b[31m\n\u202e<b>.png", IMAGE))
    yield "image: name of bytes", yolo_with(lambda r: file(r / os.fsdecode(b"images/\xff\xfe.png"), IMAGE))
    yield "label: pipe", yolo_with(lambda r: pipe(r / "labels/a.txt"))
    yield "label: link to a device", yolo_with(lambda r: link(r / "labels/a.txt", "/dev/zero"))
    yield "label: link to itself", yolo_with(lambda r: link(r / "labels/a.txt", "a.txt"))
    yield "label: folder", yolo_with(lambda r: folder(r / "labels/a.txt"))
    yield "label: sparse", yolo_with(lambda r: sparse(r / "labels/a.txt", b"0 0.5 0.5 0.5 0.5\n"))
    yield "yaml: pipe", yolo_with(lambda r: pipe(r / "data.yaml"))
    yield "yaml: pipe beside it", yolo_with(lambda r: pipe(r / "other.yaml"))
    yield "yaml: sparse", yolo_with(lambda r: sparse(r / "data.yaml", b"names: [a]\n"))
    yield "folders in circles", yolo_with(lambda r: circle(r / "images"))
    yield "folders too deep", yolo_with(lambda r: deep(r / "images"))
    yield "list of passwords", listed("root:x:0:0\n" * 50)
    yield "list of ways out", listed("images/b.png\n../../../../etc/passwd.png\n/etc/shadow.jpg\n/dev/zero.png\n")
    yield "list of nonsense", listed("images/b.png\n" + "x" * 100_000 + ".png\na\0b.png\n\x1b[31m.png\n")
    yield (
        "list: pipe",
        yolo_with(lambda r: (pipe(r / "train.txt"), file(r / "data.yaml", "train: train.txt\nnames: [a]\n"))),
    )
    yield (
        "list: sparse",
        yolo_with(lambda r: (sparse(r / "train.txt"), file(r / "data.yaml", "train: train.txt\nnames: [a]\n"))),
    )
    yield "list of long ways", listed("images/b.png\n" + "a/" * 100_000 + "x.png\n" + "y" * 300 + "/z.png\n/\n..png\n")
    ways = listed("images/b.png\n" + "ab/" * 40 + "images/a.png\n" + "aB/" * 1300 + "images/B.png\n")
    yield "list through links in circles", lambda r: (ways(r), link(r / "aB", "."), link(r / "Ab", "."))
    yield (
        "classes of passwords",
        lambda r: (yolo(r), (r / "data.yaml").unlink(), file(r / "obj.data", "train = images\nnames = /etc/passwd\n")),
    )
    yield "xml: pipe", voc_with(lambda r: pipe(r / "Annotations/a.xml"))
    yield "xml: folder", voc_with(lambda r: folder(r / "Annotations/a.xml"))
    yield "xml: sparse", voc_with(lambda r: sparse(r / "Annotations/a.xml", b"<annotation>"))
    yield "voc list: pipe", voc_with(lambda r: pipe(r / "ImageSets/Main/val.txt"))
    yield "voc list: sparse", voc_with(lambda r: sparse(r / "ImageSets/Main/val.txt"))
    yield (
        "voc list: ways out",
        voc_with(lambda r: file(r / "ImageSets/Main/train.txt", "b\n../../../../etc/passwd\n/etc/passwd\n")),
    )
    yield (
        "voc list: nonsense",
        voc_with(lambda r: file(r / "ImageSets/Main/train.txt", "b\n" + "x" * 5000 + "\na\0b\n\x1b[31m\n")),
    )
    yield "voc list: 10 000 times one name", voc_with(lambda r: file(r / "ImageSets/Main/train.txt", "a\nb\n" * 5000))
    yield "voc images: pipe", voc_with(lambda r: pipe(r / "JPEGImages/a.png"))
    yield "json: pipe", coco_with(lambda r: pipe(r / "annotations/instances_train.json"))
    yield "json: pipe beside it", coco_with(lambda r: pipe(r / "annotations/instances_val.json"))
    yield "json: folder", coco_with(lambda r: (r / "annotations/instances_val.json").mkdir())
    yield (
        "json: sparse",
        coco_with(lambda r: sparse(r / "annotations/instances_train.json", b'{"images": [], "annotations": []')),
    )
    yield "roboflow json: pipe", lambda r: (file(r / "train/a.png", IMAGE), pipe(r / "train/_annotations.coco.json"))
    yield "coco images: pipe", coco_with(lambda r: pipe(r / "train/a.png"))
    yield (
        "coco image folder: circle",
        coco_with(lambda r: (shutil.rmtree(r / "train"), (r / "train").symlink_to("train"))),
    )
    yield "the data set: pipe", lambda r: (r.rmdir(), os.mkfifo(r))
    yield "the data set: circle", lambda r: (r.rmdir(), r.symlink_to(r))
    yield "the data set: device", lambda r: (r.rmdir(), r.symlink_to("/dev/zero"))
    yield "the data set: folders in circles alone", circle


def cases():
    """Names and functions that make a data set in an empty folder."""
    yield from places()
    yield from foreign(file, pipe, sparse, link, IMAGE)
    for name, content in images():
        yield f"image: {name}", lambda root, content=content: yolo(root, image=content)
    for name, text in LINES.items():
        yield f"line: {name}", lambda root, text=text: yolo(root, label=text)
    for name, text in YAMLS.items():
        yield f"yaml: {name}", lambda root, text=text: yolo(root, yaml=text)
    for name, text in XMLS.items():
        yield f"xml: {name}", lambda root, text=text: voc(root, text)
    for name, changes in COCOS.items():
        yield f"json: {name}", lambda root, changes=changes: coco(root, **changes)


def open_all(root):
    """Returns how many images and boxes can be used, and what was said."""
    from retinanet.data import open_data, splits

    counts, said = [], []
    for split in splits(root):
        data = open_data(root, split)
        counts.append((len(data), data.num_boxes))
        said += data.report.lines()
        for index in range(len(data)):
            data.read(index)
    return counts, said


def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def main(folder):
    from retinanet import data  # noqa: F401 (before memory is limited)
    from retinanet.common.errors import RequestError, WorkError

    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    for number, (name, make) in enumerate(cases()):
        root = Path(folder, str(number))
        root.mkdir(parents=True)
        make(root)
        say({"begun": name})
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        start = time.perf_counter()
        try:
            counts, said = open_all(root)
            outcome = {"opened": counts, "said": said}
        except (RequestError, WorkError) as error:
            outcome = {"refused": str(error)}
        except BaseException as error:
            outcome = {"broken": f"{type(error).__name__}: {str(error)[:300]}"}
        faulthandler.cancel_dump_traceback_later()
        if stat.S_ISDIR(root.lstat().st_mode):  # else rmtree would open the pipe
            shutil.rmtree(root)
        else:
            root.unlink()
        say({"name": name, "seconds": round(time.perf_counter() - start, 3), **outcome})


if __name__ == "__main__":
    main(sys.argv[1])
