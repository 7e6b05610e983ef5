"""A corpus of files that are damaged or made to do harm, and what reading each of them comes to.

Run as a program, in a process of its own, which what it reads may end. Prints a JSON mapping, name -> what happened:
"read", "refused: " and the line, or what went wrong, more time or memory than allowed among it.
"""

from __future__ import annotations

import json
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from helpers import exported_models
from retinanet import checkpoints
from retinanet.checkpoints.built_network import build
from retinanet.common.errors import RequestError, WorkError
from retinanet.config import recipes
from retinanet.config.convert import to_plain
from retinanet.config.settings import Settings
from retinanet.exporting.onnx import onnx_export
from retinanet.exporting.openvino import openvino_export
from retinanet.exporting.openvino.openvino_runtime import ABOUT, NETWORK, runtime
from retinanet.exporting.runtimes import open_exported
from retinanet.training import resume_state, run_folder

SECONDS = 5.0
"""Of CPU time for each file."""
MUTATIONS = 25
"""Of each real file."""
DEEP = "[" * 100_000 + "]" * 100_000
DIGITS = "9" * 10_000
Read = Callable[[Path], Any]


def weights(path: Path) -> None:
    build(checkpoints.load(path), path)


def exported(path: Path) -> None:
    assert open_exported(path) is not None


def resumed(path: Path) -> None:
    with resume_state.restoring(path):
        saved = resume_state.load(path)
        exported_models.make(0).model.load_state_dict(saved["model"])


def run(path: Path) -> None:
    run_folder.read_run(path)
    run_folder.read_metrics(path)


def originals(folder: Path) -> Iterator[tuple[Path, Read]]:
    """Small real files, each with what reads it."""
    detector = exported_models.make(0)
    native = folder / "native.safetensors"
    detector.save(native)
    yield native, weights
    value = {"state_dict": detector.model.state_dict(), "epoch": 3, "meta": {"classes": ["a"]}}
    for zipped in (True, False):
        path = folder / f"{'zip' if zipped else 'legacy'}.pth"
        torch.save(value, path, _use_new_zipfile_serialization=zipped)
        yield path, weights
    path = folder / "blobs.pkl"
    path.write_bytes(pickle.dumps({"blobs": {"conv1_w": np.ones((2, 3), np.float32)}, "cfg": "MODEL:\n  A: 1\n"}, 2))
    yield path, weights
    yield onnx_file(folder / "net.onnx", detector), exported
    yield openvino_folder(folder / "ov", detector), exported
    resume_state.save(folder / "resume.pt", {"step": 3, "model": detector.model.state_dict()})
    yield folder / "resume.pt", resumed
    yield run_of(folder / "run"), run
    yield folder / "run" / "settings.yaml", recipes.values


