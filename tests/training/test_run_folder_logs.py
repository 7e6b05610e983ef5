"""The logs of a run where they cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet.common.errors import WorkError
from retinanet.training.run_folder import RunFolder


def test_logs_that_cannot_be_opened(tmp_path: Path) -> None:
    """A folder stands where the table belongs, as for a full disk: the line names the table."""
    (tmp_path / ".metrics.csv.part").mkdir()
    with pytest.raises(WorkError, match=r"metrics\.csv") as caught:
        RunFolder(tmp_path).open_logs(0)
    assert "\n" not in str(caught.value)
