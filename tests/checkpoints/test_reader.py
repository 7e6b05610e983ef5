"""Checkpoint files of every container and protocol are read, and hostile or foreign ones refused in one line."""

from __future__ import annotations

import argparse
import builtins
import collections
import contextlib
import copyreg
import io
import json
import os
import pathlib
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from retinanet.common.errors import RequestError
from retinanet.weight_files.reader import describe, read


class Call:
    """Pickles as a call of ``function``, which opening the file elsewhere would execute."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


def refusal(path: Path) -> str:
    with pytest.raises(RequestError) as caught:
        read(path)
    line = str(caught.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    assert len(line) < len(str(path)) + 400
    return line


STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "norm.num_batches_tracked": torch.tensor(7)}
BESIDE = {
    "epoch": 3,
    "args": argparse.Namespace(lr=0.01, output=pathlib.PurePosixPath("/x/y")),
    "seen": collections.defaultdict(list, {"loss": [1.5]}),
    "best": np.float64(2.5),
    "last": collections.deque([1, 2], 5),
}


def assert_state(tensors: dict[str, torch.Tensor]) -> None:
    assert list(tensors) == list(STATE)
    for name, tensor in tensors.items():
        assert tensor.dtype == STATE[name].dtype
        assert torch.equal(tensor, STATE[name])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_torch_files(tmp_path: Path, key: str, zipped: bool, protocol: int) -> None:
    value = {"optimizer": {"state": {0: {"momentum": torch.ones(3)}}}, key: STATE, **BESIDE}
    path = tmp_path / "any.name"
    torch.save(value, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    contents = read(path)
    assert_state(contents.tensors)
    assert contents.about.pop("keys") == list(value)
    args = {"lr": 0.01, "output": "/x/y"}
    assert contents.about == {"epoch": 3, "args": args, "seen": {"loss": [1.5]}, "best": 2.5, "last": [1, 2]}


def test_tensors_are_as_torch_reads_them(tmp_path: Path) -> None:
    """Views, half precision, Parameters, empty and shared ones; in float32, and of their own memory."""
    base = torch.randn(4, 6)
    value = {
        "parameter": torch.nn.Parameter(base),
        "transposed": base.t(),
        "row": base[1:, ::2],
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double(),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(2.0),
        "bool": base > 0,
        "bytes": torch.arange(3, dtype=torch.uint8),
    }
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        torch.save(value, path, _use_new_zipfile_serialization=zipped)
        found = read(path).tensors
        for name, tensor in torch.load(path, weights_only=True).items():
            expected = tensor.float() if tensor.is_floating_point() else tensor
            assert found[name].dtype == expected.dtype
            assert torch.equal(found[name], expected)
        assert found["parameter"].data_ptr() != found["transposed"].data_ptr()


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "model._orig_mod."])
def test_prefixes_of_wrappers(tmp_path: Path, prefix: str) -> None:
    torch.save({"state_dict": {prefix + name: tensor for name, tensor in STATE.items()}}, tmp_path / "a.ckpt")
    assert_state(read(tmp_path / "a.ckpt").tensors)
    torch.save({f"{prefix}a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "b.ckpt")
    assert set(read(tmp_path / "b.ckpt").tensors) == {f"{prefix}a", "b"}, "only where all have it"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickled_arrays(tmp_path: Path, protocol: int) -> None:
    arrays = {
        "a": np.arange(6, dtype="<f4").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype="<f8").reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "half": np.arange(3, dtype="<f2"),
        "count": np.array(4),
        "none": np.zeros((0, 2), np.float32),
    }
    value = {"model": arrays, "__author__": "Them", "matching_heuristics": True}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(value, protocol))
    contents = read(tmp_path / "model.pkl")
    assert contents.about["__author__"] == "Them"
    for name, array in arrays.items():
        expected = torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("="))).reshape(array.shape)
        assert torch.equal(contents.tensors[name], expected.float() if name != "count" else expected)


def test_pickles_of_python_2(tmp_path: Path) -> None:
    """Detectron's: an array's bytes are a string, and names are of Python 2's modules."""
    data = np.arange(4, dtype="<f4").tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n(I2\nI2\ntcnumpy\ndtype\n"
    array += b"(U\x02f4I0\nI1\ntR(I3\nU\x01<NNNI-1\nI-1\nI0\ntbI00\nU" + bytes([len(data)]) + data + b"tb"
    blobs = b"U\x05blobs}(U\x03w_b" + array + b"U\x0cw_b_momentum" + array + b"u"
    (tmp_path / "old.pkl").write_bytes(b"\x80\x02}(" + blobs + b"U\x03cfgU\x07caf\xe9: 1u.")
    contents = read(tmp_path / "old.pkl")
    assert torch.equal(contents.tensors["w_b"], torch.arange(4.0).reshape(2, 2))
    assert set(contents.tensors) == {"w_b"}, "without the optimizer's"
    assert contents.about["cfg"] == "café: 1"


def test_safetensors_and_the_config_beside(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.bin", {"format": "pt"})
    assert "config" not in read(tmp_path / "model.bin").about
    (tmp_path / "config.json").write_text('{"num_classes": 1')
    assert "config" not in read(tmp_path / "model.bin").about, "half a file"
    (tmp_path / "config.json").write_text('{"num_classes": 1}')
    contents = read(tmp_path / "model.bin")
    assert_state(dict(sorted(contents.tensors.items())))
    assert contents.about == {"metadata": {"format": "pt"}, "config": {"num_classes": 1}}


def test_a_trainer_s_own_classes_are_not_imported(tmp_path: Path) -> None:
    """Names as in MMEngine's and Lightning's files; no such package is installed here."""
    log = b"cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81}U\x05_sizeK\x05sb"
    config = b"comegaconf.dictconfig\nDictConfig\n)\x81}(U\x08_contentcomegaconf.nodes\nAnyNode\n)\x81}sbub"
    config = config.replace(b"}sbub", b"}U\x04_valK\x01sbsb").replace(b"}(U\x08", b"}U\x08")
    weights = pickle.dumps({"a": np.ones(2, np.float32)}, 2)[2:-1]
    text = b"\x80\x02}(U\x0bmessage_hub" + log + b"U\x06config" + config + b"U\x0astate_dict" + weights + b"u."
    (tmp_path / "x.pth").write_bytes(text)
    contents = read(tmp_path / "x.pth")
    assert torch.equal(contents.tensors["a"], torch.ones(2))
    assert contents.about["config"] == {"_content": {"_val": 1}}


# ------------------------------------------------------------------------------------------------- hostile files


def writings(value: Any, folder: Path) -> list[Path]:
    """``value`` as a pickle of every protocol, in a zip and in a legacy torch file."""
    paths = []
    for protocol in (2, 3, 4, 5):
        paths.append(folder / f"{protocol}.pkl")
        paths[-1].write_bytes(pickle.dumps(value, protocol))
        for zipped in (True, False):
            paths.append(folder / f"{protocol}-{zipped}.pth")
            torch.save(value, paths[-1], pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    return paths


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, f"{os.name}.system"), (builtins.eval, "builtins.eval"), (builtins.getattr, "builtins.getattr")],
)
@pytest.mark.parametrize("where", ["top", "beside", "inside", "key"])
def test_calls_are_refused_by_name_and_not_executed(tmp_path: Path, function: Any, name: str, where: str) -> None:
    target = tmp_path / "executed"
    command = {"system": f"touch {target}", "eval": f"open({str(target)!r}, 'w')"}.get(name.split(".")[1])
    call = Call(function, *([command] if command else [target, "touch"]))
    value = {
        "top": call,
        "beside": {"model": {"x": np.ones(1)}, "meta": call},
        "inside": {"model": {"x": np.ones(1), "y": call}},
        "key": {"model": {"x": np.ones(1), call: 1}},
    }[where]
    for path in writings(value, tmp_path):
        line = refusal(path)
        assert name in line
        assert "nothing of it was executed" in line
        assert not target.exists()
    if command:  # the files do what they say, opened as one usually does
        pickle.loads((tmp_path / "2.pkl").read_bytes())
        assert target.exists()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    array = np.array([Call(os.system, f"touch {target}")], dtype=object)
    for number, value in enumerate([{"a": array}, {"a": np.array([None], object)}, {"a": np.zeros(2, "f4,O")}]):
        for protocol in (2, 4, 5):
            path = tmp_path / f"{number}-{protocol}.pkl"
            path.write_bytes(pickle.dumps(value, protocol))
            refusal(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (b"\x80\x02ctorch\nload\nU\x01a\x85R.", "torch.load"),
        (b"\x80\x02ctorch.hub\nload\n)R.", "torch.hub.load"),
        (b"\x80\x02cnumpy\nload\n)R.", "numpy.load"),
        (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00U\x01btR.", "numpy.ndarray"),
        (b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.", "rot13"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02ls\x85R.", "posix.system"),
        (b"\x80\x02(S'ls'\nios\nsystem\n.", "os.system"),
        (b"\x80\x02(cos\nsystem\nS'ls'\no.", "os.system"),
        (b"\x80\x02c__builtin__\neval\nS'1'\n\x85R.", "builtins.eval"),
        (b"\x80\x02csys\nmodules\n.", "sys.modules"),
        (b"\x80\x02ccopy_reg\n__newobj__\n.", "copyreg.__newobj__"),
        (b"\x80\x04\x8c\x13torch.serialization\x8c\x09os.system\x93.", "torch.serialization.os.system"),
        (b"\x80\x04\x8c\x0ctorch._utils\x8c\x1b_rebuild_tensor.__globals__\x93.", "_rebuild_tensor.__globals__"),
        (b"\x80\x04\x8c\x08builtins\x8c\x13dict.__subclasses__\x93.", "builtins.dict"),
        (b"\x80\x05C\x01a\x98.", "READONLY_BUFFER"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02K\x01Q.", "BINPERSID"),
        (b"\x80\x02c__main__\nNet\n)\x81.", "state_dict()"),
        (b"\x80\x02ctorch.nn.modules.conv\nConv2d\n)\x81.", "state_dict()"),
        (
            b"\x80\x02cretinanet.model\nResNet\n)\x81.",
            "another package that is called retinanet; save its state_dict()",
        ),
        (b"\x80\x02codtk.model\nModel\n)\x81.", "state_dict()"),
    ],
)
def test_forbidden_names(tmp_path: Path, text: bytes, named: str) -> None:
    (tmp_path / "a.pkl").write_bytes(text)
    assert named in refusal(tmp_path / "a.pkl")


def test_registered_extensions_are_not_called(tmp_path: Path) -> None:
    copyreg.add_extension(os.name, "system", 240)
    try:
        (tmp_path / "a.pkl").write_bytes(b"\x80\x02\x82\xf0U\x02ls\x85R.")
        assert "EXT1" in refusal(tmp_path / "a.pkl")
    finally:
        copyreg.remove_extension(os.name, "system", 240)


@pytest.mark.parametrize("name", [b"builtins\nlist", b"numpy\ndtype", b"torch\nFloatStorage", b"mmengine\nConfig"])
@pytest.mark.parametrize(
    "change",
    [
        b"}U\x08__code__Nsb",
        b"N}U\x0c__defaults__)s\x86b",
        b"N}U\x04nameU\x09os.system\x85s\x86b",
        b"U\x04nameU\x09os.systems",
        b"Na",
    ],
)
def test_functions_cannot_be_changed(tmp_path: Path, name: bytes, change: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02c" + name + b"\n" + change + b".")
    assert "damaged" in refusal(tmp_path / "a.pkl")
    torch.save(STATE, tmp_path / "b.pth")
    assert_state(read(tmp_path / "b.pth").tensors)


def zipped(path: Path, pickled: bytes, data: bytes = b"\0" * 8, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", data)
    return path


def tensor_pickle(offset: int, size: tuple[int, ...], stride: tuple[int, ...], key: str = "0") -> bytes:
    """A state dict with one float tensor of this place in the storage ``key``."""
    stream = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, key, "cpu", 2) if value is ... else None

    rebuild = Call(torch._utils._rebuild_tensor_v2, ..., offset, size, stride, False, {})
    Pickler(stream, 2).dump({"w": rebuild})
    return stream.getvalue()


def test_tensors_stay_in_their_storage(tmp_path: Path) -> None:
    good = zipped(tmp_path / "good", tensor_pickle(1, (1,), (1,)), struct.pack("<2f", 1, 2))
    assert read(good).tensors["w"].tolist() == [2.0]
    hostile = [
        tensor_pickle(2, (1,), (1,)),
        tensor_pickle(0, (3,), (1,)),
        tensor_pickle(0, (1 << 40,), (0,)),
        tensor_pickle(0, (2, 2), (1 << 62, 1)),
        tensor_pickle(-1, (1,), (1,)),
        tensor_pickle(0, (-1, 2), (1, 1)),
        tensor_pickle(0, (1,), (1, 1)),
        tensor_pickle(0, (1,), (1,), key="../../etc"),
    ]
    for number, pickled in enumerate(hostile):
        assert "damaged" in refusal(zipped(tmp_path / f"{number}.pth", pickled))
    assert "compressed" in refusal(zipped(tmp_path / "bomb", tensor_pickle(0, (1,), (1,)), compression=8))


def test_many_names_for_one_storage(tmp_path: Path) -> None:
    tensor = torch.zeros(10**6)
    torch.save({str(i): tensor for i in range(200)}, tmp_path / "a.pth")
    assert "many times the memory" in refusal(tmp_path / "a.pth")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"\x80\x02}(", b"PK\x03\x04", b"\x10\0\0\0\0\0\0\0{"]),
    rest=st.binary(max_size=200),
)
def test_arbitrary_bytes(tmp_path: Path, start: bytes, rest: bytes) -> None:
    (tmp_path / "a").write_bytes(start + rest)
    refusal(tmp_path / "a")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files(tmp_path: Path, data: st.DataObject) -> None:
    """Cut short or with a byte changed: read all the same, or refused in one line."""
    kind = data.draw(st.sampled_from(["zip", "legacy", "pickle", "safetensors"]))
    place = tmp_path / kind
    if kind == "pickle":
        place.write_bytes(pickle.dumps({"model": {name: t.numpy() for name, t in STATE.items()}}, 2))
    elif kind == "safetensors":
        save_file(STATE, place)
    else:
        torch.save(STATE, place, _use_new_zipfile_serialization=kind == "zip")
    whole = bytearray(place.read_bytes())
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    place.write_bytes(whole)
    with contextlib.suppress(RequestError):
        assert isinstance(read(place).tensors, dict)


