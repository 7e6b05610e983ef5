"""The logs of a run where they cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retinanet.common.errors import WorkError
from retinanet.training.run_folder import RunFolder, read_metrics


def test_a_table_that_cannot_be_opened(tmp_path: Path) -> None:
    """A folder stands where the table belongs: the line names the table."""
    (tmp_path / "metrics.csv").mkdir()
    with pytest.raises(WorkError, match=r"metrics\.csv") as caught:
        RunFolder(tmp_path).open_logs(0)
    assert "\n" not in str(caught.value)


def test_the_table_goes_on_and_is_never_renamed_while_it_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows renames no open file. Rows after the step from which the run goes on are dropped."""
    replace, before = os.replace, set(os.listdir("/proc/self/fd"))

    def checked(source: str | Path, target: str | Path) -> None:
        opened = {os.path.realpath(f"/proc/self/fd/{number}") for number in set(os.listdir("/proc/self/fd")) - before}
        assert os.path.realpath(source) not in opened
        replace(source, target)

    monkeypatch.setattr(os, "replace", checked)
    for start, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        folder = RunFolder(tmp_path)
        folder.open_logs(start)
        for step in steps:
            folder.log({"step": step, "class_loss": 10.0 * start + step})
        folder.close()
    rows = [(row["step"], row["class_loss"]) for row in read_metrics(tmp_path)]
    assert rows == [("1", "1"), ("2", "2"), ("3", "23"), ("4", "24")]
