"""Runs measurements one after the other, each in a new process, so that no leftovers in memory affect the next."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from retinanet.bench import torchvision_bench


def options(
    description: str | None,
    names: str,
    known: Any,
    rounds: int,
    measure: Callable[..., Any],
    flags: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Parse the command line of a script. In a process that :func:`alone` started, measure, print the result and exit.

    Args:
        names, known: the name of its arguments, and their known values.
        rounds: the default of --rounds.
        measure: called with the arguments of :func:`alone` as text, and the rounds; returns a result.
        flags: more options without a value, with their help.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(names, nargs="*", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path)
    for flag, text in flags.items():
        parser.add_argument(flag, action="store_true", help=text)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    fault = _fault(given, names, known)
    if fault:
        parser.exit(2, f"{parser.prog}: {fault}\n")
    if given.one:
        with ended_by_ctrl_c():
            print(json.dumps(measure(*given.one, given.rounds)))
        raise SystemExit
    print(torchvision_bench.machine())
    return given


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Ctrl-C ends the script without a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _fault(given: argparse.Namespace, names: str, known: Any) -> str | None:
    """A line about wrong arguments, if there are any."""
    unknown = [name for name in getattr(given, names) if name not in known]
    if unknown:
        return f"there is no {unknown[0]!r} among the {names}; they are {', '.join(known)}"
    if given.rounds < 1:
        return f"--rounds must be at least 1, not {given.rounds}"
    if given.json and not given.json.parent.is_dir():
        return f"--json {given.json}: there is no folder {given.json.parent}"
    return None


def alone(*arguments: str, rounds: int) -> Any:
    """The result of this script for ``arguments`` in a new process; None if that was killed for lack of memory."""
    command = [sys.executable, sys.argv[0], "--rounds", str(rounds), "--one", *arguments]
    with ended_by_ctrl_c():
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode in (-9, 137):
        return None
    done.check_returncode()
    return json.loads(done.stdout.splitlines()[-1])


def record(path: Path | None, rows: list[dict[str, Any]]) -> None:
    if path:
        path.write_text(json.dumps({"machine": torchvision_bench.machine(), "rows": rows}, indent=1) + "\n")
