"""The page "Your own loss in 20 lines": its code runs as it stands, on small data and a small network."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from helpers.synthetic_data import rectangles
from helpers.tiny_run import tiny

PAGE = Path(__file__).parents[1] / "docs" / "tutorials" / "your-own-loss.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
SMALLER = {
    'budget="15m"': "settings=tiny(steps=4, eval_every=0.0), progress=False",
    "retinanet.Settings().model": "tiny().model",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rectangles(tmp_path / "DATA")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_code_runs(folder: Path) -> None:
    assert len(BLOCKS) == 3
    for block in BLOCKS:
        for whole, small in SMALLER.items():
            block = block.replace(whole, small)
        exec(compile(block, str(PAGE), "exec"), {"tiny": tiny})
    own = [json.loads((folder / "runs" / name / "run.json").read_text())["own"] for name in ("poly", "parts")]
    assert own[0] == {"loss": "poly_focal_loss"}
    assert own[1] == {"box_loss": "ciou_loss", "matcher": "nine_best", "optimizer": "RAdam(lr=0.001)"}
    assert (folder / "mine.safetensors").is_file()


def test_the_loss_has_no_more_lines_than_the_page_says() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 20
