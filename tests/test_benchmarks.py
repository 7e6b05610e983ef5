"""The scripts in benchmarks: their arguments, and that they leave no process behind."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("speed")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["lossy"], "'lossy'"),
        (["loss", "training", "Matching"], "'Matching'"),
        (["--rounds", "0"], "--rounds"),
        (["--json", "nowhere/speed.json"], "nowhere"),
    ],
)
def test_wrong_arguments(
    speed: Any, arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["speed.py", *arguments])
    with pytest.raises(SystemExit) as end:
        speed.main()
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line


def test_busy_cores_end_with_ctrl_c(speed: Any) -> None:
    busy = speed.busy_cores()
    spins = busy.__enter__()
    assert len(spins) == (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    assert all(spin.poll() is None for spin in spins)
    assert not busy.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert all(spin.poll() is not None for spin in spins)


def test_a_busy_core_ends_with_the_process_that_made_it_busy(speed: Any) -> None:
    core = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    not_its_parent = subprocess.Popen([sys.executable, "-c", ""])
    not_its_parent.wait()
    subprocess.run([sys.executable, "-c", speed.SPIN, str(core), str(not_its_parent.pid)], timeout=60, check=True)


def test_a_claim_quiet_and_busy(speed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(speed.CLAIMS, "loss", [lambda: speed.torchvision_bench.focal_loss(600, 5)])
    assert [row["busy"] for row in speed.measure("loss", "0", "", 2)] == [False]
    rows = speed.measure("loss", "0", "busy", 2)
    assert [row["busy"] for row in rows] == [False, True]
    assert all(speed.line(row).count("|") == 6 for row in rows)
