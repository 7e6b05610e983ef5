"""Type checkers know the public API: its types, and mistakes in its use."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import retinanet

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests" / "typing" / "public_api.py"


@pytest.mark.slow
def test_a_users_program_is_understood_in_strict_mode() -> None:
    """mypy finds the lines that are marked as wrong, and nothing else."""
    options = ["--strict", "--follow-imports=silent", "--no-error-summary", "--cache-dir", ".mypy_cache/users"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(PROGRAM)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        env={"MYPYPATH": "src", "PATH": ""},
        timeout=500,
    )
    assert not done.stderr
    found = {int(line) for line in re.findall(r"public_api\.py:(\d+): error", done.stdout)}
    lines = PROGRAM.read_text(encoding="utf-8").splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert found == wrong, done.stdout


def test_every_public_name_is_there_for_type_checkers_and_at_run_time() -> None:
    text = (ROOT / "src" / "retinanet" / "__init__.py").read_text(encoding="utf-8")
    typed = set(re.findall(r"^    from [\w.]+ import (\w+) as \1$", text, re.MULTILINE))
    assert typed == set(retinanet.__all__) - {"__version__"}
    assert all(hasattr(retinanet, name) for name in retinanet.__all__)
