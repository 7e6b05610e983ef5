"""Hostile cases of the layouts of other tools: CSV, Hugging Face, CVAT, Label Studio, labelme, XML or text alone."""

from __future__ import annotations

import json

DEEP = 100_000
LAUGHS = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
BOX = '<box label="red" xtl="1" ytl="2" xbr="20" ybr="20"/>'
HEAD = b"path,x1,y1,x2,y2,class\nb.png,1,2,20,20,red\n"
SHAPE = {"label": "red", "points": [[1, 2], [20, 20]], "shape_type": "rectangle"}


def _studio(name="b.png", **changes):
    value = {"x": 1, "y": 2, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["red"]}
    result = {"type": "rectanglelabels", "original_width": 32, "original_height": 24, "value": value | changes}
    return {"id": 1, "data": {"image": name}, "annotations": [{"result": [result]}]}


def _sheet(name="b.png", shapes=(SHAPE,), **changes):
    return json.dumps({"version": "5.5.0", "shapes": list(shapes), "imagePath": name} | changes)


def _row(name="b.png", objects=None):
    return json.dumps({"file_name": name, "objects": objects or {"bbox": [[1, 2, 10, 10]], "category": ["red"]}})


CSVS = {
    "a way out": HEAD + b"../../../../etc/shadow.png,1,2,3,4,red\n/etc/shadow.png,1,2,3,4,red\n",
    "nonsense": HEAD
    + b"a\tb\x1b[31m.png,1,2,3,4,red\nb.png,nan,inf,-inf,1e999,red\n"
    + b"x" * 100_000
    + b".png,,,,,\n",
    "zero bytes": HEAD + b"a\0b.png,1,2,3,4,red\n",
    "a huge field": HEAD + b'b.png,1,2,3,4,"' + b"x" * 500_000 + b'"\n',
    "an open quote": HEAD + b'"b.png,1,2,3,4,red\n' * 50_000,
    "a long line": HEAD + b"b.png," * 1_000_000,
    "many columns": HEAD + b"," * 100_000 + b"\n",
    "a number of digits": HEAD + b"b.png,1,2,20," + b"9" * 100_000 + b",red\n",
    "brackets": b"image,bbox,class\nb.png," + b"[" * 100_000 + b",red\nb.png,[1 2 3 4],red\n",
    "one byte": b"\xff",
}
STUDIOS = {
    "a way out": json.dumps(
        [_studio(), _studio("../../../../etc/shadow.png"), _studio("/data/local-files/?d=/etc/a.png")]
    ),
    "nested": '[{"annotations": ' + "[" * DEEP,
    "odd ids": json.dumps(
        [_studio() | {"id": each} for each in (10**400 % 10**19, -1, True, None, [1], {"a": 1}, "x")]
    ),
    "digits": '[{"annotations": [], "id": ' + "9" * 10_000 + "}]",
    "odd values": json.dumps([_studio(**{key: v}) for key in ("x", "rotation") for v in (None, [], "a", 1e308, True)]),
    "odd labels": json.dumps([_studio(rectanglelabels=v) for v in ([], [None], [[1]], "red", {"a": 1}, [""])]),
    "odd tasks": json.dumps([1, None, "a", [], {}, {"annotations": 3}, {"annotations": [3, {"result": 4}]}, _studio()]),
    "a bad URL": json.dumps([_studio("http://[::1/b.png?d=a.png"), _studio()]),
}
SHEETS = {
    "a way out": _sheet("../../../../etc/shadow.png"),
    "a device": _sheet("/dev/zero"),
    "nested": '{"shapes": [], "imagePath": ' + "[" * DEEP,
    "odd shapes": _sheet(
        "a.png", [None, 1, {}, SHAPE | {"points": 3}, SHAPE | {"points": [{}]}, SHAPE | {"label": [1]}]
    ),
    "odd sizes": _sheet("a.png", imageHeight=1e300, imageWidth="wide"),
    "no shapes": '{"version": "5", "shapes": 3, "imagePath": 4}',
}
CVATS = {
    "billion laughs": f"<!DOCTYPE a [<!ENTITY a0 'ha'>{LAUGHS}]><annotations>&a11;</annotations>",
    "external entity": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotations>&x;</annotations>',
    "nested": "<annotations>" + "<a>" * DEEP,
    "a way out": f'<annotations><image name="/etc/shadow.png">{BOX}</image>'
    f'<image name="b.png">{BOX}</image></annotations>',
    "odd values": '<annotations><image id="x" name="b.png" width="-1" height="1e99">'
    + BOX.replace('"20"', '"1e999"')
    + BOX.replace("/>", ' rotation="nan"/>')
    + "</image></annotations>",
    "half": f'<annotations><image name="b.png">{BOX}',
}
METADATA = {
    "a way out": f"{_row()}\n{_row('../../../../etc/shadow.png')}\n{_row('/etc/shadow.png')}\n",
    "nested": f'{_row()}\n{{"file_name": "b.png", "objects": ' + "[" * DEEP,
    "text that is no code": "\n".join(
        _row(objects=text)
        for text in ("__import__('os').mkdir('hacked')", "-" * 500_000 + "1", "(" * 500_000, "a" * 2_000_000)
    ),
    "odd objects": "\n".join(
        _row(objects=each)
        for each in (
            {"bbox": 3},
            {"bbox": [[1, 2, 3, 4]], "category": [[1]]},
            [None],
            {"a": 1},
            {"bbox": [None], "category": [1]},
        )
    ),
}
LABELS = {
    "many classes": "".join(f"{i} 0.5 0.5 0.5 0.5\n" for i in range(20_000)),
    "huge classes": "1e308 0.5 0.5 0.5 0.5\n99999999999 0.5 0.5 0.5 0.5\nnan 0.5 0.5 0.5 0.5\n-1 0.5 0.5 0.5 0.5\n",
}
FILES = {
    "csv": ("a.csv", CSVS),
    "label studio": ("a.json", STUDIOS),
    "labelme": ("a.json", SHEETS),
    "cvat": ("annotations.xml", CVATS),
    "metadata": ("metadata.jsonl", METADATA),
    "labels alone": ("a.txt", LABELS),
    "xml alone": ("a.xml", {"billion laughs": CVATS["billion laughs"].replace("annotations", "annotation")}),
    "parquet": ("train.parquet", {"nonsense": b"PAR1" + bytes(range(256)) * 100 + b"PAR1", "short": b"PAR1"}),
}
SOUND = {"labelme": ("b.json", _sheet()), "labels alone": ("b.txt", "0 0.5 0.5 0.5 0.5\n")}


def foreign(file, pipe, sparse, link, image):
    """Names and functions that make a data set in an empty folder.

    Args:
        file, pipe, sparse, link: write such a file. image: the content of an image.
    """

    def made(kind, name, spoil):
        def make(root):
            for each in ("a.png", "b.png"):
                file(root / each, image)
            if kind in SOUND:
                file(root / SOUND[kind][0], SOUND[kind][1])
            spoil(root / name)

        return make

    for kind, (name, contents) in FILES.items():
        for case, content in contents.items():
            yield f"{kind}: {case}", made(kind, name, lambda path, content=content: file(path, content))
        yield f"{kind}: pipe", made(kind, name, pipe)
        yield f"{kind}: device", made(kind, name, lambda path: link(path, "/dev/zero"))
        start = next(iter(contents.values()))[:30]
        start = start if isinstance(start, bytes) else start.encode()
        yield f"{kind}: sparse", made(kind, name, lambda path, start=start: sparse(path, start))