def onnx_file(path: Path, detector: Any, nodes: Callable[[Any], list[Any]] | None = None, **changes: str) -> Path:
    """As small as one can be that is loaded: every output is the input."""
    import onnx
    from onnx import TensorProto, helper

    known = onnx_export._metadata(detector, network_only=True) | changes
    names = onnx_export.output_names(detector.settings)
    made = [helper.make_node("Identity", ["images"], [name]) for name in names] + (nodes(helper) if nodes else [])
    image = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["b", 3, "h", "w"])
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
    limit = helper.make_tensor("many", TensorProto.INT64, [4], [2**20] * 4)
    steps = helper.make_tensor("steps", TensorProto.INT64, [], [2**62])
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    graph = helper.make_graph(made, "g", [image], outputs, [limit, steps, yes] if nodes else [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, known)
    onnx.save(model, path)
    return path


def openvino_folder(path: Path, detector: Any) -> Path:
    openvino = runtime("a test")
    ops = openvino.opset13
    image = ops.parameter([-1, 3, -1, -1], np.float32, name="images")
    sides = [len(detector.class_names)] * 5 + [4] * 5
    outputs = [ops.reshape(image, np.array([0, -1, side]), special_zero=True) for side in sides]
    path.mkdir()
    openvino.save_model(openvino.Model(outputs, [image]), path / NETWORK)
    (path / ABOUT).write_text(json.dumps(openvino_export.about(detector, "fp32")))
    return path


def run_of(path: Path) -> Path:
    path.mkdir()
    run_folder.RunFolder(path).write_settings(Settings())
    (path / "run.json").write_text(json.dumps({"data": "somewhere", "classes": ["a"]}))
    (path / "metrics.csv").write_text("step,epoch,seconds\n1,0.1,2\n2,0.2,3\n")
    return path


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One change, mostly where a file says how it is built."""
    size, data = len(content), bytearray(content)
    place = draw.randrange(min(size, 4096)) if draw.random() < 0.7 else draw.randrange(size)
    match draw.randrange(7):
        case 0:
            return content[: draw.randrange(size)]
        case 1:
            for _ in range(draw.choice([1, 3, 30])):
                data[draw.randrange(min(size, 4096))] ^= 1 << draw.randrange(8)
        case 2:
            data[place : place + 8] = draw.choice([b"\xff" * 8, b"\0" * 8, b"\x7f" * 8, struct.pack("<Q", 1 << 40)])
        case 3:
            data[place:place] = draw.randbytes(draw.choice([1, 8, 1000]))
        case 4:
            data[place : place + draw.choice([1, 8, 1000])] = b""
        case 5:
            digits = [i for i in range(min(size, 60_000)) if chr(data[i]).isdigit()] or [place]
            data[(where := draw.choice(digits)) : where + 1] = draw.choice(
                [b"999999999999", b"-1", b"NaN", b"1e999", b"[[]]"]
            )
        case _:
            data = data[:place] + data[place : place + 2000] * 2 + data[place:]
    return bytes(data)


def mutations(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    draw = random.Random(0)
    for original, read in list(originals(folder)):
        yield f"{original.name} unchanged", original, read
        for number in range(MUTATIONS):
            place = folder / "changed" / original.name
            if original.is_dir():
                shutil.copytree(original, place, dirs_exist_ok=True)
                file = draw.choice(sorted(place.iterdir()))
                source = original / file.name
            else:
                place.parent.mkdir(exist_ok=True)
                file, source = place, original
            if source.stat().st_size:
                file.write_bytes(mutated(source.read_bytes(), draw))
            yield f"{original.name} {number}", place, read


# ------------------------------------------------------------------------------------------- made to do harm


def safetensors(path: Path, change: Callable[[dict[str, str]], None], raw: bool = False) -> Path:
    """Our own format with other metadata."""
    from safetensors.torch import save_file

    detector = exported_models.make(0)
    known = {
        "format": "retinanet-1",
        "retinanet.settings": json.dumps(to_plain(detector.settings)),
        "retinanet.classes": json.dumps(list(detector.class_names)),
        "retinanet.extra": "{}",
    }
    change(known)
    save_file({name: tensor.contiguous() for name, tensor in detector.model.state_dict().items()}, path, known)
    return path


def metadata(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    """JSON that is deep, long or of other types, in every field of our own format and of an ONNX file."""
    texts = [DEEP, DIGITS, f'{{"a": {DEEP}}}', f'{{"AP": {DIGITS}}}', "5", "null", '"text"', "[[1], [2]]", "[1, 2, 3]"]
    texts += ["NaN", "[NaN, 1, 2]", "Infinity", "[]", "{}", "true", "\x00", "[" * 900 + "]" * 900, '{"origin": 5}']
    texts += ['{"assumed": 5}', '{"assumed": [[]]}', '{"a": 1, "a": 2}', '["a", 2, null]', "[" + "1," * 300_000 + "1]"]
    detector = exported_models.make(0)
    for number, text in enumerate(texts):
        for field in ("settings", "classes", "extra"):
            path = folder / f"metadata-{number}-{field}"
            name = f"metadata {field} {text[:20]}"
            yield name, safetensors(path, lambda known, f=field, t=text: known.update({f"retinanet.{f}": t})), weights
            if number % 3 == 0:
                made = onnx_file(path.with_suffix(".onnx"), detector, **{f"retinanet.{field}": text})
                yield f"onnx {name}", made, exported


def huge(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    """Settings that ask for more than there is."""
    plain = to_plain(exported_models.make(0).settings)
    for section, field, values in (
        ("head", "depth", [10**6, 10**12, 64, -1, 1.5, True, "4", None, [4], 1e400]),
        ("head", "width", [10**9, 0]),
        ("pyramid", "channels", [10**9, 8192, {}]),
        ("anchors", "scales", [[1.0] * 10**5, [1.0] * 64, [float("nan")], [0]]),
        ("anchors", "sizes", [[1e300] * 5, [-1.0] * 5, []]),
        ("preprocessing", "size", [10**9, 8192]),
        ("preprocessing", "multiple", [32 * 10**9, 31]),
        ("preprocessing", "mean", [[float("nan")] * 3, [1, 2]]),
        ("postprocessing", "threshold", [float("nan"), float("inf"), -1, 2]),
        ("postprocessing", "candidates", [10**18]),
        ("backbone", "name", ["hf-hub:a/b", "local-dir:/etc", "", "no" * 10**5, 5, "resnet18.hf-hub:a/b"]),
        ("backbone", "options", [{"layers": [10**9] * 4}, {"layers": [9999] * 4}, {"pretrained_cfg": {"url": "x"}}]),
        ("backbone", "options", [{"block": "os.system"}, {"a": [[[[[[[0]]]]]]]}, {"checkpoint_path": "/etc/passwd"}]),
    ):
        for number, value in enumerate(values):
            changed = plain | {section: plain[section] | {field: value}}
            path = folder / f"{section}-{field}-{number}"
            text = json.dumps(changed)
            yield (
                f"settings {section}.{field} {str(value)[:30]}",
                safetensors(path, lambda known, t=text: known.update({"retinanet.settings": t})),
                weights,
            )


def pickles(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    for number, (name, content) in enumerate((copies() | keys() | programs()).items()):
        path = folder / f"bomb-{number}.pkl"
        path.write_bytes(content)
        yield f"pickle of {name}", path, weights
        if number > 4:
            continue
        zipped = folder / f"bomb-{number}.pth"
        with zipfile.ZipFile(zipped, "w") as archive:
            archive.writestr("a/data.pkl", content)
        yield f"zip with a pickle of {name}", zipped, resumed if number % 2 else weights


def copies() -> dict[str, bytes]:
    """Pickles that call a function again and again, each time with the same long value from the memo."""
    count = 50_000
    listed = b"](" + b"K\x01" * 200_000 + b"e"
    mapped = b"}(" + b"".join(b"J" + struct.pack("<i", i) + b"K\x01" for i in range(count)) + b"u"
    text = b"X" + struct.pack("<I", 10**6) + b"f" * 10**6
    items = b"(NK\x00(" + b"K\x01" * 200_000 + b"tq\x02h\x02t"

    def again(function: bytes, value: bytes, call: bytes = b"h\x01h\x00\x85R0") -> bytes:
        return b"\x80\x02c" + function + b"\nq\x01" + value + b"q\x000" + call * count + b"."

    return {
        "a list that is copied": again(b"builtins\nlist", listed),
        "a dict that is copied": again(b"builtins\ndict", mapped),
        "a path that is copied": again(b"pathlib\nPath", text),
        "types with long names": again(b"numpy\ndtype", text),
        "a shape of very many sides": again(b"torch._utils\n_rebuild_tensor", items, b"h\x01h\x00R0"),
        "an unused class of very many arguments": again(b"mmengine\nConfig", items, b"h\x01h\x00\x810"),
        "very many keyword arguments": again(b"mmengine\nConfig", mapped, b"h\x01)h\x00\x920"),
    }


def keys() -> dict[str, bytes]:
    """Pickles of mappings and sets whose items take for ever to hash, or whose hashes are all the same."""
    nest = b"N" + b"q\x00h\x00\x86" * 200  # 2 ** 200 items
    long = b"\x8b" + struct.pack("<i", 200_000) + b"\x7f" * 200_000
    multiples = [(i * (2**61 - 1)).to_bytes(11, "little") for i in range(1, 60_001)]  # Python's hashes are modulo that
    alike = [
        b"(" + b"".join(b"J" + struct.pack("<i", -1 - (i >> k & 1)) for k in range(14)) + b"t" for i in range(2**14)
    ]
    return {
        "a key that is a nest": b"\x80\x02}" + nest + b"K\x01s.",
        "a key that is a deep tuple": b"\x80\x02}N" + b"\x85" * 300_000 + b"K\x01s.",
        "a set of a nest": b"\x80\x04\x8f(" + nest + b"\x90.",
        "a frozen set of a nest": b"\x80\x04(" + nest + b"\x91.",
        "a dict of a nest as of protocol 0": b"\x80\x02(" + nest + b"Nd.",
        "a default dict with a nest": b"\x80\x02ccollections\ndefaultdict\n)R" + nest + b"K\x01s.",
        "keyword arguments with a nest": b"\x80\x04cmmengine\nConfig\n)}" + nest + b"K\x01s\x92.",
        "long numbers as keys": b"\x80\x02}(" + long + b"q\x00K\x01" + b"h\x00K\x01" * 100_000 + b"u.",
        "numbers of one hash": b"\x80\x02}(" + b"".join(b"\x8a\x0b" + n + b"N" for n in multiples) + b"u.",
        "tuples of one hash": b"\x80\x02}(" + b"".join(key + b"N" for key in alike) + b"u.",
    }


def programs() -> dict[str, bytes]:
    """Pickles that are deep, long, endless, or that lie about counts."""
    head = b"\x80\x02"
    return {
        "a list that holds itself": head + b"]q\x00(" + b"h\x00" * 100_000 + b"e.",
        "a mapping that holds itself": head + b"}q\x00(U\x01ah\x00u.",
        "a billion laughs": head + b"}(X\x01\x00\x00\x00a]" + b"q\x00]q\x01(h\x00h\x00eh\x010" * 60 + b"u.",
        "deep tuples": head + b"N" + b"\x85" * 5_000_000 + b".",
        "tuples of 300000 levels": head + b"N" + b"\x85" * 300_000 + b".",
        "deep lists": head + b"]" * 2_000_000 + b"a" * 1_999_999 + b".",
        "lists of 200000 levels": head + b"]" * 200_000 + b"a" * 199_999 + b".",
        "objects of 100000 levels": head + b"cmmengine\nConfig\n)\x81" * 100_000 + b"b" * 99_999 + b".",
        "a line break and colours": head + b"c\x1b[31mos\nsystem\n.",
        "a name of a nest": head + b"N" + b"q\x00h\x00\x86" * 100 + b"q\x01h\x01\x93.",
        "many operations": head + b"N0" * 3_000_000 + b".",
        "many empty dicts": b"\x80\x04(" + b"}" * 400_000 + b"l.",
        "many empty sets": b"\x80\x04(" + b"\x8f" * 400_000 + b"l.",
        "no end": head + b"(" * 400_000,
        "a memo of four billion indices": head + b"Nr\xff\xff\xff\xff.",
        "a memo of very many indices in text": head + b"Np4000000000\n.",
        "text that is not there": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x0f.",
        "bytes that are not there": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",
        "a byte array that is not there": b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b".",
        "a frame that is not there": b"\x80\x04\x95" + struct.pack("<Q", 2**36) + b"N.",
        "a frame that ends inside an operation": b"\x80\x04\x95" + struct.pack("<Q", 2) + b"J\0\0r\xff\xff\xff\xff.",
        "a range of very many numbers": head
        + b"cbuiltins\nrange\n\x8a\x0a"
        + b"\xff" * 9
        + b"\x7f\x85Rq\0cbuiltins\nlist\nh\0\x85R.",
    }


def archives(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    many = folder / "many.pth"
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    count = 500_000
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, len(entry) * count, 0, 0)
    many.write_bytes(entry * count + end)
    many.write_bytes(b"PK\x03\x04" + many.read_bytes())
    yield "an archive of half a million files", many, weights
    bomb = folder / "bomb.pth"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * 300_000_000)
    others = [Path(shutil.copy(bomb, folder / name)) for name in ("resume-bomb.pt", "bomb.pt2")]
    yield "a zip bomb", bomb, weights
    yield "a zip bomb to resume from", others[0], resumed
    yield "a zip bomb as a program", others[1], exported
    nested = folder / "nested.pth"
    nested.write_bytes(members_inside_each_other())
    yield "an archive of members inside each other", nested, weights
    lies = folder / "lies.pth"
    with zipfile.ZipFile(lies, "w") as made:
        identity = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x01N" + b"K\x01" * 200_000 + b"t"
        made.writestr("a/data.pkl", b"\x80\x02" + identity + b"q\x000" + b"h\x00Q0" * 50_000 + b"N.")
    yield "an archive with a long persistent id", lies, weights
    legacy = folder / "legacy.pth"
    torch.save({"a": torch.ones(1)}, legacy, _use_new_zipfile_serialization=False)
    whole = legacy.read_bytes()
    legacy.write_bytes(
        whole[: whole.rindex(b"\x80\x02]")] + b"\x80\x02](N" + b"q\x00h\x00\x86" * 200 + b"e." + bytes(8)
    )
    yield "a legacy file with a storage whose key is a nest", legacy, weights
    header = folder / "header.safetensors"
    header.write_bytes(struct.pack("<Q", 90_000_000) + b'{"a":' + b"[" * 90_000_000)
    yield "a header of 90 MB", header, weights
    sparse = folder / "sparse.safetensors"
    text = json.dumps({"w": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}).encode()
    sparse.write_bytes(struct.pack("<Q", len(text)) + text)
    with sparse.open("r+b") as file:
        file.truncate(8 + len(text) + 2**40)
    yield "a terabyte of zeros", sparse, weights


def members_inside_each_other(count: int = 300) -> bytes:
    """An archive of torch's in which every storage holds all those after it, and the million bytes at the end."""
    names = [b"%d" % number for number in range(count)]
    tensor = b"ctorch._utils\n_rebuild_tensor\n((U\x07storagectorch\nFloatStorage\nU%c%sU\x03cpuK\x01tQK\x00))tR"
    tensors = [b"U%c%s" % (len(name), name) + tensor % (len(name), name) for name in names]
    chain, members = bytes(10**6), []
    for name, content in [(b"a/data/" + name, None) for name in reversed(names)] + [
        (b"a/data.pkl", b"\x80\x02}(" + b"".join(tensors) + b"u.")
    ]:
        held = chain if content is None else content
        known = struct.pack("<5H3I2H", 20, 0, 0, 0, 0, zlib.crc32(held), len(held), len(held), len(name), 0)
        chain = b"PK\3\4" + known + name + (content or b"") + chain
        members.append((len(chain), known, name))
    entries = [
        b"PK\1\2" + struct.pack("<H", 20) + known + struct.pack("<3H2I", 0, 0, 0, 0, len(chain) - end) + name
        for end, known, name in members
    ]
    directory = b"".join(entries)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(entries), len(entries), len(directory), len(chain), 0)
    return chain + directory + end


