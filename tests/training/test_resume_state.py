"""The resume file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.common.errors import RequestError, WorkError
from retinanet.training import resume_state

CONTENT: dict[str, Any] = {
    "step": 17,
    "seconds": 3.5,
    "best": None,
    "history": [{"AP": 0.25}, {"AP": -1.0}],
    "model": {"w": torch.arange(4.0), "half": torch.ones(3, dtype=torch.bfloat16)},
}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    resume_state.save(path, CONTENT)
    loaded = resume_state.load(path)
    assert loaded.keys() == CONTENT.keys()
    assert {k: loaded[k] for k in ("step", "seconds", "best", "history")} == {
        k: CONTENT[k] for k in ("step", "seconds", "best", "history")
    }
    for name, tensor in CONTENT["model"].items():
        assert loaded["model"][name].dtype == tensor.dtype
        assert torch.equal(loaded["model"][name], tensor)
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_an_optimizer_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def make() -> tuple[torch.nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 2)
        return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

    def step(net: torch.nn.Linear, optimizer: torch.optim.Optimizer, seed: int) -> None:
        optimizer.zero_grad()
        net(torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        optimizer.step()

    net, optimizer = make()
    for seed in range(3):
        step(net, optimizer, seed)
    resume_state.save(tmp_path / "s.pt", {"model": net.state_dict(), "optimizer": optimizer.state_dict()})
    other, other_optimizer = make()
    loaded = resume_state.load(tmp_path / "s.pt")
    other.load_state_dict(loaded["model"])
    other_optimizer.load_state_dict(loaded["optimizer"])
    for n, o in ((net, optimizer), (other, other_optimizer)):
        step(n, o, 7)
    assert torch.equal(net.weight, other.weight)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    resume_state.save(path, CONTENT)

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    expected = f"cannot write {path}: no space left on device: it needs "
    with pytest.raises(WorkError, match=f"^{re.escape(expected)}"):
        resume_state.save(path, {"step": 18})
    assert resume_state.load(path)["step"] == 17
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_nowhere_to_write(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match=r"^cannot write .*state\.pt: "):
        resume_state.save(tmp_path / "missing" / "state.pt", CONTENT)


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"{re.escape(str(tmp_path))}: there is no state\.pt"):
        resume_state.load(tmp_path / "state.pt")


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (os.environ["RETINANET_TEST_PAYLOAD"],)


def test_files_that_are_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.pt"
    monkeypatch.setenv("RETINANET_TEST_PAYLOAD", str(tmp_path / "made"))
    resume_state.save(path, CONTENT)
    whole = path.read_bytes()
    for damaged in (b"", b"no state", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(RequestError, match=rf"^cannot resume from {re.escape(str(path))}: "):
            resume_state.load(path)
    for content in ({"version": 1, "x": Payload()}, {"step": 3}, [1, 2], torch.zeros(2)):
        torch.save(content, path)
        with pytest.raises(RequestError, match=rf"^cannot resume from {re.escape(str(path))}: "):
            resume_state.load(path)
    assert not (tmp_path / "made").exists()
    torch.save({"version": 2}, path)
    with pytest.raises(RequestError, match=r"version is 2, .* 1$"):
        resume_state.load(path)
