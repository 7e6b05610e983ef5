"""One measurement after the other, each in a process of its own: what one leaves in memory does not meet the next."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from retinanet import bench


def options(description: str | None, names: str, known: Any, rounds: int, measure: Callable[..., Any]) -> Any:
    """The command line of a script; in a process that :func:`alone` started, measures, prints the result and leaves.

    Args:
        names, known: what its arguments are called, and which there are.
        rounds: the default of --rounds.
        measure: from the arguments given to :func:`alone`, as text, and the rounds, to a result.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(names, nargs="*", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*given.one, given.rounds)))
        raise SystemExit
    print(bench.machine())
    return given


def alone(*arguments: str, rounds: int) -> Any:
    """What this script measures for ``arguments`` in a new process; None where that was killed for lack of memory."""
    command = [sys.executable, sys.argv[0], "--rounds", str(rounds), "--one", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode in (-9, 137):
        return None
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])


def record(path: Path | None, rows: list[dict[str, Any]]) -> None:
    if path:
        path.write_text(json.dumps({"machine": bench.machine(), "rows": rows}, indent=1) + "\n")