# ------------------------------------------------------------------------------------------------- foreign files


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is\nnot a model", "a text file that begins with 'hello, this is not a model'"),
        (b'{"images": []}', "a text file"),
        (b"\x89PNG\r\n\x1a\n....", "PNG"),
        (b"\xff\xd8\xff\xe0....", "JPEG"),
        (b"\x89HDF\r\n\x1a\n....", "Keras"),
        (b"\x08\x08\x12\x07pytorch\x1a\x032.1", "ONNX"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><title>Sign in</title>", "web page"),
        (b"\x1f\x8b\x08\0....", "gzip"),
        (b"\0\1\2\3\xff\xfe\x80\x81\x82", "00 01 02 03"),
        (pickle.dumps([1, 2]), "no mapping of names to tensors"),
        (pickle.dumps({"a": 1, "optimizer": {}}), "a, optimizer"),
        (pickle.dumps({"a": np.ones(3)})[:60], "damaged"),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    assert words in refusal(tmp_path / "model.pth")


def test_other_archives_folders_and_missing_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.ones(2))
    assert "a.npy" in refusal(tmp_path / "a.npz")
    torch.save(STATE, tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-100])
    assert "damaged" in refusal(tmp_path / "cut.pth")
    assert "folder" in refusal(tmp_path)
    with pytest.raises(RequestError, match="there is no file"):
        read(tmp_path / "none")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    assert "torch.nn.modules.linear.Linear" in refusal(tmp_path / "whole.pth")
    assert "state_dict()" in refusal(tmp_path / "whole.pth")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    assert "TorchScript" in refusal(tmp_path / "script.pt")


def test_describe(tmp_path: Path) -> None:
    torch.save({"net": {f"layer{i}": torch.ones(1) for i in range(9)}, "epoch": 1}, tmp_path / "a.pth")
    line = describe(read(tmp_path / "a.pth"))
    assert line == "9 tensors (layer0, layer1, layer4, layer8); at its top level net, epoch"
    (tmp_path / "config.json").write_text(json.dumps({"a": 1}))
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    assert describe(read(tmp_path / "a.pth")) == "1 tensors (a)"


def test_what_lies_beside_a_file_does_not_hold_it_up(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    os.mkfifo(tmp_path / "config.json")
    (tmp_path / "config.yaml").write_bytes(b"\xff not utf-8")
    found = read(tmp_path / "a.safetensors")
    assert found.beside is None
    assert "config" not in found.about
    (tmp_path / "config.yaml").write_text("MODEL: {}")
    assert read(tmp_path / "a.safetensors").beside == (tmp_path / "config.yaml", "MODEL: {}")
