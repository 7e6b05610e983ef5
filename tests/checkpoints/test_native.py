"""Our checkpoint file, and what is said of files that are none."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import retinanet
from retinanet.checkpoints import find, native
from retinanet.common.errors import RequestError, WorkError
from retinanet.config.model_settings import AnchorSettings, BackboneSettings, ModelSettings

SETTINGS = replace(
    ModelSettings(),
    backbone=BackboneSettings(name="resnet18", weights="imagenet", options={"pad_type": "same"}),
    anchors=AnchorSettings(ratios=(0.3, 1.0), offset=0.0),
)
STATE = {"a": torch.arange(6.0).reshape(2, 3), "b.steps": torch.tensor(7), "c": torch.ones(2, dtype=torch.bfloat16)}
NAMES = ("Hund", "猫", 'a "quoted" name')


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    native.save(path, STATE, SETTINGS, NAMES, {"AP": 0.25, "data": {"split": "val"}})
    state, settings, names, extra = native.load(path)
    assert settings == SETTINGS
    assert names == NAMES
    assert extra == {"AP": 0.25, "data": {"split": "val"}}
    assert state.keys() == STATE.keys()
    for name, tensor in STATE.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_any_memory_layout(tmp_path: Path) -> None:
    kernel = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last).requires_grad_()
    native.save(tmp_path / "m.safetensors", {"kernel": kernel, "part": kernel[1:3]}, SETTINGS, NAMES)
    state = native.load(tmp_path / "m.safetensors").state
    assert torch.equal(state["kernel"], kernel)
    assert torch.equal(state["part"], kernel[1:3])


def test_metadata_is_plain_json(tmp_path: Path) -> None:
    """Another program can read what a model is without this package."""
    native.save(tmp_path / "m.safetensors", STATE, SETTINGS, NAMES)
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == "retinanet-1"
    assert json.loads(metadata["retinanet.classes"]) == list(NAMES)
    assert json.loads(metadata["retinanet.settings"])["anchors"]["ratios"] == [0.3, 1.0]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    native.save(path, STATE, SETTINGS, NAMES)
    before = path.read_bytes()

    def full_disk(tensors: Any, file: Any, metadata: Any) -> None:
        Path(file).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(WorkError, match=rf"^cannot write {re.escape(str(path))}: .*no space left on device"):
        native.save(path, {"a": torch.zeros(1)}, SETTINGS, ["other"])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_name_is_taken_only_by_a_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    seen: list[tuple[bool, Path]] = []
    real = os.replace

    def watch(source: Any, target: Any) -> None:
        seen.append((path.exists(), Path(source)))
        assert native.load(source).class_names == NAMES
        real(source, target)

    monkeypatch.setattr(os, "replace", watch)
    native.save(path, STATE, SETTINGS, NAMES)
    ((existed, beside),) = seen
    assert not existed
    assert beside.parent == tmp_path  # one file system, so the renaming is atomic
    assert path.is_file()


def test_who_may_read_it(tmp_path: Path) -> None:
    """Whoever may read the user's other files: a server under a user of its own has to."""
    native.save(tmp_path / "m.safetensors", STATE, SETTINGS, NAMES)
    (tmp_path / "plain").touch()
    assert (tmp_path / "m.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"^cannot write .*model\.safetensors: "):
        native.save(tmp_path / "missing" / "model.safetensors", STATE, SETTINGS, NAMES)


def test_missing(tmp_path: Path) -> None:
    expected = f"there is no checkpoint {tmp_path / 'm.safetensors'}"
    with pytest.raises(RequestError, match=f"^{re.escape(expected)}$"):
        native.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("cut", [0, 5, 100, -1])
def test_damaged(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "m.safetensors"
    native.save(path, STATE, SETTINGS, NAMES)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(
        RequestError, match=rf"^{re.escape(str(path))} cannot be read as a checkpoint \(.*; is the file "
    ):
        native.load(path)


def test_another_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file(STATE, path, metadata)
        with pytest.raises(RequestError) as error:
            native.load(path)
        kind = metadata and metadata["format"]
        assert str(error.value) == (
            f"{path} is a safetensors file but not a retinanet checkpoint (its metadata names the format {kind!r}, "
            "not 'retinanet-1')"
        )


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("retinanet.settings", None),
        ("retinanet.settings", "{"),
        ("retinanet.settings", "3"),
        ("retinanet.settings", '{"backbone": {"nam": "x"}}'),
        ("retinanet.classes", "5"),
        ("retinanet.classes", None),
    ],
)
def test_wrong_metadata(tmp_path: Path, key: str, text: str | None) -> None:
    path = tmp_path / "m.safetensors"
    native.save(path, STATE, SETTINGS, NAMES)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    del metadata[key]
    if text is not None:
        metadata[key] = text
    save_file(STATE, path, metadata)
    with pytest.raises(RequestError, match=rf"^{re.escape(str(path))} cannot be read as a checkpoint \("):
        native.load(path)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["RETINANET_TEST_PAYLOAD"],)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_pickle_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINANET_TEST_PAYLOAD", str(tmp_path / "made"))
    path = tmp_path / name
    torch.save({"weights": STATE, "code": Payload()}, path)
    with pytest.raises(RequestError) as error:
        retinanet.load(path)
    module = os.mkdir.__module__
    assert str(error.value).startswith(f"{path} names {module}.mkdir, which weights do not need; nothing of it was")
    assert not (tmp_path / "made").exists()


def test_find(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"is a folder without best\.safetensors or last\.safetensors: give a run"):
        find(tmp_path)
    (tmp_path / "last.safetensors").touch()
    assert find(tmp_path) == tmp_path / "last.safetensors"
    (tmp_path / "best.safetensors").touch()
    assert find(str(tmp_path)) == tmp_path / "best.safetensors"
    assert find(tmp_path / "last.safetensors") == tmp_path / "last.safetensors"
    with pytest.raises(RequestError, match=r"^there is no model .*nothing: give a run folder or a checkpoint file$"):
        find(tmp_path / "nothing")