def graphs(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    detector = exported_models.make(0)

    def loop(helper: Any) -> list[Any]:
        inner = [helper.make_tensor_value_info(n, t, []) for n, t in (("i", 7), ("c", 9))]
        body = helper.make_graph([helper.make_node("Identity", ["c"], ["d"])], "body", inner, [
            helper.make_tensor_value_info("d", 9, [])
        ])  # fmt: skip
        return [helper.make_node("Loop", ["steps", "yes"], [], body=body)]

    def constant(helper: Any) -> list[Any]:
        return [helper.make_node("ConstantOfShape", ["many"], ["big"])]

    for name, nodes in (
        ("an endless loop", loop),
        ("a huge constant", constant),
        ("a huge expansion", lambda h: [h.make_node("Expand", ["yes", "many"], ["big"])]),
        (
            "a huge range",
            lambda h: [
                h.make_node("Constant", [], ["z"], value_int=0),
                h.make_node("Constant", [], ["o"], value_int=1),
                h.make_node("Range", ["z", "steps", "o"], ["big"]),
            ],
        ),
        ("random numbers", lambda h: [h.make_node("RandomNormal", [], ["big"], shape=[2**20, 2**20])]),
        ("an operator of others", lambda h: [h.make_node("EPContext", [], ["x"], domain="com.microsoft")]),
    ):
        yield f"onnx with {name}", onnx_file(folder / f"{name.replace(' ', '-')}.onnx", detector, nodes), exported
    import onnx

    outside = folder / "outside.onnx"
    model = onnx.load(folder / "net.onnx")
    tensor = model.graph.initializer.add(name="w", data_type=1, dims=[4], data_location=1)
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    outside.write_bytes(model.SerializeToString())
    yield "onnx with weights in another file", outside, exported


def yaml(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    laughs = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    merged = "a0: &a0 {x: 1}\n" + "".join(
        f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}], y{i}: 1}}\n" for i in range(1, 60)
    )
    texts = [
        laughs,
        merged,
        laughs + "model: {backbone: {options: {a: *a59}}}\n",
        "train: " + DEEP,
        f"train: {{lr: {DIGITS}}}",
    ]
    texts += [
        f"train: {{steps: 0x{'f' * 100_000}}}",
        "a: 2001-99-99",
        "a: !!python/object/apply:os.system [ls]",
        "? [a]\n: 1",
    ]
    texts += [
        "a: !!binary '$$$'",
        "train: &x {lr: *x}",
        "train: [*x]",
        "- 1",
        "5",
        "\0",
        "train: {lr: .nan}",
        "train: {lr: .inf}",
    ]
    texts += [
        "0x_: 1",
        "train: {milestones: [5, -1]}",
        "train: null",
        "1: 2",
        "a" * 10**6,
        "train: !!set {a, b}",
        "? &x [*x]\n",
    ]
    texts += ['"a\\nb\\e[31m": 1', 'train: {"a\\nb": 1}', 'loss: {alphas: {"a\\nb": x}}', 'loss: {box: "a\\nb"}']
    texts += ["train:\n" + "".join(f"  k{i}: 1\n" for i in range(8000)), "model: {backbone: {options: &o {a: *o}}}"]
    for number, text in enumerate(texts):
        path = folder / f"{number}.yaml"
        path.write_text(text)
        yield f"recipe {text[:20]!r}", path, recipes.values
        place = run_of(folder / f"run-{number}")
        (place / "settings.yaml").write_text(text)
        yield f"settings of a run {text[:20]!r}", place, run
    for number, text in enumerate(
        [DEEP, DIGITS, '{"data": 5}', '{"data": "a\\u0000"}', "[]", "{}", '{"data": ' + DEEP + "}"]
    ):
        place = run_of(folder / f"facts-{number}")
        (place / "run.json").write_text(text)
        yield f"run.json {text[:20]!r}", place, run
    for number, text in enumerate(
        ["", "a,b\n1,2\n", f"step,a\n{DIGITS},1\n", "step\n²\n", "step,a\n" + "x" * 200_000, "step\n\0\n"]
    ):
        place = run_of(folder / f"metrics-{number}")
        (place / "metrics.csv").write_text(text)
        yield f"metrics.csv {text[:20]!r}", place, run


def outcome(path: Path, read: Read) -> str:
    """read, refused with a line, or what went wrong."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s of CPU time")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    begun = time.process_time()
    try:
        read(path)
        result = "read"
    except (RequestError, WorkError) as error:
        line = str(error)
        short = "\n" not in line and len(line) < 700 + 2 * len(str(path)) and "CPU time" not in line
        result = f"refused: {line}" if short else f"no line: {line[:800]}"
    except BaseException:
        result = traceback.format_exc()[-1500:]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    seconds = time.process_time() - begun
    return result if seconds < SECONDS else f"took {seconds:.1f} s: {result}"


def main(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    makers = (mutations, metadata, huge, pickles, archives, graphs, yaml)
    files = {}
    base = 0
    for maker in makers:
        for name, path, read in maker(folder):
            if not base:
                outcome(path, read)  # what is imported is no file's doing
                base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            sys.stderr.write(f"{name}\n")  # the last one, where the process ends
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            files[name] = outcome(path, read)
            if (grown := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > 10**6:
                files[name] = f"took {grown / 1e6:.1f} GB: {files[name]}"
            if maker is not mutations:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    sys.stdout.write(json.dumps(files))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
